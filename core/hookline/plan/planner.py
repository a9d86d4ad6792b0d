"""From an experiment file to who answers what: every component found, imported, configured and checked.

Nothing here builds a model or opens data beyond asking whether it exists, so every mistake that can be known early is
known before the first weight is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from hookline.config.experiment import Evaluation, Experiment, ModelSpec, Phase
from hookline.config.yaml import Document
from hookline.contract.family import Family
from hookline.contract.fields import Use, marked
from hookline.contract.model import Adapter, Architecture, Head
from hookline.data.names import other_split
from hookline.errors import PluginError, nearest
from hookline.models.load import family_of
from hookline.plan.checks import (
    _check_best,
    _check_data,
    _check_device,
    _check_evaluation,
    _check_figure,
    _check_fit,
    _check_folders,
    _check_model,
    _check_named_phases,
    _check_names,
    _check_same_adapter,
    _missing,
)
from hookline.plan.plan import Plan, PlannedEvaluation, PlannedPhase
from hookline.plan.slots import Planner
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot
from hookline.world import devices

__all__ = ["make_plan"]


def make_plan(experiment: Experiment, document: Document, plugins: Sequence[str | Offer] = ()) -> Plan:
    """Resolve every name. Raises one error that lists all that is wrong, each with line and hint.

    plugins: loose files and installed names to make available, or offers made up on the spot, as the bench does.
    """
    planner = Planner(document, _loose([*experiment.plugins, *plugins]))
    architecture = planner.slot("model", experiment.model.build, _build_path(document))
    if architecture and not issubclass(architecture.cls, Architecture):
        planner.say(
            ("model", "build"), f"'{architecture.instance}' is no architecture, so no model can be built from it"
        )
    if architecture:
        for key, name in marked(architecture.config, "data").items():
            _check_data(planner, name, (*architecture.path, key))
    if experiment.tokenizer and experiment.tokenizer.on:
        _check_data(planner, experiment.tokenizer.on, ("tokenizer", "on"))
    family = planner.slot("model", experiment.model.family, ("model", "family"))
    if family and not issubclass(family.cls, Family):
        planner.say(("model", "family"), f"'{family.instance}' is not a family of models")
        family = None
    sides = family_of(family).sides
    _check_device(planner, experiment)
    _check_folders(planner, experiment)
    phases: list[PlannedPhase] = []
    for index, spec in enumerate(experiment.phases):
        planned = _plan_phase(planner, experiment, spec, ("phases", index), phases, sides)
        if planned:
            phases.append(planned)
    _check_model(planner, experiment, architecture, phases, family_of(family))
    trackers = [planner.slot("tracker", use, ("trackers", i)) for i, use in enumerate(experiment.trackers)]
    planner.finish()
    notes = tuple(filter(None, (*document.notes, devices.note(experiment.device))))
    return Plan(
        experiment, tuple(phases), architecture, tuple(t for t in trackers if t), planner.loose, family, notes=notes
    )


def _loose(plugins: Sequence[str | Offer]) -> tuple[Offer, ...]:
    found: list[Offer] = []
    for reference in dict.fromkeys(plugins):
        if isinstance(reference, Offer):
            found.append(reference)
        elif reference.endswith(".py") or "/" in reference:
            found += offers.loose(reference)
        elif not any(reference in (o.name, o.distribution) for o in offers.offers()):
            raise PluginError(f"-p {reference}: no plugin of that name is installed", "give a path, or pip install it")
    files = {offer.path: offer.path.rpartition("/")[2] for offer in found}
    if len(set(files.values())) < len(files):
        raise PluginError(f"two loose files have one name: {', '.join(sorted(files))}", "rename one: a run keeps both")
    return tuple(found)


def other_problems(document: Document, plugins: Sequence[str] = ()) -> list[str]:
    """What is wrong with the components that a file names, when the file itself is not yet right enough to plan with."""
    own = document.values.get("plugins") or []
    own = [own] if isinstance(own, str) else own if isinstance(own, list) else []
    try:
        planner = Planner(document, _loose([*(str(item) for item in own), *plugins]))
    except PluginError as err:
        return [str(err)]

    def look(kind: str, place: Any, *path: str | int) -> None:
        *outer, key = path
        value = place.get(key) if isinstance(place, dict) else None
        several = value if isinstance(value, list) else None
        for i, item in enumerate(several or [value]):
            with contextlib.suppress(ValidationError):
                if item is not None:
                    planner.slot(kind, Use.model_validate(item), (*outer, key, *([i] if several else [])))

    phases = document.values.get("phases")
    for i, phase in enumerate(phases if isinstance(phases, list) else []):
        for kind, key in _KEYS.items():
            look(kind, phase, "phases", i, key)
        evaluations = phase.get("evaluate") if isinstance(phase, dict) else None
        for j, evaluation in enumerate(evaluations if isinstance(evaluations, list) else []):
            look("reward", evaluation, "phases", i, "evaluate", j, "reward")
    look("tracker", document.values, "trackers")
    with contextlib.suppress(ValidationError):
        model = ModelSpec.model_validate(document.values.get("model"))
        planner.slot("model", model.build, _build_path(document))
        planner.slot("model", model.adapter, ("model", "adapter"))
    return planner.problems


def _build_path(document: Document) -> tuple[str | int, ...]:
    """Where the architecture's options stand: beside `build: NAME`, or inside `build: {use: NAME, …}`."""
    model = document.values.get("model")
    beside = isinstance(model, dict) and isinstance(model.get("build"), str)
    return ("model",) if beside else ("model", "build")


