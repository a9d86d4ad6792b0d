"""The first losses and gradient norms of TRL's GRPO, RLOO and KTO on a folder of `tests/shapes.py`, as JSON: run by `make test-peers`.

Arguments: a folder for the model, the file to write. Answers are not drawn: the trainers' generation is replaced by the answers of
`policy_rows.py`. All rows are one batch, so that their order says nothing.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import policy_rows as given
from trl_losses import RATE, build

STEPS, SHAPE = 4, "qwen2"
WITHOUT: dict[str, Any] = {"spare": 0, "seed": 24}
"""TRL draws and scores every row of the output layer, so each must be a token."""


def main(folder: Path, out: Path) -> None:
    import torch
    import transformers
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback

    model = build(SHAPE, folder / "model", **WITHOUT)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = tokenizer.eos_token
    said = given.answers(tokenizer.eos_token_id, list(range(20, 200)))
    prompts = [tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"] for asked in given.ASKED]
    cases: dict[str, dict[str, list[float]]] = {}

    class Figures(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in logs:
                cases[case].setdefault("loss", []).append(float(logs["loss"]))
                cases[case].setdefault("grad_norm", []).append(float(logs["grad_norm"]))
                cases[case].setdefault("kl", []).append(float(logs.get("kl", 0.0)))

    def answering(trainer: type) -> type:
        """A trainer that is given its answers."""

        class Given(trainer):  # type: ignore[misc]
            asked: dict[tuple[int, ...], int]

            def _generate_single_turn(self, prompt_ids: list[list[int]], *more: Any, **other: Any) -> Any:
                found = []
                for ids in prompt_ids:
                    found.append(said[prompts.index(ids)][self.asked[tuple(ids)]])
                    self.asked[tuple(ids)] += 1
                return (
                    found if trainer is trl.RLOOTrainer else (found, None)
                )  # a GRPOTrainer also gets log-probs, of an engine

        Given.asked = defaultdict(int)
        return Given

    common = {
        "output_dir": str(folder / "out"), "max_steps": STEPS, "learning_rate": RATE, "lr_scheduler_type": "constant",
        "logging_steps": 1, "logging_nan_inf_filter": False, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False,
        "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0,
        "gradient_checkpointing": False, "seed": 1, "logging_first_step": True, "disable_dropout": True,
    }  # fmt: skip
    online = {
        "per_device_train_batch_size": given.PROMPTS * given.GROUP, "num_generations": given.GROUP, "num_iterations": 2,
        "max_completion_length": given.LONGEST,
    }  # fmt: skip
    for case, (reward, options, _) in given.CASES.items():
        cases[case] = {}
        if case.startswith("kto"):
            rows = given.rated()
            settings = trl.KTOConfig(per_device_train_batch_size=len(rows), **common, **options)
            trainer = trl.KTOTrainer(
                str(model), args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, callbacks=[Figures()]
            )  # fmt: skip
        else:
            kind, config = (
                (trl.RLOOTrainer, trl.RLOOConfig) if case.startswith("rloo") else (trl.GRPOTrainer, trl.GRPOConfig)
            )
            trainer = answering(kind)(
                model=str(model), reward_funcs=getattr(given, reward), args=config(**common, **{**online, **options}),
                train_dataset=Dataset.from_list([{"prompt": asked} for asked in given.ASKED]), processing_class=tokenizer,
                callbacks=[Figures()],
            )  # fmt: skip
        trainer.train()
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    head = {"versions": versions, "seed": given.SEED, "prompts": prompts, "answers": said}
    lines = [f'"{name}": {json.dumps(value)}' for name, value in head.items()]
    listed = ",\n  ".join(f'"{case}": {json.dumps(figures)}' for case, figures in cases.items())
    out.write_text("{\n " + ",\n ".join([*lines, f'"cases": {{\n  {listed}\n }}']) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
