"""`hookline bench reward`: how long GRPO takes to the same reward, here and by TRL, over paired seeds.

TRL chooses the learning rate: of eight, the one with which it has the reward first, on a seed that is not compared. Both then use it,
so what differs is how long a step takes, and whether a step learns as much.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hookline.testing import machine
from hookline_plugins.commands.bench_step import Row, Workload, about, made, measured, steps_of

__all__ = ["RATES", "measure", "seconds_to"]

RATES = (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The first is TRL's default."""
WINDOW = 5
"""Steps over which a reward is averaged."""
GAIN = 0.75
"""Where no reward is named: the share of what the best rate gains."""


def measure(
    work: Workload, peer: str | None, seeds: int, goal: float | None, tell: Callable[[Row], None] = lambda row: None
) -> dict[str, Any]:
    """{"machine", "workload", "goal", "search", "rows", "ratios"}; rows: {by, version, seed, lr, to_goal, reward, seconds}.

    to_goal: seconds of all steps until the mean reward of the last five is the goal; None if it is never reached. ratios: ours of
    TRL's, one for each seed with which both reach it. Raises ExperimentError if a process fails.
    """
    import torch

    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as kept:
        folder = Path(kept)

        def run(by: str, seed: int, lr: float) -> Row:
            some = made(replace(work, seed=seed, lr=lr), folder / f"model-{seed}")
            found = steps_of(by, peer, some, folder)
            return {name: found[name] for name in ("by", "version", "seconds", "reward")} | {"seed": seed, "lr": lr}

        by = measured(peer)
        search = [run(by[0], work.seed, lr) for lr in RATES]
        goal = _goal(search) if goal is None else goal
        for row in search:
            tell(row | {"to_goal": seconds_to(goal, row)})
        lr = min(search, key=lambda row: (seconds_to(goal, row) or float("inf"), -_last(row)))["lr"]
        for seed in range(work.seed + 1, work.seed + 1 + seeds):
            for each in by:
                row = run(each, seed, lr)
                rows.append(row | {"to_goal": seconds_to(goal, row)})
                tell(rows[-1])
    return {
        "machine": machine(torch.device(work.device)), "workload": about(work), "goal": goal, "search": search, "rows": rows,
        "ratios": _ratios(rows),
    }  # fmt: skip


def _means(rewards: Sequence[float]) -> list[float]:
    """The mean of each five steps in a row."""
    return [statistics.fmean(rewards[at : at + WINDOW]) for at in range(max(1, len(rewards) - WINDOW + 1))]


def _last(row: Row) -> float:
    return _means(row["reward"])[-1]


def _goal(search: Sequence[Row]) -> float:
    best = max(search, key=_last)
    first = _means(best["reward"])[0]
    return first + GAIN * (_last(best) - first)


def seconds_to(goal: float, row: Row) -> float | None:
    """Seconds until the mean of the last five steps is the goal."""
    for at, mean in enumerate(_means(row["reward"])):
        if mean >= goal:
            return float(sum(row["seconds"][: at + WINDOW]))
    return None


def _ratios(rows: Sequence[Row]) -> list[float]:
    times = {(row["by"], row["seed"]): row["to_goal"] for row in rows}
    pairs = ((ours, times.get(("trl", seed))) for (by, seed), ours in times.items() if by == "ours")
    return [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None]
