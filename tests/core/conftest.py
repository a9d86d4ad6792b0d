"""A phase to look into: real model, real tokenizer, real hooks, on a few rows."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hookline import Context
from hookline.loop.loop import PhaseLoop
from hookline.testing import open_phase

WORDS = "open close read write file list value name return error string number path time data key".split()


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts.jsonl, prompts.jsonl and pairs.jsonl."""
    folder = tmp_path_factory.mktemp("corpus")

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(
        "texts.jsonl",
        [{"text": f"To {a} the {b}, {c} a {a}."} for a, b, c in zip(WORDS * 4, WORDS[3:] * 5, WORDS[7:] * 7)],
    )
    prompts = [{"prompt": w, "completion": f"To {w} a {v}.", "keywords": [w]} for w, v in zip(WORDS, WORDS[5:] + WORDS)]
    write("prompts.jsonl", prompts)
    write(
        "pairs.jsonl",
        [{"prompt": w, "chosen": f"To {w} a {v}.", "rejected": f"{v} no."} for w, v in zip(WORDS, WORDS[2:] + WORDS)],
    )
    return folder


Lab = Callable[..., PhaseLoop]


@pytest.fixture
def lab(corpus: Path, tmp_path: Path) -> Iterator[Lab]:
    """`lab(update=…, rollout=…)` gives the loop of a one-phase experiment, ready for its first step.

    read: what the phase itself says under `model`, e.g. its head.
    """
    count = itertools.count()
    stack = contextlib.ExitStack()

    def make(
        model: dict[str, Any] | None = None, read: dict[str, Any] | None = None, device: str = "cpu", **phase: Any
    ) -> PhaseLoop:
        phase = {"name": "phase", "steps": 8, "evaluate": [], "model": read or {}, **phase}
        phase.setdefault("rollout", {"use": "dataset", "path": str(corpus / "prompts.jsonl"), "rows": 8})
        experiment = {
            "name": "lab",
            "seed": 5,
            "device": device,
            "tokenizer": {"train": "bpe", "on": str(corpus / "texts.jsonl"), "vocabulary": 300},
            "model": model or {"build": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": 64},
            "phases": [phase],
            "trackers": [],
        }
        return stack.enter_context(open_phase(experiment, tmp_path / f"run{next(count)}"))

    with stack:
        yield make


@pytest.fixture
def sampled(corpus: Path) -> dict[str, Any]:
    """Options of a rollout that samples."""
    return {
        "use": "generate",
        "prompts": str(corpus / "prompts.jsonl"),
        "rows": 6,
        "samples_per_prompt": 2,
        "max_new_tokens": 7,
    }


def grads(ctx: Context, role: str = "policy") -> dict[str, Any]:
    return {name: p.grad.clone() for name, p in ctx.role_named(role).trainable().items() if p.grad is not None}
