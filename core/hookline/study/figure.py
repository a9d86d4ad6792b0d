"""The figure that a comparison uses: its name, its phase, and what it means."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hookline.config.uses import normal_form
from hookline.contract.fields import instance_name
from hookline.contract.metrics import Better, figure_name, plain_figure
from hookline.errors import CheckpointError, ExperimentError, HooklineError, nearest
from hookline.study.grouping import Entry, Json


@dataclass(frozen=True)
class Figure:
    """What is compared: a figure of a phase's rows, and the evaluation and reward that measure it, if any."""

    phase: str
    metric: str
    evaluation: str | None = None
    term: str = ""
    kl: str | None = None
    """The evaluation's KL figure, if it has one."""


def figures_of(entries: Sequence[Entry], phase: str) -> list[Figure]:
    """The figures of the evaluations of a finished phase that all runs have measured alike."""
    found = []
    for metric in _measured(entries[0], phase):
        if metric in shared_figures(entries, phase):
            with suppress(ExperimentError):  # it is measured differently in some runs
                found.append(_described(entries, phase, metric))
    return found


def figure_of(entries: Sequence[Entry], metric: str | None, phase: str | None) -> Figure:
    """The figure that was asked for, else the one that `save.best` names, else the first evaluation's first."""
    names = [[p["name"] for p in entry.experiment["phases"]] for entry in entries]
    common = [name for name in names[0] if all(name in other for other in names)]
    if phase is not None and phase not in common:
        having = next(entry for entry, other in zip(entries, names) if phase not in other)
        every = dict.fromkeys(name for other in names for name in other)
        raise ExperimentError(
            f"{having.where} has no phase '{phase}'{nearest(phase, every)}",
            f"phases that all runs have: {', '.join(common) or 'none'}",
        )
    if not common:
        raise ExperimentError(
            f"{entries[0].where} and {entries[-1].where} have no phase in common", "compare runs of one experiment"
        )
    phases = [phase] if phase else common[::-1]
    for name in phases:
        _finished(entries, name)
    shared = {name: shared_figures(entries, name) for name in phases}
    if metric is None:
        for name in phases:
            best = {json.dumps(entry.phase(name)["save"]["best"]) for entry in entries}  # type: ignore[index]
            kept = next((f for f in shared[name] if len(best) == 1 and f'"{f}"' in next(iter(best))), None)
            measured = [figure for figure in _measured(entries[0], name) if figure in shared[name]]
            if kept or measured:
                return _described(entries, name, kept or measured[0])
        raise ExperimentError(
            f"the runs have no evaluation in common in phase {' or '.join(map(repr, phases))}",
            "give --metric, e.g. reward, or let the experiments evaluate the same figure",
        )
    metric = plain_figure(metric)
    for name in phases:
        for known in (metric, f"eval/{metric}"):
            if known in shared[name]:
                return _described(entries, name, known)
    everything = list(dict.fromkeys(figure for name in phases for figure in shared[name]))
    shown = [figure for figure in everything if figure.startswith("eval/")] or everything
    raise ExperimentError(
        f"not every run ends a phase with the figure '{metric}'{nearest(f'eval/{metric}', everything)}",
        f"figures that all runs have: {', '.join(shown[:12]) or 'none'}",
    )


def _finished(entries: Sequence[Entry], phase: str) -> None:
    behind = [e for e in entries if not (e.run.phase_folder(phase) / "manifest.json").is_file()]
    if behind:
        rows = behind[0].rows(phase)
        step = f"step {rows[-1]['step']} of {behind[0].steps(phase)}" if rows else "no step yet"
        more = f"; {len(behind) - 1} more have not either" if len(behind) > 1 else ""
        raise CheckpointError(
            f"{behind[0].where} has not finished phase '{phase}' ({step}){more}",
            "let `hookline run` finish it, or name the runs to compare; leaving out failed runs flatters the rest",
        )


def final_row(entry: Entry, phase: str) -> Json:
    """The row of a finished phase's last step."""
    rows = entry.rows(phase)
    if not rows or rows[-1]["step"] != entry.steps(phase):
        raise CheckpointError(f"{entry.where}/metrics.jsonl lacks the last step of phase '{phase}'", "restore the file")
    return rows[-1]


def shared_figures(entries: Sequence[Entry], phase: str) -> list[str]:
    metrics = [final_row(entry, phase)["metrics"] for entry in entries]
    return [name for name in metrics[0] if all(name in other for other in metrics)]


def _evaluations(entry: Entry, phase: str) -> Iterator[tuple[str, str, Json, Json]]:
    """(figure, evaluation, the reward as used, the evaluation's spec), in the experiment's order."""
    for spec in (entry.phase(phase) or {}).get("evaluate", []):
        for use in spec["reward"] or _own(entry, phase, spec["name"]):
            yield figure_name(spec["name"], instance_name(use)), spec["name"], use, spec


def _own(entry: Entry, phase: str, evaluation: str) -> list[Json]:
    """The figures that an update gave in an evaluation without rewards, each as a reward would be used."""
    rows, prefix = entry.rows(phase), figure_name(evaluation, "")
    names = [name.removeprefix(prefix) for name in (rows[-1]["metrics"] if rows else ()) if name.startswith(prefix)]
    return [{"use": name, "options": {}} for name in names if "/" not in name]


def _measured(entry: Entry, phase: str) -> list[str]:
    return [figure for figure, *_ in _evaluations(entry, phase)]


def _described(entries: Sequence[Entry], phase: str, metric: str) -> Figure:
    """The figure with its evaluation. Raises ExperimentError where one name means two things."""
    measured = [{f: (name, use) for f, name, use, _ in _evaluations(entry, phase)}.get(metric) for entry in entries]
    plain = [normal_form(m[1]) if m else {} for m in measured]
    uses = [json.dumps([use["use"], use["options"]], sort_keys=True) if use else "" for use in plain]
    other = next((entry for entry, use in zip(entries, uses) if use != uses[0]), None)
    if other is not None:
        raise ExperimentError(
            f"{metric} is measured differently in {entries[0].where} and {other.where}",
            "compare runs whose evaluations are equal",
        )
    if measured[0] is None:
        return Figure(phase, metric)
    evaluation, use = measured[0]
    beside = [(f, u) for f, name, u, _ in _evaluations(entries[0], phase) if name == evaluation]
    by_name = {instance_name(u): f for f, u in beside}
    kl = by_name.get("kl") or next((f for f, u in beside if u["use"].endswith("kl")), None)
    kl = kl if kl in shared_figures(entries, phase) and kl != metric else None
    return Figure(phase, metric, evaluation, instance_name(use), kl)


def direction_of(entries: Sequence[Entry], figure: Figure) -> Better:
    """Whether higher or lower is better: as `save.best` of the experiments says, else as the component declares."""
    from hookline.loop.api import plan_of
    from hookline.runs.figures import Figures

    best = [entry.phase(figure.phase)["save"]["best"] or {} for entry in entries]  # type: ignore[index]
    if all(b.get("figure") == figure.metric and b.get("lowest") == best[0].get("lowest") for b in best):
        return "lower" if best[0].get("lowest") else "higher"
    try:
        metric = Figures(plan_of(entries[0].run).phases).find(figure.phase, figure.metric)
    except HooklineError:
        return (
            None  # the plugin is not installed any more: its figures can be compared, but their direction is not known
        )
    return metric.better if metric else None
