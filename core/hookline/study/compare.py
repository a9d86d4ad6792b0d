"""Paired experiments: runs grouped by configuration, paired by seed, compared with intervals.

A configuration is the resolved experiment apart from seed, name, trackers, saves and threads, with the code and the data it
ran on. Figures are those of a phase's last step. What the intervals say and do not say stands in `hookline.study.intervals`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hookline.errors import CheckpointError, DataError, ExperimentError, HooklineError
from hookline.study.figure import Figure, figure_of, final_row, shared_figures
from hookline.study.grouping import Entry, Group, Json, differing, entries_of, groups_of
from hookline.study.intervals import Scores, contributions, difference, fraction, improvement, location

__all__ = ["compare"]


FEW = 5
"""Seeds below which intervals say little."""
CURVE_DRAWS, MOST_POINTS = 2000, 100


@dataclass(eq=False)
class Table:
    """One figure of one evaluation, prompt by prompt: figure = fraction(Σ above, Σ below)."""

    above_G: Any
    tokens_G: Any
    count_G: Any

    def below_G(self, summary: str) -> Any:
        return self.tokens_G if summary == "perplexity" else self.count_G

    def figure(self, summary: str) -> float:
        return float(fraction(self.above_G.sum(), self.below_G(summary).sum(), summary))


class Evaluations:
    """The rows behind a figure, of every run; known to be the same prompts everywhere."""

    def __init__(self, entries: Sequence[Entry], figure: Figure) -> None:
        self.figure = figure
        self.by_run = {id(entry): self._read(entry) for entry in entries}
        self.missing = [entry for entry in entries if not self.by_run[id(entry)]]
        if not self.missing:
            self._same_prompts(entries)

    def _read(self, entry: Entry) -> dict[int, list[Json]]:
        """Step → samples."""
        path = entry.run.directory / "evaluations.jsonl"
        try:
            found = {
                int(e["step"]): list(e["samples"])
                for e in entry.run.evaluations()
                if (e["phase"], e["name"]) == (self.figure.phase, self.figure.evaluation)
            }
            for sample in (sample for samples in found.values() for sample in samples):
                int(sample["sample"]), int(sample["group"]), str(sample["prompt"]), dict(sample["terms"])
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            raise CheckpointError(f"{path} is damaged ({type(err).__name__}: {err})", "restore the file") from None
        return found

    def _same_prompts(self, entries: Sequence[Entry]) -> None:
        def asked(entry: Entry) -> list[tuple[int, int, str]]:
            steps = self.by_run[id(entry)]
            return [(int(s["sample"]), int(s["group"]), str(s["prompt"])) for s in steps[max(steps)]]

        first = asked(entries[0])
        for entry in entries[1:]:
            other = asked(entry)
            if other != first:
                what = f"{len(first)} and {len(other)} rows" if len(first) != len(other) else "other prompts"
                raise DataError(
                    f"{entries[0].where} and {entry.where} were not evaluated on the same rows ({what})",
                    "give the evaluation the same `rows` and a `rollout` of its own, equal in all configurations",
                )

    def table(self, entry: Entry, step: int, term: str) -> Table | None:
        """A term's sums by prompt at one step; None where that evaluation is not there."""
        samples = self.by_run[id(entry)].get(step)
        if not samples:
            return None
        where = {group: i for i, group in enumerate(dict.fromkeys(int(s["group"]) for s in samples))}
        table = Table(*(np.zeros(len(where)) for _ in range(3)))
        for sample in samples:
            value = sample["terms"].get(term)
            if isinstance(value, int | float) and math.isfinite(value):
                at = where[int(sample["group"])]
                table.above_G[at] += value
                table.tokens_G[at] += float(sample.get("tokens", 0))
                table.count_G[at] += 1
        return table

    def summary(self, entries: Sequence[Entry], term: str, metric: str) -> str | None:
        """How the component sums rows up, found by trying: the mean, or the perplexity, of its rows; None: neither."""
        if self.missing:
            return None
        for summary in ("mean", "perplexity"):
            if all(self._agrees(entry, term, metric, summary) for entry in entries):
                return summary
        return None

    def _agrees(self, entry: Entry, term: str, metric: str, summary: str) -> bool:
        final = final_row(entry, self.figure.phase)
        table = self.table(entry, final["step"], term)
        return table is not None and math.isclose(
            table.figure(summary), final["metrics"][metric], rel_tol=1e-3, abs_tol=1e-6
        )


