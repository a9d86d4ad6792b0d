"""Ends a phase whose figure no longer improves, as its `stop` says; what was seen so far is part of a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

from hookline.loop.phase import Phase

__all__ = ["watch"]


def watch(phase: Phase, figures: Mapping[str, float]) -> bool:
    """Look at the figures of a step's row; returns whether this step is the last one because of them.

    A row without the figure, as between evaluations, says nothing. A value that is not a number is not better.
    """
    stop, seen, step = phase.spec.stop, phase.counters, phase.scope.step
    if stop is None or stop.figure not in figures:
        return False
    value = figures[stop.figure]
    worth = -value if stop.lowest else value
    first = seen.watched == -math.inf and math.isfinite(worth)
    if first or worth > seen.watched + stop.least:
        seen.watched, seen.worse = worth, 0
        return False
    seen.worse += 1
    if seen.worse < stop.patience or step >= phase.spec.steps:
        return False
    best = -seen.watched if stop.lowest else seen.watched
    seen.stopped = (
        f"ended after step {step} of {phase.spec.steps}: {stop.figure} was {seen.worse} times in a row not "
        f"{'below' if stop.lowest else 'above'} its best, {best:.6g}{f', by {stop.least:g}' if stop.least else ''}"
    )
    said = f"phase '{phase.spec.name}' {seen.stopped}"
    if said not in phase.session.run.notices:
        phase.session.run.notice(said)
    return True
