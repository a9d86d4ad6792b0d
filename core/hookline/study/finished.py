"""Uses of a finished run: evaluate its model again, or export it as a transformers folder."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hookline.errors import CheckpointError, ExperimentError, PluginError
from hookline.runs.run import Run
from hookline.storage.paths import expanded
from hookline.study.card import model_card
from hookline.study.intervals import figure_interval
from hookline.world.notebook import beside_event_loops

if TYPE_CHECKING:
    import torch

    from hookline.loop.loop import PhaseLoop
    from hookline.models.role import Role
    from hookline.plan.plan import Plan, PlannedPhase
    from hookline.tokens.tokenizer import Tokenizer

__all__ = ["Ended", "ended", "evaluate", "export", "threads"]

EVALUATES = ("rollout", "reward", "engine", "model")
"""The kinds of components without which a finished policy cannot be evaluated."""


@beside_event_loops
def evaluate(
    run: Run | str | Path,
    phase: str | None = None,
    rows: int | None = None,
    experiment: str | Path | Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Judge a finished phase's model again on that phase's evaluations: what `hookline eval RUN --json` prints.

    run: a run, or its directory; it is not changed. With `experiment` it may be any model folder, which is then asked the
    evaluations of a phase of that experiment. phase: by default the last finished one, or the last of the experiment. rows:
    the number of rows of each evaluation, by default as in the experiment.

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
    if experiment is not None:
        return _evaluate_folder(run, experiment, phase, rows)
    try:
        run, plan, chosen = _read(run, phase)
    except (PluginError, ExperimentError):  # what trained the policy may no longer be installed
        run, plan, chosen = _read(run, phase, kinds=EVALUATES)
    if not chosen.evaluations:
        raise ExperimentError(
            f"phase '{chosen.spec.name}' has no evaluation", "add `evaluate:` to the phase, or choose --phase"
        )
    with threads(plan.experiment.threads), open_phase(run, plan, chosen.spec.name, finished=True) as loop:
        return _judged(loop, rows)


def _evaluate_folder(
    model: Run | str | Path, experiment: str | Path | Mapping[str, Any], phase: str | None, rows: int | None
) -> list[dict[str, Any]]:
    """The evaluations of a phase of an experiment, asked of a model that the experiment did not train."""
    from hookline.config.experiment import document_of
    from hookline.loop.api import open_phase, open_run, plan

    values = document_of(experiment).values
    phases = [each for each in values.get("phases") or () if isinstance(each, dict)]
    named = [each for each in phases if phase in (None, each.get("name"))]
    if not named:
        names = ", ".join(str(each.get("name")) for each in phases)
        raise ExperimentError(f"the experiment has no phase '{phase}'", f"phases: {names or 'none'}")
    kept = {key: value for key, value in named[-1].items() if key != "model"}
    if not kept.get("evaluate"):
        raise ExperimentError(
            f"phase '{kept.get('name')}' has no evaluation", "add `evaluate:` to it, or choose --phase"
        )
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = Path(model.directory if isinstance(model, Run) else model)
        folder = export(path, place / "model") if Run.is_one(expanded(path)) else path
        alone = {**values, "model": {"path": str(folder)}, "phases": [{**kept, "steps": 1, "epochs": None}], "trackers": []}
        alone.pop("tokenizer", None)
        alone.pop("matrix", None)
        alone.pop("levers", None)
        planned = plan(alone)
        stack.enter_context(threads(planned.experiment.threads))
        run = open_run(place / "run", planned)
        stack.callback(run.close)
        return _judged(stack.enter_context(open_phase(run, planned)), rows)


def _judged(loop: PhaseLoop, rows: int | None) -> list[dict[str, Any]]:
    """Every figure of a phase's evaluations, with its interval."""
    found = []
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
    adapter: bool = False,
) -> Path:
    """Write a finished phase's policy and the tokenizer into a folder, as transformers loads them without Hookline.

    run: a run, or its directory; it is not changed. folder: a new or empty one. phase: by default the last finished
    one. best: use the weights that `save.best` kept. say: receives the sentence that `hookline export` prints. adapter: write
    the adapter alone, as peft loads it onto the base model; by default it is merged.

    Returns the folder: `AutoModelForCausalLM.from_pretrained(hookline.export(run, "my-model"))`.

    Raises ExperimentError for an unknown phase; CheckpointError if the folder is not empty or cannot be written, the
    directory is not a run directory, the phase has not finished or is damaged, or no best weights were kept.
    """
    from hookline.storage import folders

    folder = expanded(Path(folder))
    found = ended(run, phase, best)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not an empty folder", "choose a new one")
    role, head = found.role, found.phase.head.instance if found.phase.head else ""
    what, lower = f"policy of phase '{found.phase.spec.name}'", ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if adapter:
            what, reader = what.replace("policy", "adapter"), "PeftModel"
            role.export_adapter(folder, _base(found))
        elif found.scores:
            what, reader = what.replace("policy", "reward model"), "AutoModelForSequenceClassification"
            bias = role.export_scores(head, _filler(found.tokenizer, role.vocabulary), folder)
            names = role.outputs(head)
            reader += f", with the scores {', '.join(names)}" if names else ""
            if any(bias):
                scores = "scores are" if len(bias) > 1 else "score is"
                lower = f", whose {scores} lower by {', '.join(f'{one:g}' for one in bias)}, the head's bias"
        else:
            reader = "AutoModelForCausalLM"
            role.export(folder)
        found.tokenizer.export(folder)
        (folder / "README.md").write_text(model_card(found.run, found.plan, found.phase), encoding="utf-8")
    except folders.WRITE_ERRORS as err:
        raise folders.write_error(folder, err) from err
    if say:
        step = f" (step {found.step})" if best else ""
        left_out = f", without its head '{head}'" if head and not found.scores and not adapter else ""
        say(f"{folder}: the {what}{step}{left_out}, weights {role.hash()[:12]}; for {reader}{lower}")
    return folder


