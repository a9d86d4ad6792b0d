"""The report's figures: means, intervals and paired differences, computed from committed rows and evaluation samples.

Everything here is a function of what the run committed, with draws of a fixed seed, so that two runs which were killed at
different points give the same figures to the last bit. Wall times are separate, under `timings`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hookline
from hookline import Run, figure_name, instance_name
from hookline_plugins.report import ages, words

Json = dict[str, Any]
Floats = NDArray[np.float64]
LEVEL = 95
"""Percentage of resampled figures that an interval contains."""
NO_REWARD = frozenset({"kl", "perplexity", "length", "pair-accuracy", "update"})
"""Components of evaluations that a policy is not meant to raise."""
OWN = "update"
"""Stands for the component of a figure that the phase's update gives itself."""
NO_CONTEST = frozenset({"kl", "pair-accuracy", OWN})
"""Components for which 'higher than before, row by row' is meaningless."""


def gather(run: Run, resamples: int, examples: int) -> Json:
    """All figures of a finished run. resamples: bootstrap draws per interval; examples: answers shown per evaluation."""
    experiment, rows, entries = run.experiment, run.rows(), run.evaluations()
    phases = [_phase(run, experiment, spec, rows, entries, resamples, examples) for spec in experiment["phases"]]
    about = run.about
    return {
        "format": 1,
        "name": experiment["name"],
        "seed": experiment["seed"],
        "resamples": resamples,
        "phases": phases,
        "ages": ages.gather(run, rows),
        "words": _words(run, rows),
        "provenance": {
            **{key: about.get(key) for key in ("hookline", "torch", "python", "machine", "kernels")},
            "threads": experiment.get("threads") or about.get("threads"),
            "plugins": [plugin for plugin in about.get("plugins", []) if plugin["kind"] != "tracker"],
            "data": dict(sorted(about.get("data", {}).items())),
            "weights": {phase["name"]: phase["weights"] for phase in phases},
        },
        "timings": {"phases": {spec["name"]: _timings(rows, spec["name"]) for spec in experiment["phases"]}},
    }


def _phase(
    run: Run,
    experiment: words.Spec,
    spec: words.Spec,
    all_rows: Sequence[Json],
    entries: Sequence[Json],
    resamples: int,
    examples: int,
) -> Json:
    name = spec["name"]
    rows = [row for row in all_rows if row["phase"] == name]
    evaluations = []
    for evaluation in spec["evaluate"]:
        mine = [e for e in entries if e["phase"] == name and e["name"] == evaluation["name"]]
        if mine:
            shared = run.about.get("shared_rows", {}).get(name, {}).get(evaluation["name"])
            evaluations.append(_evaluation(evaluation, mine, all_rows, resamples, examples) | {"shared_rows": shared})
    manifest = _read(run, f"phases/{name}/manifest.json")
    best = _read(run, f"best/{name}/manifest.json")
    figure = (spec["save"]["best"] or {}).get("figure")
    return {
        "name": name,
        "steps": manifest.get("steps", spec["steps"]),
        "does": " ".join(filter(None, (words.sentence(experiment, name), _stopped(manifest)))),
        "chain": words.chain(spec),
        "starts_from": words.start_of(experiment, name),
        "kl_target": next(
            (use["options"].get("target") for use in spec["wrap"] if words.offered(use) == "kl-penalty"), None
        ),
        "weights": manifest.get("weights"),
        "best": {"figure": figure, "step": best["step"], "value": best[figure]} if figure in best else None,
        "curves": _curves(rows),
        "evaluations": evaluations,
        "completions": _completions([c for c in run.completions() if c["phase"] == name], examples),
        "reward_kl": _reward_kl(evaluations),
    }


def _curves(rows: Sequence[Json]) -> dict[str, list[list[float]]]:
    """Figure → [[step, value], …], evaluation figures included; values that are not finite are left out."""
    found: dict[str, list[list[float]]] = {}
    for row in rows:
        for name, value in row["metrics"].items():
            if math.isfinite(value):
                found.setdefault(name, []).append([row["step"], value])
    return dict(sorted(found.items()))


def _completions(kept: Sequence[Json], count: int) -> list[Json]:
    """Answers of training: those of the first and of the last step of which any were kept, at most `count` of each."""
    ends = list(dict.fromkeys((kept[0]["step"], kept[-1]["step"]))) if kept else []
    return [answer for step in ends for answer in [c for c in kept if c["step"] == step][:count]]


# -- evaluations


