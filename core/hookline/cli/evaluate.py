"""`eval` judges a finished phase's model again; `export` writes it as a plain transformers folder."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline.batch.stages import Term
from hookline.errors import CheckpointError, ExperimentError, nearest
from hookline.loop.api import plan_of
from hookline.loop.evaluation import Evaluator
from hookline.plan.plan import Plan, PlannedPhase
from hookline.runs.run import Run
from hookline.storage import folders

__all__ = ["evaluate_run", "export_run", "show_table"]


def _phase_of(run: Run, plan: Plan, name: str | None) -> PlannedPhase:
    names = [phase.spec.name for phase in plan.phases]
    if name and name not in names:
        raise ExperimentError(f"the run has no phase '{name}'{nearest(name, names)}", f"phases: {', '.join(names)}")
    finished = [phase for phase in plan.phases if run.phase_folder(phase.spec.name).exists()]
    wanted = [phase for phase in finished if name in (None, phase.spec.name)]
    if not wanted:
        which = f"phase '{name}'" if name else "any phase"
        raise CheckpointError(f"{run.directory} has not finished {which}", "let `hookline run` finish it first")
    chosen = wanted[-1]
    run.finished(chosen.spec.name)
    return chosen


def evaluate_run(directory: Path, phase: str | None, rows: int | None) -> list[dict[str, Any]]:
    """One row per figure: {"evaluation", "figure", "value", "low", "high", "rows"}; the interval is a 95 % bootstrap."""
    import torch

    from hookline.loop.loop import PhaseLoop
    from hookline.loop.phase import tokenizer_of

    run = Run.read(directory)
    plan = plan_of(run)
    run.plan = plan
    chosen = _phase_of(run, plan, phase)
    if plan.experiment.threads:
        torch.set_num_threads(plan.experiment.threads)
    if not chosen.evaluations:
        raise ExperimentError(
            f"phase '{chosen.spec.name}' names no evaluation", "add `evaluate:` to the phase, or choose --phase"
        )
    found = []
    with asyncio.Runner() as answers:
        loop = PhaseLoop(plan, chosen, run, tokenizer_of(plan, run), answers, finished=True)
        for evaluator in loop.evaluators:
            if rows:
                evaluator.spec = evaluator.spec.model_copy(update={"rows": rows})
            figures, samples = evaluator.run(loop.ctx, answers)
            for name, value in figures.items():
                low, high = _interval(evaluator, name)
                found.append(
                    {
                        "evaluation": evaluator.spec.name,
                        "figure": name,
                        "value": value,
                        "low": low,
                        "high": high,
                        "rows": len(samples),
                    }
                )
    return found


def _interval(evaluator: Evaluator, name: str, draws: int = 500) -> tuple[float, float]:
    """95 % bootstrap of a component's own summary; rows of one prompt are drawn together."""
    import torch

    assert evaluator.last is not None
    scored, terms = evaluator.last
    component, term = evaluator.rewards[name][0], terms[name]
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(scored.group_B.tolist()):
        groups.setdefault(group, []).append(row)
    every, generator = list(groups.values()), torch.Generator().manual_seed(0)
    spread = []
    for _ in range(draws):
        chosen = torch.randint(len(every), (len(every),), generator=generator).tolist()
        rows = torch.tensor([row for i in chosen for row in every[i]])
        some = scored.rows(rows)
        value = term.value[rows] if term.value.dim() == 1 else term.value[rows][:, : some.token_ids_BT.shape[1]]
        ok_B = None if term.ok_B is None else term.ok_B[rows]
        spread.append(component.summarise(Term(value, ok_B), some))
    low, high = torch.tensor(spread, dtype=torch.float64).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return float(low), float(high)


def show_table(found: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'evaluation':<16} {'figure':<24} {'value':>10}   95 % interval       rows"]
    lines += [
        f"{f['evaluation']:<16} {f['figure']:<24} {f['value']:>10.4f}   [{f['low']:.4f}, {f['high']:.4f}]   {f['rows']:>6}"
        for f in found
    ]
    return "\n".join(lines)


def export_run(directory: Path, folder: Path, phase: str | None, best: bool) -> str:
    """Write model and tokenizer so that transformers loads them; says what was written."""
    from hookline.data.tokenizer import Tokenizer
    from hookline.loop.phase import wishes_of
    from hookline.models import load

    run = Run.read(directory)
    plan = plan_of(run)
    chosen = _phase_of(run, plan, phase)
    name = chosen.spec.name
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is no empty folder", "choose a new one")
    source = run.directory / "best" / name if best else run.phase_folder(name)
    if best and not source.exists():
        raise CheckpointError(
            f"phase '{name}' kept no best weights", "set save.best in the experiment, or leave out --best"
        )
    manifest = folders.verify(source)
    adapter = bool(run.finished(name)["adapter"]) if run.finished(name) else False  # type: ignore[index]
    role = load.load_role(
        "policy",
        source / "model",
        wishes_of(plan, chosen),
        chosen.head,
        chosen.adapter,
        adapter,
        plan.experiment.seed,
        family=load.family_of(plan.family),
    )
    folder.mkdir(parents=True, exist_ok=True)
    role.export(folder)
    Tokenizer.load(run.directory / "tokenizer").export(folder)
    left_out = f", without its head '{chosen.head.instance}'" if chosen.head else ""
    step = f" (step {manifest['step']})" if best else ""
    return (
        f"{folder}: the policy of phase '{name}'{step}{left_out}, weights {role.hash()[:12]}; for AutoModelForCausalLM"
    )
