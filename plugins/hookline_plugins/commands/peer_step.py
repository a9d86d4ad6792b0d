"""The GRPO step of `hookline bench step` by TRL. Run as a file by a Python that has TRL; it imports nothing of Hookline.

Arguments: a JSON file with the workload (`bench_step.Workload`), and the file to write: {"version", "seconds": per step, "reward":
per step, "peak_mb"}.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main(given: Path, written: Path) -> None:
    sys.path.pop(0)  # the modules beside this file have names of other packages
    import torch
    import trl  # type: ignore[import-not-found]
    from datasets import Dataset  # type: ignore[import-not-found]
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

    work = json.loads(given.read_text(encoding="utf-8"))
    torch.set_num_threads(work["threads"])
    tokenizer = AutoTokenizer.from_pretrained(work["folder"])
    seconds: list[float] = []
    rewards: list[float] = []

    def letters(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        found = [float(text.count("e")) for text in completions]
        rewards.append(sum(found) / len(found))
        return found

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - self.began)

    with tempfile.TemporaryDirectory() as folder:
        settings = trl.GRPOConfig(
            output_dir=folder, max_steps=work["steps"], per_device_train_batch_size=work["prompts"] * work["group"],
            num_generations=work["group"], max_completion_length=work["new_tokens"], beta=work["kl"], learning_rate=work["lr"],
            lr_scheduler_type="constant", seed=work["seed"], report_to=[], save_strategy="no", logging_steps=1000,
            use_cpu=work["device"] == "cpu", bf16=work["dtype"] == "bfloat16", gradient_checkpointing=False, disable_tqdm=True,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(work["folder"], dtype=getattr(torch, work["dtype"]))
        rows = Dataset.from_list([{"prompt": text} for text in work["texts"]])
        trainer = trl.GRPOTrainer(
            model, reward_funcs=letters, args=settings, train_dataset=rows, processing_class=tokenizer, callbacks=[Clock()]
        )
        trainer.train()
    on_gpu = torch.cuda.is_available() and work["device"] != "cpu"
    resident = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    peak = torch.cuda.max_memory_allocated() if on_gpu else int(resident.split()[1]) * 1024
    found = {"version": f"trl {trl.__version__}", "seconds": seconds, "reward": rewards, "peak_mb": peak / 2**20}
    written.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
