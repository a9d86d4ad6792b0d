"""Compares one reward learned from four kinds of judgements together with one from each kind alone, at equal cost, on paired seeds.

    python benchmarks/proof/kinds.py                     1 920 answers read, seeds 101 to 110
    python benchmarks/proof/kinds.py --read 3840

Eight prompts have twelve answers each, with planted worths; the answers to some prompts are better than those to others. Each kind of
judgement is blind to something:
    comparison  of two answers to one prompt: says nothing about answers to different prompts
    ranking     of four answers to one prompt: the same
    rating      from 1 to 5, by annotators of whom some are generous, on a scale on which most answers have a 5
    thumb       up for what is good, so that it does not tell the bad from the worse

The cost is the number of answers that annotators read: a comparison costs 2, a ranking 4, a rating and a thumb 1. Together, a quarter
of it is spent on each kind, and the judgements are the first quarter of those from which that kind alone learns. Annotators see answers
and prompts at random; the worths themselves are held out.

Without such blindness the best kind alone is better: a likelihood adds up what each judgement says (Fisher's information), so that a
mixture of equal cost lies between its kinds. Together pays where what one kind cannot tell, another can.

The figure is Spearman's rank correlation of the learned with the planted rewards over all 96 answers, and the mean of that over the
answers to each prompt. Its error is 1 minus it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from proof import ROOT, train

COSTS = {"comparison": 2, "ranking": 4, "rating": 1, "thumb": 1}
"""How many answers are read for one judgement of each kind."""
A_STEP = 80
"""Judgements of a step of the phase `ask`, each about answers that were drawn for it."""


def experiment(seed: int) -> dict[str, Any]:
    """What is common to asking and learning. A seed plants its own worths."""
    worths = f"prompts=8&count=12&std=1&spread=2&seed={seed}"
    return {
        "name": "kinds", "seed": seed, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "words", "on": f"builtin:worths/answers?{worths}"},
        "model": {"build": "tabular", "task": f"builtin:worths?{worths}", "sees": ["first", "last"], "context": 4},
    }  # fmt: skip


def asked(kind: str, seed: int, judgements: int, out: Path) -> list[str]:
    """Judgements of one kind, as lines of JSON."""
    made = experiment(seed)
    task = made["model"]["task"]
    asks = {
        "name": "ask", "steps": -(-judgements // A_STEP), "reward": {"use": "task", "task": task},
        "rollout": {"use": "generate", "prompts": task, "rows": A_STEP, "samples_per_prompt": 12, "max_new_tokens": 1},
        "feedback": {
            "use": "simulated-annotator", "temperature": 1.0, "kinds": [kind], "answers": 4, "annotators": 8,
            "leniency": 1.0, "scale_middle": -4.0, "thumb_cut": 2.0,
        },
    }  # fmt: skip
    train({**made, "phases": [asks]}, (), out)
    return (out / "phases" / "ask" / "data.jsonl").read_text(encoding="utf-8").splitlines()[:judgements]


def learned(lines: Sequence[str], seed: int, where: Path) -> tuple[float, float]:
    """The rank correlation of the learned rewards with the planted worths: over all answers, and over those to each prompt."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "judgements.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = experiment(seed)
    task = made["model"]["task"]
    learns = {
        "name": "learn", "model": {"head": "reward"}, "steps": 300,
        "rollout": {"use": "judgements", "path": str(where / "judgements.jsonl"), "rows": 128},
        "update": {"use": "latent-reward", "lr": 0.2, "own_lr": 0.1, "schedule": "linear", "centre": 0.001},
        "evaluate": [{
            "every": 300, "rows": 1280,
            "rollout": {"use": "generate", "prompts": task, "rows": 8, "samples_per_prompt": 160, "max_new_tokens": 1},
            "reward": [
                {"use": "task", "task": task}, "reward-model",
                {"use": "rank-correlation", "name": "order", "of": "reward-model", "with": "task"},
                {"use": "rank-correlation", "name": "within", "of": "reward-model", "with": "task", "over": "prompts"},
            ],
        }],
    }  # fmt: skip
    figures, _ = train({**made, "phases": [learns]}, (), where / "run")
    return figures["eval/order"], figures["eval/within"]


def pair(seed: int, read: int, out: Path) -> dict[tuple[str, ...], tuple[float, float]]:
    """What is learned from each kind alone and from all together, of one seed."""
    at = out / f"{read}-{seed}"
    said = {kind: asked(kind, seed, read // cost, at / f"ask-{kind}") for kind, cost in COSTS.items()}
    found = {(kind,): learned(lines, seed, at / kind) for kind, lines in said.items()}
    together = [line for lines in said.values() for line in lines[: len(lines) // len(said)]]
    return {**found, tuple(said): learned(together, seed, at / "together")}


def interval(x_N: np.ndarray[Any, Any]) -> str:
    """A mean with its 95 % interval by Student's t."""
    half = stats.t.ppf(0.975, len(x_N) - 1) * x_N.std(ddof=1) / np.sqrt(len(x_N))
    return f"{x_N.mean():+.4f} [{x_N.mean() - half:+.4f}, {x_N.mean() + half:+.4f}]"


def table(found: Mapping[Sequence[str], np.ndarray[Any, Any]]) -> str:
    """The correlations as Markdown. found: kinds → [seeds, 2]; the last has all kinds."""
    *_, (_, together_N2) = found.items()
    lines = [
        "| judgements | over all answers, mean [least, most] | together minus this, 95 % interval | over the answers to a prompt |",
        "|---|---|---|---|",
    ]
    for kinds, each_N2 in found.items():
        each_N, within_N = each_N2.T
        gap = "" if each_N2 is together_N2 else interval(together_N2[:, 0] - each_N)
        lines.append(
            f"| {', '.join(kinds)} | {each_N.mean():.4f} [{each_N.min():.4f}, {each_N.max():.4f}] | {gap} | {within_N.mean():.4f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare several kinds of judgements with one kind, at equal cost.")
    parser.add_argument("--read", type=int, default=1920, help="answers that are read in each run, a multiple of 16")
    parser.add_argument("--seeds", type=int, nargs=2, default=(101, 110), metavar=("FIRST", "LAST"))
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "kinds")
    given = parser.parse_args(arguments)
    seeds = range(given.seeds[0], given.seeds[1] + 1)
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("forkserver")) as pool:
        each = list(pool.map(pair, seeds, *([one] * len(seeds) for one in (given.read, given.out))))
    found = {kinds: np.array([one[kinds] for one in each]) for kinds in each[0]}
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