_KEYS = {
    "rollout": "rollout",
    "reward": "reward",
    "wrapper": "wrap",
    "advantage": "advantage",
    "update": "update",
    "feedback": "feedback",
}


def _plan_phase(
    planner: Planner,
    experiment: Experiment,
    spec: Phase,
    at: tuple[str | int, ...],
    before: Sequence[PlannedPhase],
    sides: frozenset[str],
) -> PlannedPhase | None:
    """sides: what the model's family has, e.g. `decodes`; see `Family.sides`."""

    def many(kind: str, key: str, uses: Sequence[Use]) -> tuple[Slot, ...]:
        found = [planner.slot(kind, use, (*at, key, i)) for i, use in enumerate(uses)]
        names = [use.instance for use in uses]
        for i, name in enumerate(names):
            if name in names[:i]:
                planner.say((*at, key, i), f"'{name}' stands twice under {key}; give one a `name`")
        return tuple(slot for slot in found if slot)

    rollout = planner.slot("rollout", spec.rollout, (*at, "rollout"))
    rewards = many("reward", "reward", spec.reward)
    wraps = many("wrapper", "wrap", spec.wrap)
    feedback = many("feedback", "feedback", spec.feedback)
    advantage = planner.slot("advantage", spec.advantage, (*at, "advantage"))
    update = planner.slot("update", spec.update, (*at, "update"))
    evaluations = [
        _plan_evaluation(planner, spec, rollout, evaluation, (*at, "evaluate", i))
        for i, evaluation in enumerate(spec.evaluate)
    ]
    _check_names(planner, spec.evaluate, at)
    _check_best(planner, spec, [e for e in evaluations if e], at)
    head = planner.slot("model", spec.model.head, (*at, "model", "head"))
    if head and not issubclass(head.cls, Head):
        planner.say((*at, "model", "head"), f"'{head.instance}' is no head")
    elif head and issubclass(head.cls, Head) and head.cls.reads not in sides:
        planner.say((*at, "model", "head"), _missing(head.cls.reads, head))
    adapter = planner.slot("model", spec.model.adapter or experiment.model.adapter, (*at, "model", "adapter"))
    if adapter and not issubclass(adapter.cls, Adapter):
        planner.say((*at, "model", "adapter"), f"'{adapter.instance}' is no adapter")
    start = _start(planner, spec.model, at, experiment, before)
    origin = next((phase for phase in before if phase.spec.name == start), None)
    if origin and origin.adapter and not adapter:
        planner.say(
            (*at, "model"),
            f"phase '{spec.name}' starts from '{start}', which trained the adapter '{origin.adapter.instance}', but names none; "
            "name it again under model.adapter",
        )
    if rollout is None:
        return None
    planned = PlannedPhase(
        spec,
        rollout,
        rewards,
        wraps,
        advantage,
        update,
        feedback,
        tuple(e for e in evaluations if e),
        start,
        head,
        adapter,
    )
    every = [*planned.slots, *(slot for e in planned.evaluations for slot in (e.rollout, *e.rewards))]
    for slot in every:
        for key, name in marked(slot.config, "phase").items():
            if name not in [phase.spec.name for phase in before]:
                earlier = ", ".join(phase.spec.name for phase in before) or "none"
                planner.say(
                    (*slot.path, key), f"{slot.instance}.{key}: no earlier phase '{name}'; there are: {earlier}"
                )
        for key, name in marked(slot.config, "data").items():
            _check_data(planner, name, (*slot.path, key))
    if origin and origin.adapter and adapter:
        _check_same_adapter(planner, spec, origin.adapter, adapter, str(start), at)
    if len(planned.slots) == len([u for u in _uses(spec) if u]):
        _check_fit(planner, planned, at, sides)
        _check_figure(planner, planned, at)
    for evaluation in planned.evaluations:
        _check_evaluation(planner, planned, evaluation, sides)
    _check_named_phases(planner, planned, before)
    return planned