def _evaluation(spec: words.Spec, entries: Sequence[Json], rows: Sequence[Json], resamples: int, examples: int) -> Json:
    first, last = entries[0], entries[-1]
    figures = {}
    own = dict.fromkeys(name for sample in last["samples"] for name in sample["terms"])
    named = [(instance_name(use), words.offered(use)) for use in spec["reward"]] or [(name, OWN) for name in own]
    for term, component in named:
        logged = figure_name(spec["name"], term)
        said = {e["step"]: rows[e["row"]]["metrics"].get(logged) for e in entries if e["row"] < len(rows)}
        figures[term] = {"component": component, **_figure(term, component, entries, said, resamples)}
    sampled = any(a["response"] != b["response"] for a, b in zip(first["samples"], last["samples"]))
    return {
        "name": spec["name"],
        "rows": len(last["samples"]),
        "groups": len({sample["group"] for sample in last["samples"]}),
        "steps": [entry["step"] for entry in entries],
        "figures": figures,
        "examples": _examples(first["samples"], last["samples"], examples) if sampled else [],
    }


def _figure(
    term: str, component: str, entries: Sequence[Json], said: Mapping[int, float | None], resamples: int
) -> Json:
    """One figure at every evaluation, its change from the first to the last, and the share of rows that rose.

    The share of a perplexity is that of rows whose perplexity fell.
    """
    tables = [Table(entry["samples"], term) for entry in entries]
    summary = _summary(tables, [said.get(entry["step"]) for entry in entries])
    points = []
    for entry, table in zip(entries, tables):
        value = said.get(entry["step"])
        if value is None:
            point = table.estimate(summary or "mean", resamples)
        else:
            point = asdict(hookline.figure_interval(entry["samples"], term, value, draws=resamples))
        points.append({"step": entry["step"], **point})
    found: Json = {"summary": summary or "own", "rows": tables[-1].count, "points": points}
    first, last = tables[0].both(tables[-1])
    if summary and first.count and len(entries) > 1:
        found["change"] = change(first, last, summary, resamples)
        if summary == "perplexity":
            found["ratio"] = ratio(first, last, resamples)
        if component not in NO_CONTEST:
            better, worse = (first, last) if summary == "perplexity" else (last, first)
            found["wins"] = better.against(worse).estimate("mean", resamples)
    return found


class Table:
    """One term of an evaluation's samples, by row; rows of one prompt (a group) are resampled together."""

    def __init__(self, samples: Sequence[Mapping[str, Any]], term: str) -> None:
        judged = [s for s in samples if math.isfinite(s["terms"].get(term, math.nan))]
        self.samples = [int(s["sample"]) for s in judged]
        self.groups = [int(s["group"]) for s in judged]
        self.value = np.array([s["terms"][term] for s in judged], np.float64)
        self.tokens = np.array([s["tokens"] for s in judged], np.float64)
        self.weight = np.array([s.get("weights", {}).get(term, 1.0) for s in judged], np.float64)

    @property
    def count(self) -> int:
        return len(self.samples)

    def take(self, rows: Sequence[int]) -> Table:
        """Some of the rows, in the order given."""
        part = Table([], "")
        part.samples = [self.samples[i] for i in rows]
        part.groups = [self.groups[i] for i in rows]
        part.value, part.tokens, part.weight = (x[list(rows)] for x in (self.value, self.tokens, self.weight))
        return part

    def both(self, other: Table) -> tuple[Table, Table]:
        """Two evaluations' rows of the same samples, side by side."""
        here = {sample: row for row, sample in enumerate(self.samples)}
        shared = [(here[sample], row) for row, sample in enumerate(other.samples) if sample in here]
        return self.take([a for a, _ in shared]), other.take([b for _, b in shared])

    def against(self, other: Table) -> Table:
        """1 for a row above the other's, 0 for one below, ½ for a tie."""
        contest = self.take(range(self.count))
        contest.value = 0.5 + 0.5 * np.sign(self.value - other.value)
        return contest

    def sums(self, summary: str) -> tuple[Floats, Floats]:
        """Per prompt: the sums above and below the line of the fraction. A figure is a function of their totals."""
        order = {group: i for i, group in enumerate(dict.fromkeys(self.groups))}
        where = np.array([order[group] for group in self.groups], np.intp)
        above, below = np.zeros(len(order)), np.zeros(len(order))
        with np.errstate(divide="ignore", invalid="ignore"):
            logprob = -self.tokens * np.log(self.value)  # of a row whose value is its perplexity
        np.add.at(above, where, logprob if summary == "perplexity" else self.value * self.weight)
        np.add.at(below, where, self.tokens if summary == "perplexity" else self.weight)
        return above, below

    def estimate(self, summary: str, resamples: int) -> Json:
        """{"value", "low", "high"}: the figure and its bootstrap interval over prompts."""
        if not self.count:
            return {"value": None, "low": None, "high": None}
        return asdict(hookline.interval(*self.sums(summary), summary=summary, draws=resamples))


