"""Uses of a finished run: evaluate its model again, or export it as a transformers folder."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline.errors import CheckpointError, ExperimentError, PluginError
from hookline.runs.run import Run
from hookline.storage.paths import expanded
from hookline.study.intervals import figure_interval
from hookline.world.notebook import beside_event_loops

if TYPE_CHECKING:
    from hookline.plan.plan import Plan, PlannedPhase

__all__ = ["evaluate", "export", "threads"]

EVALUATES = ("rollout", "reward", "engine", "model")
"""The kinds of components without which a finished policy cannot be evaluated."""


@beside_event_loops
def evaluate(run: Run | str | Path, phase: str | None = None, rows: int | None = None) -> list[dict[str, Any]]:
    """Judge a finished phase's model again on that phase's evaluations: what `hookline eval RUN --json` prints.

    run: a run, or its directory; it is not changed. phase: by default the last finished one. rows: the number of
    rows of each evaluation, by default as in the experiment.

    Returns a dict per figure, {"evaluation", "figure", "value", "low", "high", "rows"}, ready for JSON: low and high
    are the ends of its 95 % interval over prompts, None if there are too few prompts; value is None if it is not
    finite; rows is the number of judged rows.

    Raises ExperimentError for an unknown phase, one without evaluations, or fewer than one row; CheckpointError if the
    directory is not a run directory, or the phase has not finished or is damaged; DataError and PluginError if
    data or a component that the evaluation needs is missing.
    """
    from hookline.loop.api import open_phase

    if rows is not None and rows < 1:
        raise ExperimentError(
            f"rows is {rows}; an evaluation needs at least 1", "leave rows out to use the experiment's number"
        )
    try:
        run, plan, chosen = _read(run, phase)
    except (PluginError, ExperimentError):  # what trained the policy may no longer be installed
        run, plan, chosen = _read(run, phase, kinds=EVALUATES)
    if not chosen.evaluations:
        raise ExperimentError(
            f"phase '{chosen.spec.name}' has no evaluation", "add `evaluate:` to the phase, or choose --phase"
        )
    found = []
    with threads(plan.experiment.threads), open_phase(run, plan, chosen.spec.name, finished=True) as loop:
        for evaluator in loop.evaluators:
            if rows:
                evaluator.spec = evaluator.spec.model_copy(update={"rows": rows})
            figures, samples = evaluator.run(loop.ctx)
            for name, value in figures.items():
                ends = figure_interval(samples, name, value)
                numbers = {
                    key: number if math.isfinite(number) else None
                    for key, number in (("value", value), ("low", ends.low), ("high", ends.high))
                }
                found.append({"evaluation": evaluator.spec.name, "figure": name, **numbers, "rows": len(samples)})
    return found


def export(
    run: Run | str | Path,
    folder: str | Path,
    phase: str | None = None,
    best: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write a finished phase's policy and the tokenizer into a folder, as transformers loads them without Hookline.

    run: a run, or its directory; it is not changed. folder: a new or empty one. phase: by default the last finished
    one. best: use the weights that `save.best` kept. say: receives the sentence that `hookline export` prints.

    Returns the folder: `AutoModelForCausalLM.from_pretrained(hookline.export(run, "my-model"))`.

    Raises ExperimentError for an unknown phase; CheckpointError if the folder is not empty or cannot be written, the
    directory is not a run directory, the phase has not finished or is damaged, or no best weights were kept.
    """
    from hookline.data.tokenizer import Tokenizer
    from hookline.models import load
    from hookline.storage import folders

    run, plan, chosen = _read(run, phase, kinds=("model",))
    name, folder = chosen.spec.name, expanded(Path(folder))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not an empty folder", "choose a new one")
    source = run.directory / "best" / name if best else run.phase_folder(name)
    if best and not source.exists():
        raise CheckpointError(
            f"phase '{name}' kept no best weights", "set save.best in the experiment, or leave out --best"
        )
    manifest = folders.verify(source)
    finished: Mapping[str, Any] = run.finished(name) or {}
    wishes, adapter = plan.model_of(chosen), bool(finished.get("adapter"))
    family, seed = load.family_of(plan.family), plan.experiment.seed
    role = load.load_role("policy", source / "model", wishes, chosen.head, chosen.adapter, adapter, seed, family=family)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        role.export(folder)
        Tokenizer.load(run.directory / "tokenizer").export(folder)
    except folders.WRITE_ERRORS as err:
        raise folders.write_error(folder, err) from err
    if say:
        step = f" (step {manifest['step']})" if best else ""
        left_out = f", without its head '{chosen.head.instance}'" if chosen.head else ""
        what = f"the policy of phase '{name}'{step}{left_out}, weights {role.hash()[:12]}"
        say(f"{folder}: {what}; for AutoModelForCausalLM")
    return folder


def _read(run: Run | str | Path, phase: str | None, **kinds: Sequence[str]) -> tuple[Run, Plan, PlannedPhase]:
    """A run, its plan, and the chosen finished phase. Raises ExperimentError, CheckpointError."""
    from hookline.loop.api import finished_phase, plan_of

    run = Run.read(run.directory if isinstance(run, Run) else Path(run))
    plan = plan_of(run, **kinds)
    return run, plan, finished_phase(run, plan, phase)


@contextlib.contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Use this many CPU threads within the block; None keeps the current number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