def _uses(spec: Phase) -> list[Use | None]:
    return [spec.rollout, *spec.reward, *spec.wrap, spec.advantage, spec.update, *spec.feedback]


def _start(
    planner: Planner,
    model: ModelSpec,
    at: tuple[str | int, ...],
    experiment: Experiment,
    before: Sequence[PlannedPhase],
) -> str | None:
    names = [phase.spec.name for phase in before]
    if model.build or model.path or model.family:
        planner.say((*at, "model"), "a phase starts from the experiment's model or another phase; use `from:`")
    if model.start is None:
        policies = [p.spec.name for p in before if p.update and not p.head]
        return policies[-1] if policies else None
    if model.start not in names:
        known = [phase.name for phase in experiment.phases]
        why = "comes later" if model.start in known else "does not exist"
        planner.say(
            (*at, "model", "from"),
            f"model.from: phase '{model.start}' {why}{nearest(model.start, names)}; earlier ones: {', '.join(names) or 'none'}",
        )
        return None
    return model.start


def _plan_evaluation(
    planner: Planner, spec: Phase, own: Slot | None, evaluation: Evaluation, at: tuple[str | int, ...]
) -> PlannedEvaluation | None:
    use = evaluation.rollout
    if use is None:
        options = dict(spec.rollout.options)
        if evaluation.prompts:
            key = next((k for k in ("prompts", "path") if k in options), "prompts")
            options[key] = other_split(str(options.get(key, "")), evaluation.prompts)
        use = Use(use=spec.rollout.use, options=options)
    elif evaluation.prompts:
        planner.say((*at, "prompts"), "an evaluation names either `prompts` or a `rollout` of its own, not both")
    rollout = planner.slot("rollout", use, (*at, "rollout") if evaluation.rollout else at)
    rewards = [planner.slot("reward", u, (*at, "reward", i)) for i, u in enumerate(evaluation.reward)]
    figures = [u.instance for u in evaluation.reward]
    for i, name in enumerate(figures):
        if name in figures[:i]:
            planner.say((*at, "reward", i), f"'{name}' stands twice under reward; give one a `name`")
    if rollout is None or own is None:
        return None
    return PlannedEvaluation(evaluation, rollout, tuple(slot for slot in rewards if slot))