def _base(found: Ended) -> str | None:
    """The model on which an adapter was trained. Raises ExperimentError if its folder holds another one now."""
    from hookline.models.folder import folder_hash

    base, merge = found.plan.experiment.model.path, found.plan.experiment.model.merge
    if merge:
        raise ExperimentError(
            f"the adapter was trained on {base} with {merge} merged, and an adapter can name one folder only",
            "export the merged model: leave out --adapter; `adapter: {lora: {from: …}}` goes on with an adapter instead",
        )
    pinned = found.run.about.get("data", {}).get(f"model:{base}")
    if base and pinned and Path(base).is_dir() and folder_hash(base) != pinned["sha256"]:
        raise ExperimentError(
            f"{base} is not the model that this adapter was trained on: it has changed since the run began",
            "restore it, or export the merged model: leave out --adapter",
        )
    return base


@dataclass(frozen=True)
class Ended:
    """The model with which a phase ended, or its best one."""

    run: Run
    plan: Plan
    phase: PlannedPhase
    step: int
    role: Role
    tokenizer: Tokenizer

    @property
    def scores(self) -> bool:
        """Whether the model judges answers, as transformers' models for sequence classification do."""
        return self.phase.head is not None and self.role.exports_scores(self.phase.head.instance)


def ended(
    run: Run | str | Path, phase: str | None = None, best: bool = False, device: torch.device | None = None
) -> Ended:
    """Load the model of a finished phase, by default of the last one. Raises the errors of `export`."""
    from hookline.models import load
    from hookline.storage import folders
    from hookline.tokens.tokenizer import Tokenizer

    run, plan, chosen = _read(run, phase, kinds=("model",))
    name = chosen.spec.name
    source = run.directory / "best" / name if best else run.phase_folder(name)
    if best and not source.exists():
        raise CheckpointError(
            f"phase '{name}' kept no best weights", "set save.best in the experiment, or leave out --best"
        )
    step = int(folders.verify(source)["step"]) if best else int((run.finished(name) or {}).get("steps", chosen.spec.steps))
    where, spec = device or load.CPU, plan.model_of(chosen)
    if spec.attention == "flash" and where.type != "cuda":  # which a machine without a GPU lacks; it is the same network
        spec = spec.model_copy(update={"attention": None})
    role = load.load_role(
        "policy",
        source / "model",
        spec,
        chosen.head,
        chosen.adapter,
        bool((run.finished(name) or {}).get("adapter")),
        plan.experiment.seed,
        family=load.family_of(plan.family),
        device=where,
    )
    return Ended(run, plan, chosen, step, role, Tokenizer.load(run.directory / "tokenizer"))


def _filler(tokenizer: Any, vocabulary: int) -> int | None:
    """A padding id that ends no answer: transformers reads the score before the first one; None if there is none."""
    if tokenizer.pad not in tokenizer.ends:
        return int(tokenizer.pad)
    return next((i for i in (*tokenizer.gaps, *range(tokenizer.vocabulary, vocabulary))), None)


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
