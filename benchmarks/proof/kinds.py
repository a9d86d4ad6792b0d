"""Compares one reward learned from comparisons, ratings and thumbs together with one from each kind alone, on paired seeds.

    python benchmarks/proof/kinds.py                 480 judgements, seeds 11 to 20
    python benchmarks/proof/kinds.py --judgements 960

Each run has the same number of judgements, of the planted worths in examples/exact/judgements.yaml; together, each is of one of
the three kinds at random. A seed asks about the same answers in all four runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from scipy import stats

from proof import ROOT, train

KINDS = ("comparison", "rating", "thumb")
A_STEP = 60
"""Judgements of a step of the phase `ask`: ten about each of six prompts."""


def order(kinds: Sequence[str], seed: int, judgements: int, out: Path) -> float:
    """The rank correlation of the learned rewards with the planted worths."""
    experiment = yaml.safe_load((ROOT / "examples" / "exact" / "judgements.yaml").read_text(encoding="utf-8"))
    changes = [f"phases.ask.feedback.kinds=[{','.join(kinds)}]", f"phases.ask.steps={judgements // A_STEP}", f"seed={seed}"]
    where = out / f"{'-'.join(kinds)}-{judgements}-{seed}"
    return train({**experiment, "trackers": []}, changes, where)[0]["eval/order"]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare several kinds of judgements with one kind, at equal number.")
    parser.add_argument("--judgements", type=int, default=480, help="of each run, a multiple of 60")
    parser.add_argument("--seeds", type=int, nargs=2, default=(11, 20), metavar=("FIRST", "LAST"))
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "kinds")
    asked = parser.parse_args(arguments)
    seeds = range(asked.seeds[0], asked.seeds[1] + 1)
    with ProcessPoolExecutor(asked.jobs, mp_context=get_context("forkserver")) as pool:
        waiting = {
            kinds: [pool.submit(order, kinds, seed, asked.judgements, asked.out) for seed in seeds]
            for kinds in ((KINDS[0],), (KINDS[1],), (KINDS[2],), KINDS)
        }
        found = {kinds: np.array([one.result() for one in results]) for kinds, results in waiting.items()}
    print("| judgements | rank correlation, mean [least, most] | together minus this, 95 % interval |\n|---|---|---|")
    for kinds, each_N in found.items():
        row = f"| {', '.join(kinds)} | {each_N.mean():.4f} [{each_N.min():.4f}, {each_N.max():.4f}] |"
        gap_N = found[KINDS] - each_N
        half = stats.t.ppf(0.975, len(gap_N) - 1) * gap_N.std(ddof=1) / np.sqrt(len(gap_N))
        print(row + ("  |" if kinds == KINDS else f" {gap_N.mean():+.4f} [{gap_N.mean() - half:+.4f}, {gap_N.mean() + half:+.4f}] |"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