def change(first: Table, last: Table, summary: str, resamples: int) -> Json:
    """By how much a figure grew, prompt by prompt: what a prompt does to both sides falls out."""
    before, after = first.sums(summary), last.sums(summary)
    return asdict(hookline.interval(*after, minus=before, summary=summary, draws=resamples))


def ratio(first: Table, last: Table, resamples: int) -> Json:
    """The last perplexity as a multiple of the first: exp of the difference in log-probability per token."""
    before, after = first.sums("perplexity"), last.sums("perplexity")
    found = hookline.interval(*before, minus=after, draws=resamples)
    return {key: math.exp(value) for key, value in asdict(found).items()}


def _summary(tables: Sequence[Table], said: Sequence[float | None]) -> str | None:
    """How the component sums rows up, found by trying: what it logged equals the mean, or the perplexity, of its rows.

    None where neither does; such a figure is shown as logged, without an interval that would be about something else.
    """
    known = [(table, value) for table, value in zip(tables, said) if value is not None and table.count]
    for summary in ("mean", "perplexity"):
        sums = [table.sums(summary) for table, _ in known]
        means = [float(above.sum() / below.sum()) for above, below in sums]
        ours = [math.exp(-mean) if summary == "perplexity" else mean for mean in means]
        if known and all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, (_, b) in zip(ours, known)):
            return summary
    return None if known else "mean"


def _examples(first: Sequence[Json], last: Sequence[Json], count: int) -> list[Json]:
    """The first prompts of the evaluation, one answer each, before and after: taken in order, not chosen."""
    before = {sample["sample"]: sample for sample in first}
    shown: dict[int, Json] = {}
    for sample in last:
        if sample["group"] not in shown and sample["sample"] in before and len(shown) < count:
            old = before[sample["sample"]]
            shown[sample["group"]] = {
                "prompt": sample["prompt"],
                "before": {"response": old["response"], "terms": old["terms"]},
                "after": {"response": sample["response"], "terms": sample["terms"]},
            }
    return list(shown.values())


def _reward_kl(evaluations: Sequence[Json]) -> list[Json]:
    """Reward against KL, evaluation by evaluation; empty unless a phase measures both."""
    figures = [(name, figure) for evaluation in evaluations for name, figure in evaluation["figures"].items()]
    kl = next((figure for _, figure in figures if figure["component"] == "kl"), None)
    rewards = [(n, f) for n, f in figures if f["component"] not in NO_REWARD and f["summary"] == "mean"]
    found = []
    for name, figure in rewards if kl else []:
        price = {point["step"]: point for point in kl["points"]} if kl else {}
        points = [
            {"step": p["step"], "kl": _bare(price[p["step"]]), "reward": _bare(p)}
            for p in figure["points"]
            if p["step"] in price and p["value"] is not None
        ]
        if len(points) > 1:
            found.append({"reward": name, "points": points})
    return found


def _bare(point: Json) -> Json:
    return {key: point[key] for key in ("value", "low", "high")}


# -- the rest


def _timings(rows: Sequence[Json], phase: str) -> Json:
    """Seconds by part, and tokens per second of a phase's steps."""
    parts: dict[str, float] = {}
    tokens = seconds = 0.0
    for row in rows:
        if row["phase"] != phase:
            continue
        for name, value in row["timings"].items():
            if name.startswith("seconds/"):
                parts[name.removeprefix("seconds/")] = parts.get(name.removeprefix("seconds/"), 0.0) + value
        speed, count = row["timings"].get("tokens_per_second", 0.0), row["metrics"].get("tokens", 0.0)
        if speed > 0 and count > 0:
            tokens, seconds = tokens + count, seconds + count / speed
    return {
        "seconds": sum(parts.values()),
        "parts": parts,
        "tokens_per_second": tokens / seconds if seconds else None,
    }


def _words(run: Run, rows: Sequence[Json]) -> dict[str, Json]:
    """What each logged figure means: the formula it was declared with, or what its component says of itself."""
    found: dict[str, Json] = {}
    for row in rows:
        for name in (*row["metrics"], *row["timings"]):
            if name in found:
                continue
            metric = run.metric(row["phase"], name)
            formula = metric.formula if metric else ""
            found[name] = {"formula": formula, "unit": metric.unit if metric else ""}
    return dict(sorted(found.items()))


def _stopped(manifest: Json) -> str:
    """Why a phase ended before its last step, as a sentence; empty if it did not."""
    said = manifest.get("stopped") or ""
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _read(run: Run, path: str) -> Json:
    """A manifest of the run, or nothing."""
    try:
        found: Json = json.loads((run.directory / path).read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}


def finite(value: Any) -> Any:
    """The same tree with null for numbers that are not finite, which JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
