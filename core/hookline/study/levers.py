"""Which lever moved what: every figure of the evaluations, with each lever and without one, at the end of the runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hookline.errors import DataError
from hookline.study.contrast import contrasts
from hookline.study.figure import Figure, direction_of, figures_of, final_row
from hookline.study.grouping import Entry, Group, Json
from hookline.study.intervals import location
from hookline.study.measure import Measure, bare, measure_of

__all__ = ["moved"]


def moved(entries: Sequence[Entry], groups: Sequence[Group], baseline: Group) -> list[Json]:
    """For each figure of each phase, of rounds the last: its value without a lever, and what each lever changed. Empty where the
    runs are not those of levers.

    p-values are corrected for the number of levers (Holm), for each figure by itself.
    """
    if not any(entry.lever for entry in entries):
        return []
    found = []
    for phase in _phases(entries):
        for figure in figures_of(entries, phase):
            if not all(math.isfinite(final_row(entry, phase)["metrics"][figure.metric]) for entry in entries):
                continue
            measure = _measure(entries, figure)
            scores = {group.label: measure.scores(group) for group in groups}
            better = direction_of(entries, figure)
            against = contrasts(groups, scores, baseline, better)
            found.append(
                {
                    "phase": phase,
                    "metric": figure.metric,
                    "better": better,
                    "value": bare(location(scores[baseline.label])),
                    "against": [one.plain(f"in {figure.metric} of {phase}") for one in against],
                }
            )
    return found


def _phases(entries: Sequence[Entry]) -> list[str]:
    """The phases that all runs have, of those in rounds the last round of each."""
    names = [name for name in (p["name"] for p in entries[0].experiment["phases"]) if all(e.phase(name) for e in entries)]
    last = {name.partition("@")[0]: name for name in names}
    return [name for name in names if last[name.partition("@")[0]] == name]


def _measure(entries: Sequence[Entry], figure: Figure) -> Measure:
    """With prompts, where all runs were evaluated on the same ones; a lever may change which there are."""
    try:
        return measure_of(entries, figure)
    except DataError:
        return Measure(figure, None, None)
