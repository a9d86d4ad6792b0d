"""From an experiment file to a plan: every component found, imported, configured and constructed, then checked.

Nothing here builds a model, and data is only checked for existence. Every mistake that can be found early is therefore
reported before the first weight is loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from hookline.config.automatic import settled
from hookline.config.experiment import Evaluation, Experiment, ModelSpec, Phase
from hookline.config.yaml import Document
from hookline.contract.component import Component
from hookline.contract.family import Family
from hookline.contract.fields import Use, marked
from hookline.contract.kinds import KINDS, of_phase
from hookline.contract.model import Adapter, Architecture, Head
from hookline.data.names import is_task, other_split
from hookline.data.sources import Catalogue
from hookline.errors import DataError, ExperimentError, PluginError
from hookline.plan.checks import LAWS
from hookline.plan.passes import in_steps
from hookline.plan.plan import Place, Plan, PlannedEvaluation, PlannedPhase
from hookline.plan.rates import Rates, rates_of
from hookline.plan.slots import Planner, Problem
from hookline.registry import offers
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot
from hookline.world import devices

__all__ = ["make_plan", "other_problems"]


def make_plan(
    experiment: Experiment,
    document: Document,
    plugins: Sequence[str | Offer] = (),
    begun: Mapping[str, Any] | None = None,
    *,
    ended: Sequence[str] | None = None,
    kept: str = "",
) -> Plan:
    """Resolve every name. Raises one error that lists every problem, each with line and hint.

    plugins: loose files and installed names to make available, or offers made by the caller, as the test harness does.
    begun: the resolved experiment of the run that is resumed, if any. ended: for a run that is only read, the kinds of
    components that are needed; what its start has checked, e.g. that data and the base model exist, is not asked again.
    kept: the folder of the run's copies of files that functions are in.
    """
    experiment, chosen = settled(experiment, begun)
    planner = Planner(document, _loose([*experiment.plugins, *plugins]), experiment.folder, kept, ended is not None)
    if ended is not None:
        planner.only = frozenset(ended)
    architecture = planner.slot("model", experiment.model.build, _build_path(document), base=Architecture)
    family = planner.slot("model", experiment.model.family, ("model", "family"), base=Family)
    phases: list[PlannedPhase] = []
    for index, spec in enumerate(experiment.phases):
        rates = rates_of(experiment, spec, begun if ended is None else experiment.resolved())
        planned = _plan_phase(planner, experiment, spec, ("phases", index), phases, rates)
        if planned and ended is None:
            planned = _counted(planner, experiment, planned, begun)
        if planned:
            phases.append(planned)
    trackers = [planner.slot("tracker", use, ("trackers", i)) for i, use in enumerate(experiment.trackers)]
    if len(phases) == len(experiment.phases):
        experiment = experiment.model_copy(update={"phases": tuple(phase.spec for phase in phases)})
    plan = Plan(
        experiment,
        tuple(phases),
        architecture,
        tuple(t for t in trackers if t),
        planner.loose,
        family,
        tuple(filter(None, (*document.notes, *chosen, devices.note(experiment.device), *_not_held_out(phases)))),
    )
    for law in LAWS if ended is None else ():
        planner.hold(law(plan))
    planner.finish()
    return plan


def _not_held_out(phases: Sequence[PlannedPhase]) -> Iterator[str]:
    """A note about each evaluation that reads the very data that its phase is trained on, unless its rollout has splits of its own."""
    for phase in phases:
        own = set(marked(phase.rollout.config, "data").values()) if phase.update else set()
        for each in phase.evaluations:
            if each.rollout.cls.reads_row is not Component.reads_row:
                continue  # when the phase begins, the rows themselves are compared
            for name in own & set(marked(each.rollout.config, "data").values()):
                if not is_task(name):
                    yield (
                        f"evaluation '{each.spec.name}' of phase '{phase.spec.name}' reads {name}, on which the phase is trained; "
                        "a share of the rows can be held out: data: {…: {path: …, heldout: 0.05}}"
                    )


def _loose(plugins: Sequence[str | Offer]) -> tuple[Offer, ...]:
    found = [plugin for plugin in plugins if isinstance(plugin, Offer)]
    references = [plugin for plugin in plugins if not isinstance(plugin, Offer)]
    found += offers.loose_of(references)
    for reference in references:
        if not offers.is_loose(reference) and not any(reference in (o.name, o.distribution) for o in offers.offers()):
            raise PluginError(
                f"-p {reference}: no plugin of that name is installed",
                "give the path of a file, or a name that hookline plugins list shows",
            )
    files = {offer.path: offer.path.rpartition("/")[2] for offer in found}
    if len(set(files.values())) < len(files):
        raise PluginError(
            f"two loose files have the same name: {', '.join(sorted(files))}", "rename one: a run stores both"
        )
    return tuple(found)


def _plan_phase(
    planner: Planner, experiment: Experiment, spec: Phase, at: Place, before: Sequence[PlannedPhase], rates: Rates
) -> PlannedPhase | None:
    named = {}
    for kind in of_phase():
        paths = [(*at, kind.section, *((i,) if kind.many else ())) for i in range(len(spec.uses(kind.name)))]
        slots = [planner.slot(kind.name, use, path, settle=rates.settle) for use, path in zip(spec.uses(kind.name), paths)]
        named[kind.name] = tuple(slot for slot in slots if slot)
    update, said = next(iter(named["update"]), None), ""
    if update:
        [use] = spec.uses("update")
        said = rates.said(use, update.config)
        spec = spec.model_copy(update={KINDS["update"].section: rates.written(use, update.config)})
    evaluations = [
        _plan_evaluation(planner, experiment, spec, each, (*at, "evaluate", i), update)
        for i, each in enumerate(spec.evaluate)
    ]
    head = planner.slot("model", spec.model.head, (*at, "model", "head"), base=Head)
    adapter = spec.model.adapter or experiment.model.adapter
    holder = (*at, "model") if spec.model.adapter else ("model",)
    adapter_slot = planner.slot("model", adapter, _adapter_path(planner.document, holder), base=Adapter)
    if not named["rollout"] and "rollout" in planner.only:
        return None
    return PlannedPhase(
        spec,
        named,
        tuple(e for e in evaluations if e),
        _start(spec.model, before),
        head,
        adapter_slot,
        at,
        tuple(phase.spec.name for phase in before),
        rates=said,
    )


def _counted(
    planner: Planner, experiment: Experiment, phase: PlannedPhase, begun: Mapping[str, Any] | None
) -> PlannedPhase:
    """The phase with as many steps as its epochs are."""
    steps, said = phase.spec.steps or 1, ""
    try:
        if phase.of("rollout"):
            catalogue = Catalogue(planner.loose, experiment.data, experiment.folder)
            steps, said = in_steps(experiment, phase.spec, phase.rollout, catalogue, begun)
    except ExperimentError as err:
        planner.say(Problem((*phase.at, "epochs"), err))
    except (DataError, PluginError) as err:
        key = next(iter(marked(phase.rollout.config, "data")), "")
        planner.say(Problem((*phase.rollout.path, key), err))
    return replace(phase, spec=phase.spec.model_copy(update={"steps": steps}), length=said)


def _start(model: ModelSpec, before: Sequence[PlannedPhase]) -> str | None:
    """The phase whose policy a phase starts from: the one it names, else the last one that trained the policy."""
    if model.start is not None:
        return model.start if model.start in [phase.spec.name for phase in before] else None
    return next((p.spec.name for p in reversed(before) if p.update and not p.head), None)


def _plan_evaluation(
    planner: Planner, experiment: Experiment, spec: Phase, evaluation: Evaluation, at: Place, update: Slot | None
) -> PlannedEvaluation | None:
    [own] = spec.uses("rollout")
    use = evaluation.rollout
    if use is None:
        options = dict(own.options)
        if evaluation.prompts:
            key = next((k for k in ("prompts", "path") if k in options), "prompts")
            options[key] = other_split(str(options.get(key, "")), evaluation.prompts, experiment.data)
        use = Use(use=own.use, options=options)
    label = f"evaluate/{evaluation.name}"
    path = (*at, "rollout") if evaluation.rollout else at
    rollout = planner.slot("rollout", use, path, f"{label}/rollout/{use.instance}")
    rewards = [
        planner.slot("reward", u, (*at, "reward", i), f"{label}/reward/{u.instance}")
        for i, u in enumerate(evaluation.reward)
    ]
    asked = update if update and not evaluation.reward and update.cls.held_out is not Component.held_out else None
    return PlannedEvaluation(evaluation, rollout, tuple(slot for slot in rewards if slot), at, asked) if rollout else None


def _build_path(document: Document) -> Place:
    """The place of the architecture's options: beside `build: NAME`, or inside `build: {use: NAME, …}`."""
    model = document.values.get("model")
    beside = isinstance(model, dict) and isinstance(model.get("build"), str)
    return ("model",) if beside else ("model", "build")


