"""A figure of groups of runs: at their end, along the way, at equal cost, and on average over the way."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hookline.errors import CheckpointError, DataError
from hookline.runs.samples import Floats, PromptSums, prompt_sums, summary_of
from hookline.study.figure import Figure, final_row
from hookline.study.grouping import Entry, Group, Json
from hookline.study.intervals import Scores, location, prompt_parts

__all__ = ["AXES", "Evaluations", "Measure", "Range", "area_weights", "bare", "measure_of", "point_weights"]

AXES = ("steps", "tokens", "seconds")
"""The quantities at equal amounts of which configurations are compared."""
MOST_POINTS = 100
Weights = Callable[[Floats], Floats]


class Evaluations:
    """The evaluation rows behind a figure, for every run; all runs must have the same prompts."""

    def __init__(self, entries: Sequence[Entry], figure: Figure) -> None:
        self.figure = figure
        self.by_run = {id(entry): self._read(entry) for entry in entries}
        self.missing = [entry for entry in entries if not self.by_run[id(entry)]]
        self._sums: dict[tuple[int, int, str], PromptSums | None] = {}
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
                    "give the evaluation the same `rows` and its own `rollout`, equal in all configurations",
                )

    def sums(self, entry: Entry, step: int, term: str) -> PromptSums | None:
        """A term's sums by prompt at one step; None if there is no such evaluation."""
        key = id(entry), step, term
        if key not in self._sums:
            samples = self.by_run[id(entry)].get(step)
            self._sums[key] = prompt_sums(samples, term) if samples else None
        return self._sums[key]

    def summary(self, entries: Sequence[Entry], term: str, metric: str) -> str | None:
        """How the component summarises rows: `mean`, `perplexity`, or None for another way or for missing rows."""
        known = []
        for entry in entries:
            final = final_row(entry, self.figure.phase)
            sums = self.sums(entry, final["step"], term)
            if sums is None:
                return None
            known.append((sums, final["metrics"][metric]))
        return summary_of(known)


@dataclass(frozen=True)
class Range:
    """The range along one axis in which all runs were measured."""

    start: float
    end: float


