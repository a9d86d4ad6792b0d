"""Paired experiments: runs grouped by configuration, paired by seed, compared with intervals and with a baseline.

A configuration is the resolved experiment without seed, name, trackers, saves and threads, but with the code and the
data of its runs. `pairs` compare each run's last step; `equal` and `area` compare configurations with a baseline at
equal steps, tokens and seconds. For the intervals see `hookline.study.intervals`, for what counts as shown
`hookline.study.contrast`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hookline.contract.metrics import Better
from hookline.errors import DataError, ExperimentError, HooklineError, nearest
from hookline.study.contrast import contrasts, matched, number
from hookline.study.figure import Figure, direction_of, figure_of, final_row, shared_figures
from hookline.study.grouping import Entry, Group, Json, differing, entries_of, groups_of
from hookline.study.intervals import Scores, difference, improvement, location
from hookline.study.levers import moved
from hookline.study.measure import AXES, Measure, area_weights, bare, measure_of, point_weights

__all__ = ["compare"]


FEW = 5
"""With fewer seeds, intervals say little."""


def compare(
    arguments: Sequence[str | Path],
    *,
    metric: str | None = None,
    phase: str | None = None,
    baseline: str | None = None,
) -> Json:
    """Compare runs, or the runs of sweeps: configurations, pairs of them, curves; plain values, ready for JSON.

    arguments: run directories and folders of runs, optionally as `LABEL=PATH`; metric: by default the one that
    `save.best` names, else the first figure of the first evaluation; phase: by default the last that has the metric;
    baseline: the label that the others are compared with at equal steps, tokens and seconds, by default the first.
    Raises a HooklineError with cause and hint if the runs cannot be compared.
    """
    entries, notes = entries_of(arguments)
    if not entries:
        raise ExperimentError("there is nothing to compare", "name run directories or a sweep directory")
    figure = figure_of(entries, metric, phase)
    groups = groups_of(entries, notes)
    compared_with = _baseline(groups, baseline)
    for entry in entries:
        value = final_row(entry, figure.phase)["metrics"][figure.metric]
        if not math.isfinite(value):
            raise DataError(
                f"{figure.metric} is {value} in {entry.where}", "choose another --metric, or leave that run out"
            )
    measure = measure_of(entries, figure)
    notes += _notes(entries, groups, measure)
    final = {group.label: measure.scores(group) for group in groups}
    better = direction_of(entries, figure)
    equal, area = _at_equal_cost(groups, compared_with, measure, better, notes)
    frontier = _frontier(groups, figure, notes)
    planes = {group.label: measure.plane(group) for group in groups} if figure.kl else {}
    notes += _above(planes, frontier, figure)
    part_SG = final[groups[0].label].part_SG
    return {
        "format": 1,
        "metric": figure.metric,
        "better": better,
        "phase": figure.phase,
        "level": 0.95,
        "rows": 0 if part_SG is None else part_SG.shape[1],
        "configurations": [_configuration(group, final[group.label], groups) for group in groups],
        "pairs": [_pair(a, b, final) for i, a in enumerate(groups) for b in groups[:i]],
        "baseline": compared_with.label,
        "verdicts": _verdicts(equal),
        "moved": moved(entries, groups, compared_with),
        "equal": equal,
        "area": area,
        "curves": {group.label: measure.curve(group) for group in groups},
        "plane": planes,
        "frontier": frontier,
        "other_figures": [
            f for f in shared_figures(entries, figure.phase) if f.startswith("eval/") and f != figure.metric
        ],
        "notes": notes,
    }


def _baseline(groups: Sequence[Group], label: str | None) -> Group:
    """The configuration with that label; by default the first."""
    labels = [group.label for group in groups]
    if label is None:
        return groups[0]
    if label not in labels:
        raise ExperimentError(
            f"no configuration is called '{label}'{nearest(label, labels)}",
            f"--baseline is one of: {'; '.join(labels)}",
        )
    return groups[labels.index(label)]


def _at_equal_cost(
    groups: Sequence[Group], baseline: Group, measure: Measure, better: Better, notes: list[str]
) -> tuple[Json, Json]:
    """(`equal`, `area`), by axis: the figure at the amount where the first run ends, and its average up to there."""
    equal: Json = {}
    area: Json = {}
    for axis in AXES:
        over = measure.shared_range(groups, axis)
        if over is None:
            notes.append(
                f"there is no comparison at equal {axis}: at no amount do all runs have {measure.figure.metric}"
            )
            continue
        start, end = over.start, over.end

        def against(scores: dict[str, Scores], where: str) -> Json:
            values = {label: bare(location(found)) for label, found in scores.items()}
            found = contrasts(groups, scores, baseline, better)
            return {"values": values, "against": [contrast.plain(where) for contrast in found]}

        ends = partial(point_weights, at=end)
        scores = {group.label: measure.along(group, axis, ends) for group in groups}
        equal[axis] = {"at": end, **against(scores, f"at equal {axis} ({number(end)})")}
        if start < end:
            whole = partial(area_weights, start=start, end=end)
            scores = {group.label: measure.along(group, axis, whole) for group in groups}
            where = f"on average over {number(start)} to {number(end)} {axis}"
            area[axis] = {"from": start, "to": end, **against(scores, where)}
    return equal, area


def _verdicts(equal: Json) -> list[str]:
    """A sentence per configuration at equal steps, and those at equal tokens and seconds that disagree with it."""

    def says(against: Json) -> tuple[bool, bool]:
        return against["shown"], against["shown"] and against["difference"]["value"] > 0

    found: list[str] = []
    first, *others = [entry["against"] for entry in equal.values()] or [[]]
    for i, main in enumerate(first):
        found.append(main["words"])
        found += [other[i]["words"] for other in others if says(other[i]) != says(main)]
    return found


def _configuration(group: Group, scores: Scores, groups: Sequence[Group]) -> Json:
    paths = differing([g.entries[0].configuration for g in groups])
    own = group.entries[0].configuration
    return {
        "label": group.label,
        "differs": {path: own.get(path) for path in paths if not path.endswith("!")},
        "seeds": group.seeds,
        "runs": [entry.where for entry in group.entries],
        "values": scores.value_S.tolist(),
        "mean": float(scores.value_S.mean()),
        **bare(location(scores)),
    }


def _pair(a: Group, b: Group, final: Mapping[str, Scores]) -> Json:
    """a − b at the end of each run, at common seeds; without a common seed, unpaired."""
    x, y, shared = matched(a, b, final[a.label], final[b.label])
    paired = bool(shared)
    found = difference(x, y, paired)
    return {
        "first": a.label,
        "second": b.label,
        "paired": paired,
        "seeds": shared,
        "difference": bare(found),
        # with one seed, an interval without width means that nothing was sampled, so it shows nothing
        "clear": bool((found.low > 0 or found.high < 0) and (len(shared) != 1 or found.low < found.high)),
        "improvement": bare(improvement(x, y, paired)),
        "higher_at": int((x.value_S > y.value_S).sum()) if paired else None,
    }


def _notes(entries: Sequence[Entry], groups: Sequence[Group], measure: Measure) -> list[str]:
    notes: list[str] = []
    figure = measure.figure
    fewest = min(groups, key=lambda group: len(group.entries))
    count = len(fewest.entries)
    if count == 1 and measure.scores(fewest).part_SG is not None:
        notes.append(f"'{fewest.label}' has one seed: its intervals are about other prompts, not about other seeds")
    elif count == 1:
        notes.append(f"'{fewest.label}' has one seed and no rows to draw from: its spread is not known")
    elif count < FEW:
        notes.append(
            f"'{fewest.label}' has {count} seeds; below {FEW}, a 95 % interval contains the true value less often"
        )
    for i, a in enumerate(groups):
        for b in groups[:i]:
            shared = [seed for seed in a.seeds if seed in b.seeds]
            if shared and (len(shared) < len(a.seeds) or len(shared) < len(b.seeds)):
                shown = ", ".join(map(str, shared[:10]))
                notes.append(f"'{a.label}' and '{b.label}' are paired on their common seeds: {shown}")
            elif not shared:
                notes.append(
                    f"'{a.label}' and '{b.label}' have no seed in common, so they are compared without pairing"
                )
    count = len(groups) * (len(groups) - 1) // 2
    if count > 1:
        notes.append(
            f"{count} pairs, each with a 95 % interval: about one in 20 equal pairs looks clear of 0 by chance"
        )
    if len(groups) == 1:
        notes.append(
            "all runs have the same configuration, so there is no pair; to compare equal ones, name them LABEL=PATH"
        )
    if figure.evaluation and measure.evaluations:
        if measure.evaluations.missing:
            notes.append(
                f"{measure.evaluations.missing[0].where} kept no rows of its evaluation, so only seeds are drawn"
            )
        elif measure.scores(groups[0]).part_SG is None:
            notes.append(f"what each prompt adds to {figure.metric} is not known, so only seeds are drawn, not prompts")
    else:
        notes.append(
            f"{figure.metric} is a figure of the last step's training rows; an evaluation is a better comparison"
        )
    steps = {entry.steps(figure.phase) for entry in entries}
    if len(steps) > 1:
        notes.append(
            f"phase '{figure.phase}' has {min(steps)} to {max(steps)} steps; each run is compared at its own end"
        )
    for what in ("sources", "kernels", "torch", "machine", "threads"):
        values = {str(entry.run.about.get(what)) for entry in entries}
        if len(values) > 1:
            shown = "Hookline's own code" if what == "sources" else what
            notes.append(
                f"the runs differ in {shown} ({', '.join(sorted(values)[:3])}): equal seeds may then differ slightly"
            )
    return notes


def _frontier(groups: Sequence[Group], figure: Figure, notes: list[str]) -> list[list[float]] | None:
    """The exact frontier, if all evaluations use the same task and the task knows its frontier."""
    if figure.kl is None:
        return None
    from hookline.contract.fields import marked
    from hookline.data import tasks
    from hookline.data.names import is_task
    from hookline.loop.api import plan_of

    found: set[tuple[tuple[float, float], ...]] = set()
    for group in groups:
        run = group.entries[0].run
        try:
            plan = plan_of(run)
            phase = next(p for p in plan.phases if p.spec.name == figure.phase)
            evaluation = next(e for e in phase.evaluations if e.spec.name == figure.evaluation)
            names = [n for n in marked(evaluation.rollout.config, "data").values() if is_task(n)]
            points = tasks.task(names[0], plan.loose).frontier(figure.term) if names else None
        except HooklineError as err:
            notes.append(f"no frontier is drawn: {err}")
            return None
        found.add(tuple((float(kl), float(value)) for kl, value in points or ()))
    [*several] = found
    return [list(point) for point in several[0]] if len(several) == 1 and several[0] else None


def _above(
    planes: Mapping[str, Sequence[Json]], frontier: Sequence[Sequence[float]] | None, figure: Figure
) -> list[str]:
    """Notes on points that lie above what any policy can reach, by more than their interval."""
    if not frontier:
        return []
    x, y = [point[0] for point in frontier], [point[1] for point in frontier]
    notes = []
    for label, points in planes.items():
        for point in points:
            kl = point["kl"]["high"] if point["kl"]["high"] is not None else point["kl"]["value"]
            best = float(np.interp(kl, x, y))
            low = point["value"]["low"] if point["value"]["low"] is not None else point["value"]["value"]
            if low > best + 1e-6:
                notes.append(
                    f"'{label}' at step {point['step']} lies above the exact frontier: {figure.metric} is at least "
                    f"{low:.4g}, but at most {best:.4g} is possible at that KL; this is a bug, unless the KL is to "
                    f"another reference than the task's"
                )
                break
    return notes
