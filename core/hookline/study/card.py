"""The model card of an export: what the model was trained with, on what, and its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hookline._version import __version__
from hookline.runs.run import Run
from hookline.study.intervals import figure_interval

if TYPE_CHECKING:
    from hookline.plan.plan import Plan, PlannedPhase

__all__ = ["model_card"]


def model_card(run: Run, plan: Plan, chosen: PlannedPhase) -> str:
    """README.md for a folder: method, data with hashes, figures of the last evaluation with their intervals."""
    phases = plan.phases[: plan.phases.index(chosen) + 1]
    model = plan.experiment.model
    base = f"a new {plan.architecture.instance}" if plan.architecture else f"{model.path}"
    base += f" with the adapter {model.merge} merged" if model.merge else ""
    lines = ["---", "library_name: transformers", "tags: [hookline]", "---", "", f"# {plan.experiment.name}", ""]
    lines += [f"Trained with Hookline {__version__} from {base}, seed {plan.experiment.seed}, run {run.id}.", ""]
    lines += ["| phase | method | steps | rows from |", "|---|---|---|---|"]
    for phase in phases:
        method, rows = (", ".join(use.instance for use in phase.spec.uses(kind)) for kind in ("update", "rollout"))
        steps = (run.finished(phase.spec.name) or {}).get("steps", phase.spec.steps)
        lines.append(f"| {phase.spec.name} | {method or 'none'} | {steps} | {rows} |")
    data = run.about.get("data", {})
    if data:
        lines += ["", "| data | rows | sha256 |", "|---|---|---|"]
        lines += [
            f"| {name} | {about['rows'] or ''} | {about['sha256'][:16]} |" for name, about in sorted(data.items())
        ]
    figures = list(_figures(run, chosen.spec.name))
    if figures:
        lines += ["", "| figure | value | 95 % interval | rows |", "|---|---|---|---|", *figures]
    lines += ["", "The whole experiment is in `experiment.json` of the run.", ""]
    return "\n".join(lines)


def _figures(run: Run, phase: str) -> list[str]:
    """The figures of the phase's last evaluations."""
    last = {entry["name"]: entry for entry in run.evaluations() if entry["phase"] == phase}
    rows = [row for row in run.rows() if row["phase"] == phase]
    found = []
    for name, entry in last.items():
        prefix = "eval/" if f"{name}/" not in "".join(rows[-1]["metrics"]) else f"eval/{name}/"
        for key, value in rows[-1]["metrics"].items():
            figure = key.removeprefix(prefix)
            if key.startswith("eval/") and any(figure in sample["terms"] for sample in entry["samples"]):
                ends = figure_interval(entry["samples"], figure, value)
                found.append(f"| {key} | {value:.4g} | {ends.low:.4g} to {ends.high:.4g} | {len(entry['samples'])} |")
    return found