class Measure:
    """Computes a figure's scores for groups of runs."""

    def __init__(self, figure: Figure, evaluations: Evaluations | None, summary: str | None) -> None:
        self.figure, self.evaluations, self.summary = figure, evaluations, summary
        self.rows_of: dict[int, dict[int, Json]] = {}
        self.spent_of: dict[int, dict[int, dict[str, float]]] = {}

    def rows(self, entry: Entry) -> dict[int, Json]:
        """Step → row of the phase."""
        if id(entry) not in self.rows_of:
            self.rows_of[id(entry)] = {int(row["step"]): row for row in entry.rows(self.figure.phase)}
        return self.rows_of[id(entry)]

    def measured(self, entry: Entry, *metrics: str) -> list[int]:
        """Steps at which these figures of a run are finite; by default the compared figure."""

        def has(row: Json) -> bool:
            names = metrics or (self.figure.metric,)
            return all(math.isfinite(row["metrics"].get(name, math.nan)) for name in names)

        return sorted(step for step, row in self.rows(entry).items() if has(row))

    def scores(self, group: Group, step: int | None = None, metric: str = "", term: str = "") -> Scores:
        """The figure of each run of a group; by default at the last step of each."""
        chosen = [([step if step is not None else max(self.rows(entry))], np.ones(1)) for entry in group.entries]
        return self._weighed(group, chosen, metric or self.figure.metric, term or self.figure.term)

    def along(self, group: Group, axis: str, weights: Weights) -> Scores:
        """A weighted sum of the figure over all points of each run; weights: a function of the points' axis values."""
        chosen = []
        for entry in group.entries:
            steps = self.measured(entry)
            weight_K = weights(np.array([self.spent(entry)[step][axis] for step in steps]))
            chosen.append(([step for step, w in zip(steps, weight_K) if w], weight_K[weight_K != 0]))
        return self._weighed(group, chosen, self.figure.metric, self.figure.term)

    def _weighed(self, group: Group, chosen: Sequence[tuple[list[int], Floats]], metric: str, term: str) -> Scores:
        """Σ weight × figure for each run, and what each prompt adds to that sum."""
        points = [(s, e, step) for s, (e, (steps, _)) in enumerate(zip(group.entries, chosen)) for step in steps]
        value_N = np.array([self.rows(entry)[step]["metrics"][metric] for _, entry, step in points], np.float64)
        weight_SN = np.zeros((len(group.entries), len(points)))
        for n, (s, weight) in enumerate((s, w) for s, (_, weights) in enumerate(chosen) for w in weights):
            weight_SN[s, n] = weight
        value_S = (weight_SN * value_N).sum(1)
        known = [self.evaluations and self.evaluations.sums(entry, step, term) for _, entry, step in points]
        whole = [sums for sums in known if sums]
        part_NG = prompt_parts(whole, value_N, self.summary) if whole and len(whole) == len(points) else None
        return Scores(value_S, None if part_NG is None else weight_SN @ part_NG)

    def shared_range(self, groups: Sequence[Group], axis: str) -> Range | None:
        """From the latest first point of a run to the earliest last one; None if empty or a run lacks the axis."""
        ends = []
        for entry in (entry for group in groups for entry in group.entries):
            steps, spent = self.measured(entry), self.spent(entry)
            if axis not in spent[steps[-1]]:
                return None
            ends.append((spent[steps[0]][axis], spent[steps[-1]][axis]))
        start, end = max(first for first, _ in ends), min(last for _, last in ends)
        return Range(start, end) if start <= end else None

    def spent(self, entry: Entry) -> dict[int, dict[str, float]]:
        """Step → steps, samples that reached the update, tokens in them, and seconds outside evaluations, from the phase's start.

        Without `tokens` if the run did not count them.
        """
        if id(entry) in self.spent_of:
            return self.spent_of[id(entry)]
        found: dict[int, dict[str, float]] = {}
        rows = self.rows(entry)
        counted = any("tokens" in row["metrics"] for row in rows.values())
        samples = tokens = seconds = 0.0
        for step, row in sorted(rows.items()):
            samples += row["metrics"].get("rows", 0.0)
            tokens += row["metrics"].get("tokens", 0.0)
            seconds += sum(v for k, v in row["timings"].items() if re.match(r"seconds/(?!evaluate)", k))
            found[step] = {"steps": float(step), "samples": samples, "seconds": seconds}
            if counted:
                found[step]["tokens"] = tokens
        self.spent_of[id(entry)] = found
        return found

    def steps(self, group: Group, *metrics: str) -> list[int]:
        """Steps at which every run of a group has these figures, at most `MOST_POINTS` of them."""
        steps = sorted(set.intersection(*(set(self.measured(entry, *metrics)) for entry in group.entries)))
        if len(steps) > MOST_POINTS:
            chosen = np.linspace(0, len(steps) - 1, MOST_POINTS).round().astype(int)
            steps = [steps[i] for i in dict.fromkeys(chosen.tolist())]
        return steps

    def curve(self, group: Group) -> list[Json]:
        """The figure at each step, with what was spent until then (a mean over runs)."""
        found = []
        for step in self.steps(group, self.figure.metric):
            spent = [self.spent(entry)[step] for entry in group.entries]
            axes = {axis: float(np.mean([s[axis] for s in spent])) for axis in spent[0] if axis != "steps"}
            found.append({"step": step, **axes, **bare(location(self.scores(group, step)))})
        return found

    def plane(self, group: Group) -> list[Json]:
        """(KL, figure) at each evaluation, each an interquartile mean over seeds with its interval."""
        kl = str(self.figure.kl)
        term = kl.rpartition("/")[2]
        summary = self.evaluations.summary(group.entries, term, kl) if self.evaluations else None
        kls = Measure(self.figure, self.evaluations, summary)
        return [
            {
                "step": step,
                "kl": bare(location(kls.scores(group, step, kl, term))),
                "value": bare(location(self.scores(group, step))),
            }
            for step in self.steps(group, self.figure.metric, kl)
        ]


def point_weights(x_K: Floats, at: float) -> Floats:
    """[K]: the weight of each point in the value at `at`, on straight lines between points."""
    weight_K: Floats = _between(x_K, np.array([at]))[0]
    return weight_K


def area_weights(x_K: Floats, start: float, end: float) -> Floats:
    """[K]: the weight of each point in the mean of the same lines from `start` to `end`: area over width."""
    node_N = np.array([start, *(x for x in np.unique(x_K) if start < x < end), end])
    width_N = np.diff(node_N)
    trapezoid_N = (np.append(width_N, 0) + np.insert(width_N, 0, 0)) / 2
    weight_K: Floats = (trapezoid_N @ _between(x_K, node_N)) / (end - start)
    return weight_K


def _between(x_K: Floats, at_N: Floats) -> Floats:
    """[N, K]: linear interpolation as a matrix. Where several points share an x, the last of them counts."""
    weight_NK = np.zeros((len(at_N), len(x_K)))
    right_N = np.searchsorted(x_K, at_N, side="right")
    for n, (at, right) in enumerate(zip(at_N, right_N)):
        left = max(right - 1, 0)
        share = (at - x_K[left]) / (x_K[right] - x_K[left]) if 0 < right < len(x_K) else 0.0
        weight_NK[n, left] += 1 - share
        if share:
            weight_NK[n, right] += share
    return weight_NK


def bare(estimate: Any) -> Json:
    """An estimate as plain values; NaN becomes None."""
    return {key: value if math.isfinite(value) else None for key, value in asdict(estimate).items()}


def measure_of(entries: Sequence[Entry], figure: Figure) -> Measure:
    """How to measure a figure in all runs. Raises DataError where they were not evaluated on the same prompts."""
    evaluations = Evaluations(entries, figure) if figure.evaluation else None
    summary = evaluations.summary(entries, figure.term, figure.metric) if evaluations else None
    return Measure(figure, evaluations, summary)