def compare(arguments: Sequence[str | Path], *, metric: str | None = None, phase: str | None = None) -> Json:
    """Compare runs, or the runs of sweeps: configurations, pairs of them, curves; plain values, ready for JSON.

    arguments: run directories and folders of runs, each perhaps as `LABEL=PATH`; metric: default the one the experiments
    keep their best weights by, else the first figure of the first evaluation; phase: default the last that has it.
    Raises a HooklineError with cause and hint for what cannot be compared.
    """
    entries, notes = entries_of(arguments)
    if not entries:
        raise ExperimentError("there is nothing to compare", "name run directories, or a sweep's")
    figure = figure_of(entries, metric, phase)
    groups = groups_of(entries, notes)
    for entry in entries:
        value = final_row(entry, figure.phase)["metrics"][figure.metric]
        if not math.isfinite(value):
            raise DataError(
                f"{figure.metric} is {value} in {entry.where}", "choose another --metric, or leave that run out"
            )
    evaluations = Evaluations(entries, figure) if figure.evaluation else None
    summary = evaluations.summary(entries, figure.term, figure.metric) if evaluations else None
    measure = Measure(figure, evaluations, summary)
    notes += _notes(entries, groups, measure)
    final = {group.label: measure.scores(group, None) for group in groups}
    frontier = _frontier(groups, figure, notes)
    planes = {group.label: measure.plane(group) for group in groups} if figure.kl else {}
    notes += _above(planes, frontier, figure)
    return {
        "format": 1,
        "metric": figure.metric,
        "phase": figure.phase,
        "level": 0.95,
        "rows": int(final[groups[0].label].part_SG.shape[1]) if summary else 0,  # type: ignore[union-attr]
        "configurations": [_configuration(group, final[group.label], groups, figure) for group in groups],
        "pairs": [_pair(a, b, final, measure) for i, a in enumerate(groups) for b in groups[:i]],
        "curves": {group.label: measure.curve(group) for group in groups},
        "plane": planes,
        "frontier": frontier,
        "other_figures": [
            f for f in shared_figures(entries, figure.phase) if f.startswith("eval/") and f != figure.metric
        ],
        "notes": notes,
    }


class Measure:
    """Reads a figure off groups of runs, at the end or along the way."""

    def __init__(self, figure: Figure, evaluations: Evaluations | None, summary: str | None) -> None:
        self.figure, self.evaluations, self.summary = figure, evaluations, summary
        self.rows_of: dict[int, dict[int, Json]] = {}

    def rows(self, entry: Entry) -> dict[int, Json]:
        """Step → row of the phase."""
        if id(entry) not in self.rows_of:
            self.rows_of[id(entry)] = {int(row["step"]): row for row in entry.rows(self.figure.phase)}
        return self.rows_of[id(entry)]

    def scores(self, group: Group, step: int | None, metric: str | None = None, term: str | None = None) -> Scores:
        """The figure of each run of a group; step None: the last one of each."""
        metric, term = metric or self.figure.metric, term or self.figure.term
        steps = [step if step is not None else max(self.rows(entry)) for entry in group.entries]
        value_S = np.array([self.rows(e)[s]["metrics"][metric] for e, s in zip(group.entries, steps)], np.float64)
        if not (self.evaluations and self.summary):
            return Scores(value_S)
        tables = [self.evaluations.table(entry, step, term) for entry, step in zip(group.entries, steps)]
        whole = [table for table in tables if table is not None]
        if len(whole) < len(tables) or len({len(table.above_G) for table in whole}) > 1:
            return Scores(value_S)
        above_SG = np.stack([table.above_G for table in whole])
        below_SG = np.stack([table.below_G(self.summary) for table in whole])
        return Scores(value_S, contributions(above_SG, below_SG, self.summary))

    def steps(self, group: Group, *metrics: str) -> list[int]:
        """Steps at which every run of a group has these figures, finite, thinned to what can be drawn."""

        def has(row: Json) -> bool:
            return all(math.isfinite(row["metrics"].get(metric, math.nan)) for metric in metrics)

        every = [{step for step, row in self.rows(entry).items() if has(row)} for entry in group.entries]
        steps = sorted(set.intersection(*every))
        if len(steps) > MOST_POINTS:
            chosen = np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)
            steps = [steps[i] for i in dict.fromkeys(chosen.tolist())]
        return steps

    def curve(self, group: Group) -> list[Json]:
        """The figure against steps, samples that reached the update, and seconds outside evaluations, from phase start."""
        spent = [self._spent(entry) for entry in group.entries]
        return [
            {
                "step": step,
                "samples": float(np.mean([s[step][0] for s in spent])),
                "seconds": float(np.mean([s[step][1] for s in spent])),
                **_bare(location(self.scores(group, step), CURVE_DRAWS)),
            }
            for step in self.steps(group, self.figure.metric)
        ]

    def _spent(self, entry: Entry) -> dict[int, tuple[float, float]]:
        found, samples, seconds = {}, 0.0, 0.0
        for step, row in sorted(self.rows(entry).items()):
            samples += row["metrics"].get("rows", 0.0)
            parts = {k: v for k, v in row["timings"].items() if re.match(r"seconds/(?!evaluate)", k)}
            seconds += sum(parts.values())
            found[step] = samples, seconds
        return found

    def plane(self, group: Group) -> list[Json]:
        """(KL, figure) at each evaluation, each an interquartile mean over seeds with its interval."""
        kl = str(self.figure.kl)
        term = kl.rpartition("/")[2]
        mean = self.summary if self.summary == "mean" else None
        kls = Measure(self.figure, self.evaluations, mean)
        return [
            {
                "step": step,
                "kl": _bare(location(kls.scores(group, step, kl, term), CURVE_DRAWS)),
                "value": _bare(location(self.scores(group, step), CURVE_DRAWS)),
            }
            for step in self.steps(group, self.figure.metric, kl)
        ]


