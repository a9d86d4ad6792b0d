"""`hookline bench step`: a whole GRPO step, here and by TRL, on the same folder, prompts and reward."""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import hookline
from hookline.testing import PARTS, in_child, machine, peak_bytes, timed_steps

__all__ = ["Row", "Workload", "about", "made", "measure", "measured", "steps_of"]

PEER = Path(__file__).with_name("peer_step.py")
FIRST = 2
"""Steps that are not counted: they make caches, buffers and the optimiser's state."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A GRPO step on a model with random weights, whose reward is the letters e in an answer."""

    folder: str = ""
    """The transformers folder, once it is `made`."""
    prompts: int = 8
    group: int = 8
    new_tokens: int = 64
    kl: float = 0.04
    lr: float = 1e-4
    steps: int = 10
    seed: int = 1
    threads: int = 2
    device: str = "cpu"
    dtype: str = "float32"
    texts: tuple[str, ...] = ()
    """The prompts, in the order of the steps."""
    layers: int = 4
    width: int = 256
    vocabulary: int = 8192


QUICK = {"layers": 1, "width": 32, "vocabulary": 512, "prompts": 2, "group": 4, "new_tokens": 8, "steps": 4}
"""What `--quick` changes."""


def made(work: Workload, folder: Path) -> Workload:
    """The workload with its folder of a GPT-2 with seeded weights, a tokenizer of made-up words, and its prompts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    draw = random.Random(work.seed)
    sounds = [a + b for a in "bcdfghklmnprst" for b in "aeiou"]
    words: list[str] = []
    seen: set[str] = set()
    while len(words) < work.vocabulary - 2:
        word = "".join(draw.choice(sounds) for _ in range(draw.randint(1, 4)))
        if word not in seen:
            seen.add(word)
            words.append(word)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", *words])}
    spoken = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    spoken.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=spoken, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    positions = 16 + work.new_tokens
    config = GPT2Config(
        vocab_size=work.vocabulary, n_positions=positions, n_embd=work.width, n_layer=work.layers, n_head=4, bos_token_id=1,
        eos_token_id=1, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(work.seed)
        GPT2LMHeadModel(config).to(getattr(torch, work.dtype)).save_pretrained(folder)
    many = work.prompts * work.steps
    texts = tuple(" ".join(draw.choice(words) for _ in range(draw.randint(6, 14))) for _ in range(many))
    return replace(work, folder=str(folder), texts=texts)


def letters(completions: list[str], **_: Any) -> list[float]:
    """The reward: letters e in each answer."""
    return [float(text.count("e")) for text in completions]


def experiment(work: Workload) -> dict[str, Any]:
    """The same step as an experiment of ours."""
    return {
        "name": "bench-step",
        "seed": work.seed,
        "threads": work.threads,
        "device": work.device,
        "model": {"path": work.folder, "dtype": work.dtype},
        "trackers": [],
        "phases": [
            {
                "name": "grpo",
                "rollout": {
                    "use": "generate",
                    "prompts": [{"prompt": text} for text in work.texts],
                    "rows": work.prompts,
                    "samples_per_prompt": work.group,
                    "max_new_tokens": work.new_tokens,
                },
                "reward": letters,
                "advantage": "group-relative",
                "update": {"use": "grpo", "lr": work.lr, "kl_loss": work.kl},
                "steps": work.steps,
                "save": {"every": work.steps + 1},
            }
        ],
    }


def ours(work: Workload) -> Row:
    """Our step, in this process."""
    with tempfile.TemporaryDirectory() as folder, timed_steps() as steps:
        run = hookline.run(experiment(work), out=Path(folder) / "run")
        rewards = [row["metrics"]["reward"] for row in run.rows()]
    counted = steps[FIRST:] or steps
    parts = {part: statistics.median(step[part] for step in counted) for part in PARTS}
    return {
        "version": f"hookline {hookline.__version__}", "seconds": [step["step"] for step in steps], "reward": rewards,
        "peak_mb": peak_bytes(work.device) / 2**20, "parts": parts,
    }  # fmt: skip


def measured(peer: str | None) -> tuple[str, ...]:
    """Who can be measured."""
    return ("trl", "ours") if peer else ("ours",)


def steps_of(by: str, peer: str | None, work: Workload, folder: Path) -> Row:
    """{by, version, seconds, reward, peak_mb, parts} of a workload in a process of its own; seconds and reward have one number
    per step. folder: for its files. Raises ExperimentError if the process fails."""
    given = folder / "work.json"
    given.write_text(json.dumps(asdict(work)), encoding="utf-8")
    command = [str(peer), str(PEER)] if by == "trl" else [sys.executable, "-m", __name__]
    hint = "use --quick, fewer threads, or give --peer a Python that has trl and datasets"
    return {"by": by} | in_child([*command, str(given)], f"the step of {Path(command[0]).name}", hint)


def about(work: Workload) -> dict[str, Any]:
    """A workload without its files and texts."""
    return {name: value for name, value in asdict(work).items() if name not in ("folder", "texts")}


def measure(work: Workload, peer: str | None, tell: Callable[[Row], None] = lambda row: None) -> dict[str, Any]:
    """{"machine", "workload", "rows"} with rows {by, version, s, spread, reward, peak_mb, ratio, parts}: TRL's, where the Python
    `peer` has it, and ours.

    Each is a process of its own, one after the other. s: the median of the steps after the first two; spread: half the
    distance between their quartiles as a share of it; ratio: of TRL's time. Raises ExperimentError if a process fails.
    """
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)
        work = made(work, folder / "model")
        rows: list[Row] = []
        for by in measured(peer):
            row = steps_of(by, peer, work, folder)
            times = sorted(row["seconds"][FIRST:] or row["seconds"])
            quarter = len(times) // 4
            row["s"] = statistics.median(times)
            row["spread"] = (times[-1 - quarter] - times[quarter]) / 2 / row["s"]
            row["ratio"] = row["s"] / rows[0]["s"] if rows else 1.0
            rows.append(row)
            tell(row)
        import torch

        return {"machine": machine(torch.device(work.device)), "workload": about(work), "rows": rows}


def main(given: str, written: str) -> None:
    work = json.loads(Path(given).read_text(encoding="utf-8"))
    Path(written).write_text(json.dumps(ours(Workload(**work | {"texts": tuple(work["texts"])}))), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