def _adapter_path(document: Document, model: Place) -> Place:
    """The place of an adapter's options: in `adapter: {use: NAME, …}`, or inside `adapter: {NAME: {…}}`."""
    place: Any = document.values
    for key in model:
        place = place[key]
    named = place.get("adapter")
    return (*model, "adapter", *(named if isinstance(named, dict) and len(named) == 1 and "use" not in named else ()))


def other_problems(document: Document, plugins: Sequence[str] = ()) -> list[str]:
    """What is wrong with the components that a file names, for a file whose own errors rule out a plan."""
    own = document.values.get("plugins") or []
    own = [own] if isinstance(own, str) else own if isinstance(own, list) else []
    try:
        planner = Planner(document, _loose([*(str(item) for item in own), *plugins]), document.folder)
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
        for kind in of_phase():
            look(kind.name, phase, "phases", i, kind.section)
        evaluations = phase.get("evaluate") if isinstance(phase, dict) else None
        for j, evaluation in enumerate(evaluations if isinstance(evaluations, list) else []):
            look("reward", evaluation, "phases", i, "evaluate", j, "reward")
    look("tracker", document.values, KINDS["tracker"].section)
    with contextlib.suppress(ValidationError):
        model = ModelSpec.model_validate(document.values.get("model"))
        planner.slot("model", model.build, _build_path(document))
        planner.slot("model", model.adapter, _adapter_path(document, ("model",)))
    return planner.problems
