"""Estimates the remaining time of a run, from the work of its phases and the speed that was measured so far.

A phase that has taken steps is assumed to continue at its own speed. Before its first step, the speed of the phase in
an earlier run of the same experiment is used, corrected by the relative speed of the phases that both runs have
executed. If there is no earlier run, the estimate is the work of the phase, in passes of a token through a network, at
the speed per pass of the phases so far.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hookline.config.experiment import completed
from hookline.errors import CheckpointError
from hookline.plan.work import PhaseWork, Work
from hookline.storage.lines import whole_lines

__all__ = ["Outlook", "seconds_left"]

DRAWN = 3.0
"""The assumed cost of a drawn token in passes, until drawing has been measured: drawing is slower than a parallel
pass."""


PACE = ("name", "phases", "model", "tokenizer", "device", "threads")
"""The parts of an experiment that determine how long it takes."""


class Outlook:
    """Estimates the remaining time of the run in a directory."""

    def __init__(
        self, directory: Path, experiment: Mapping[str, Any], works: Callable[[], Sequence[PhaseWork]]
    ) -> None:
        """works: returns the work of each phase; called after the first step."""
        self.directory, self.experiment, self.works = directory.resolve(), experiment, works

    def seconds_left(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Call the function `seconds_left` for the run's rows so far."""
        return seconds_left(self._table, rows, self.earlier) if any(row["step"] for row in rows) else {}

    @functools.cached_property
    def _table(self) -> Sequence[PhaseWork]:
        return self.works()

    @functools.cached_property
    def earlier(self) -> list[dict[str, Any]]:
        """The rows of the newest other run of the same experiment in the same folder, whatever its seed."""
        found = []
        for path in self.directory.parent.glob("*/experiment.json"):
            with contextlib.suppress(OSError, ValueError, TypeError):  # unreadable runs are ignored here
                theirs, rows = completed(json.loads(path.read_bytes())), path.with_name("metrics.jsonl")
                alike = all(theirs.get(key) == self.experiment.get(key) for key in PACE)
                if alike and path.parent != self.directory:
                    found.append((rows.stat().st_mtime, rows))
        with contextlib.suppress(CheckpointError):
            return list(whole_lines(max(found)[1], ("phase", "step", "timings"))) if found else []
        return []


@dataclass
class Pace:
    """The measured time of a phase: seconds and counts of its steps and of its evaluations."""

    seconds: float = 0.0
    steps: int = 0
    drawing: float = 0.0
    optimiser: float = 0.0
    evaluating: float = 0.0
    evaluations: int = 0
    last: int = -1
    """The newest step."""

    @property
    def step(self) -> float:
        return self.seconds / self.steps

    @property
    def evaluation(self) -> float:
        return self.evaluating / self.evaluations


def seconds_left(
    table: Sequence[PhaseWork], rows: Sequence[Mapping[str, Any]], earlier: Sequence[Mapping[str, Any]] = ()
) -> dict[str, float]:
    """Phase → estimated seconds left, 0 for a phase that has ended; empty before the first step.

    rows: the rows of the run, as in metrics.jsonl; earlier: the rows of an earlier run of the same experiment.
    """
    now, then = _paces(rows), _paces(earlier)
    seen = [phase for phase in table if phase.name in now and now[phase.name].steps]
    if not seen:
        return {}
    both = [(now[phase.name], then[phase.name]) for phase in seen if phase.name in then and then[phase.name].steps]
    slower = sum(a.step * a.steps for a, _ in both) / sum(b.step * a.steps for a, b in both) if both else 1.0
    cost = _Cost(seen, now)
    left = {}
    for place, phase in enumerate(table):
        if any(later.name in now for later in table[place + 1 :]):  # it has ended, possibly before its last step
            left[phase.name] = 0.0
            continue
        here, before = now.get(phase.name, Pace()), then.get(phase.name, Pace())
        if here.steps:
            step = here.step
        else:
            step = before.step * slower if before.steps else cost.of(phase.step, phase.optimiser)
        if here.evaluations:
            evaluation = here.evaluation
        else:
            evaluation = before.evaluation * slower if before.evaluations else cost.of(phase.evaluation)
        ahead = sum(after > here.last for after in phase.evaluated)
        left[phase.name] = step * (phase.steps - max(here.last, 0)) + evaluation * ahead
    return left


def _paces(rows: Sequence[Mapping[str, Any]]) -> dict[str, Pace]:
    found: dict[str, Pace] = {}
    for row in rows:
        pace, parts = found.setdefault(str(row["phase"]), Pace()), row["timings"]
        evaluating = sum(value for name, value in parts.items() if name.startswith("seconds/evaluate-"))
        pace.evaluating += evaluating
        pace.evaluations += evaluating > 0
        pace.last = int(row["step"])
        if pace.last > 0:
            pace.seconds += sum(value for name, value in parts.items() if name.startswith("seconds/")) - evaluating
            pace.drawing += parts.get("seconds/rollout", 0.0)
            pace.optimiser += parts.get("optimiser_seconds", 0.0)
            pace.steps += 1
    return found


class _Cost:
    """Seconds per pass, per drawn token and per optimiser step, measured in the phases so far."""

    def __init__(self, seen: Sequence[PhaseWork], now: Mapping[str, Pace]) -> None:
        drawing = [
            (phase.step.drawn * now[phase.name].steps, now[phase.name].drawing) for phase in seen if phase.step.drawn
        ]
        passes = seconds = 0.0
        spent: dict[str, list[float]] = {}
        for phase in seen:
            pace = now[phase.name]
            count, took = spent.setdefault(phase.optimiser, [0.0, 0.0])
            spent[phase.optimiser] = [count + phase.step.optimiser_steps * pace.steps, took + pace.optimiser]
            passes += phase.step.passes * pace.steps
            seconds += pace.seconds - pace.optimiser - (pace.drawing if phase.step.drawn else 0.0)
        tokens, drawn = (sum(numbers) for numbers in zip(*drawing)) if drawing else (0.0, 0.0)
        self.drawn = drawn / tokens if tokens else 0.0
        self.passed = seconds / passes if passes else self.drawn / DRAWN
        self.drawn = self.drawn or self.passed * DRAWN
        self.optimiser = {name: took / count for name, (count, took) in spent.items() if count}

    def of(self, work: Work, optimiser: str = "") -> float:
        steps = work.optimiser_steps * self.optimiser.get(optimiser, 0.0)
        return work.passes * self.passed + work.drawn * self.drawn + steps
