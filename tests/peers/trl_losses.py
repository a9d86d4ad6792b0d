"""TRL's losses on a folder of `tests/shapes.py`, step by step, as JSON: run by `make test-peers` with an environment that has TRL.

Arguments: a folder for the model and rows, the file to write. All rows are one batch, so that their order says nothing; three
optimiser steps of AdamW at a constant rate, so that from the second loss on the gradients are compared too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shapes import WORDS, build

STEPS, RATE, SHAPE, SEED = 3, 1e-2, "gpt2", 4
ASKED = [{"role": "user", "content": f"{a} the {b}"} for a, b in zip(WORDS[:8], WORDS[3:])]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def rows() -> dict[str, list[dict[str, Any]]]:
    """The rows of each method, of different lengths."""
    return {
        "sft": [{"messages": [ask, said(f"To {ask['content']}" + "." * i), ASKED[0], said("Done.")]} for i, ask in enumerate(ASKED)],
        "dpo": [
            {"prompt": [ask], "chosen": [said(f"To {ask['content']}" + "." * i)], "rejected": [said("a list of data")]}
            for i, ask in enumerate(ASKED)
        ],
        "rm": [
            {"chosen": [ask, said(f"To {ask['content']}" + "." * i)], "rejected": [ask, said("a list of data")]}
            for i, ask in enumerate(ASKED)
        ],
    }  # fmt: skip


def score(hidden: int) -> torch.Tensor:
    """The weights with which both reward models begin, [1, H]."""
    return 0.1 * torch.randn(1, hidden, generator=torch.Generator().manual_seed(SEED))


def main(folder: Path, out: Path) -> None:
    import transformers
    import trl
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

    model = build(SHAPE, folder / "model")
    found: dict[str, list[float]] = {}

    class Losses(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
            if "loss" in logs:
                found[method].append(float(logs["loss"]))

    common = {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": 8, "max_steps": STEPS, "learning_rate": RATE,
        "lr_scheduler_type": "constant", "logging_steps": 1, "logging_nan_inf_filter": False, "save_strategy": "no", "report_to": [],
        "use_cpu": True, "bf16": False, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "gradient_checkpointing": False, "dataloader_drop_last": False, "seed": 1, "logging_first_step": True,
    }  # fmt: skip
    for method in ("sft", "dpo", "rm"):
        found[method] = []
        tokenizer = AutoTokenizer.from_pretrained(model)
        tokenizer.pad_token = tokenizer.eos_token
        data = Dataset.from_list(rows()[method])
        given: dict[str, Any] = {"train_dataset": data, "processing_class": tokenizer, "callbacks": [Losses()]}
        if method == "sft":
            trainer = trl.SFTTrainer(str(model), trl.SFTConfig(assistant_only_loss=True, **common), **given)
        elif method == "dpo":
            trainer = trl.DPOTrainer(str(model), args=trl.DPOConfig(beta=0.1, **common), **given)
        else:
            net = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
            net.score.weight.data.copy_(score(net.score.weight.shape[1]))
            net.config.pad_token_id = tokenizer.pad_token_id = 3  # an id that no row holds, and not the end
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(3)
            trainer = trl.RewardTrainer(net, args=trl.RewardConfig(**common), **given)
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        trainer.train()
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps({"versions": versions, "seed": SEED, "losses": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