def _bare(estimate: Any) -> Json:
    """An estimate as plain values; ends about which nothing can be said are None."""
    return {key: value if math.isfinite(value) else None for key, value in asdict(estimate).items()}


def _configuration(group: Group, scores: Scores, groups: Sequence[Group], figure: Figure) -> Json:
    paths = differing([g.entries[0].configuration for g in groups])
    own = group.entries[0].configuration
    return {
        "label": group.label,
        "differs": {path: own.get(path) for path in paths if not path.endswith("!")},
        "seeds": group.seeds,
        "runs": [entry.where for entry in group.entries],
        "values": scores.value_S.tolist(),
        "mean": float(scores.value_S.mean()),
        **_bare(location(scores)),
    }


def _pair(a: Group, b: Group, final: Mapping[str, Scores], measure: Measure) -> Json:
    """a − b, at the seeds both have; where they share none, without pairing."""
    shared = [seed for seed in a.seeds if seed in b.seeds]
    x, y = final[a.label], final[b.label]
    if shared:
        x, y = (final[g.label].take([g.seeds.index(seed) for seed in shared]) for g in (a, b))
    paired = bool(shared)
    found = difference(x, y, paired)
    return {
        "first": a.label,
        "second": b.label,
        "paired": paired,
        "seeds": shared,
        "difference": _bare(found),
        # one seed whose rows are all one number was not sampled at all: its interval of no width says nothing
        "clear": bool((found.low > 0 or found.high < 0) and (len(shared) != 1 or found.low < found.high)),
        "improvement": _bare(improvement(x, y, paired)),
        "higher_at": int((x.value_S > y.value_S).sum()) if paired else None,
    }


def _notes(entries: Sequence[Entry], groups: Sequence[Group], measure: Measure) -> list[str]:
    notes: list[str] = []
    figure = measure.figure
    fewest = min(groups, key=lambda group: len(group.entries))
    count = len(fewest.entries)
    if count == 1 and measure.summary:
        notes.append(
            f"'{fewest.label}' has one seed: its intervals say how sure these rows are, and nothing about other seeds"
        )
    elif count == 1:
        notes.append(f"'{fewest.label}' has one seed and no rows to draw from: nothing can be said of its spread")
    elif count < FEW:
        notes.append(
            f"'{fewest.label}' has {count} seeds; below {FEW} a 95 % interval holds the truth less often than it says"
        )
    for i, a in enumerate(groups):
        for b in groups[:i]:
            shared = [seed for seed in a.seeds if seed in b.seeds]
            if shared and (len(shared) < len(a.seeds) or len(shared) < len(b.seeds)):
                shown = ", ".join(map(str, shared[:10]))
                notes.append(f"'{a.label}' and '{b.label}' are paired on the seeds both have: {shown}")
            elif not shared:
                notes.append(
                    f"'{a.label}' and '{b.label}' have no seed in common, so they are compared without pairing"
                )
    count = len(groups) * (len(groups) - 1) // 2
    if count > 1:
        notes.append(f"{count} pairs at 95 % each: of equal ones, about one in 20 looks clear of 0 by chance")
    if len(groups) == 1:
        notes.append("all runs are one configuration, so there is no pair; to compare equal ones, name them LABEL=PATH")
    if figure.evaluation and measure.evaluations:
        if measure.evaluations.missing:
            notes.append(f"{measure.evaluations.missing[0].where} kept no rows of its evaluation: only seeds are drawn")
        elif measure.summary is None:
            notes.append(f"{figure.metric} is no mean of its rows, so only seeds are drawn, not prompts")
    else:
        notes.append(f"{figure.metric} is of the last step's own training rows; an evaluation compares better")
    steps = {entry.phase(figure.phase)["steps"] for entry in entries}  # type: ignore[index]
    if len(steps) > 1:
        notes.append(f"phase '{figure.phase}' has {min(steps)} to {max(steps)} steps; each run counts at its end")
    for what in ("sources", "kernels", "torch", "machine", "threads"):
        values = {str(entry.run.about.get(what)) for entry in entries}
        if len(values) > 1:
            shown = "Hookline's own code" if what == "sources" else what
            notes.append(
                f"the runs differ in {shown} ({', '.join(sorted(values)[:3])}): equal seeds then differ a little"
            )
    return notes


def _frontier(groups: Sequence[Group], figure: Figure, notes: list[str]) -> list[list[float]] | None:
    """The exact frontier, where all evaluations ask one task and that knows it."""
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
    """Points that lie above what any policy can reach, by more than their interval."""
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
                    f"'{label}' at step {point['step']} lies above the exact frontier: {figure.metric} {low:.4g} at least, "
                    f"{best:.4g} at most possible at that KL; a bug, unless the KL is to another reference than the task's"
                )
                break
    return notes
