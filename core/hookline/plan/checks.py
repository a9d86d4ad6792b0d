"""Laws about a plan: wrong names, missing things and impossible combinations, reported before a model is built.

A law examines a whole plan and yields every problem. A plan with problems may lack components that were not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase

from hookline.config import rounds
from hookline.config.experiment import Phase
from hookline.contract.component import Component
from hookline.contract.family import SIDES
from hookline.contract.fields import marked
from hookline.contract.kinds import of_phase
from hookline.contract.metrics import CORE_METRICS, figure_name
from hookline.errors import DataError, ExperimentError, HooklineError, PluginError, nearest
from hookline.models.load import family_of
from hookline.plan.code import kept_files_differ_in_name, rows_have_the_columns
from hookline.plan.fit import FIT, missing, of_a_phase
from hookline.plan.networks import (
    folders_hold_what_they_should,
    model_is_large_enough,
    networks_compute_as_asked,
    reward_models_stay_reward_models,
)
from hookline.plan.plan import Place, Plan, PlannedPhase
from hookline.plan.slots import Problem
from hookline.registry.blame import blame
from hookline.registry.slot import Slot
from hookline.tokens.encode import Encoding
from hookline.tokens.peek import stand_in
from hookline.world import devices

__all__ = ["LAWS"]

Law = Callable[[Plan], Iterator[Problem]]


def device_is_there(plan: Plan) -> Iterator[Problem]:
    """The device that the experiment names exists; checked before a network is built for it."""
    try:
        devices.resolve(plan.experiment.device)
    except ExperimentError as err:
        yield Problem(("device",), err)


def model_has_the_sides(plan: Plan) -> Iterator[Problem]:
    """The model's family has what components need from it by name: `decodes`, or a state that a head reads."""
    has = family_of(plan.family).sides
    for phase in plan.phases:
        asked = [(slot, need) for slot in phase.with_evaluations for need in sorted(slot.needs & SIDES.keys())]
        if phase.head:
            asked.append((phase.head, getattr(phase.head.cls, "reads", "before")))
        for slot, need in asked:
            if need not in has:
                text = (
                    f"'{slot.instance}' needs {SIDES[need]} ('{need}'), which the experiment's model does not have; "
                    "see model.family"
                )
                yield Problem(slot.path, text)


def data_exists(plan: Plan) -> Iterator[Problem]:
    """All data that the experiment names exists: the tokenizer's texts, and what components read."""
    for path, name in plan.data():
        try:
            plan.catalogue.exists(name)
        except (DataError, PluginError) as err:
            yield Problem(path, err)


def first_rows_can_be_used(plan: Plan) -> Iterator[Problem]:
    """Components can read the first rows of their data; further rows are read when the run starts."""
    for slot in plan.every():
        names = marked(slot.config, "data") if slot.cls.read_row is not Component.read_row else {}
        for key, name in names.items():
            try:
                _read_first(plan, slot, name)
            except (DataError, PluginError) as err:
                yield Problem((*slot.path, key), err)


def _read_first(plan: Plan, slot: Slot, name: str) -> None:
    """Read the first rows of a data name as a component's `setup` would."""
    rows = plan.catalogue.first(name)
    try:
        tokenizer = stand_in(plan.experiment.tokenizer, plan.experiment.model.path, [record for _, record in rows])
        reader = slot.component
    except HooklineError:
        return  # other laws report what is wrong with the tokenizer or the component
    with blame(slot, "read_row"):
        used = [reader.read_row(Encoding(tokenizer), record, where) for where, record in rows]
    if rows and all(row is None for row in used):
        has = f"they have: {', '.join(rows[0][1])}; to read a column of another name, see `columns` in docs/data.md"
        raise DataError(f"'{slot.instance}' can use none of the first {len(rows)} rows of {name}", has)


def names_differ(plan: Plan) -> Iterator[Problem]:
    """The components of a list have different names, and so do the evaluations of a phase."""
    for spec, at in phases_of(plan):
        for kind in of_phase():
            if kind.many:
                names = [use.instance for use in spec.uses(kind.name)]
                yield from _twice(names, (*at, kind.section), kind.section)
        for i, evaluation in enumerate(spec.evaluate):
            names = [use.instance for use in evaluation.reward]
            yield from _twice(names, (*at, "evaluate", i, "reward"), "reward")
        names = [evaluation.name for evaluation in spec.evaluate]
        for i in _repeated(names):
            yield Problem((*at, "evaluate", i), f"two evaluations are called '{names[i]}'; give one a `name`")


def _twice(names: Sequence[str], at: Place, key: str) -> Iterator[Problem]:
    for i in _repeated(names):
        yield Problem((*at, i), f"'{names[i]}' appears twice under {key}; give one a `name`")


def _repeated(names: Sequence[str]) -> list[int]:
    return [i for i, name in enumerate(names) if name in names[:i]]


def evaluations_say_one_source(plan: Plan) -> Iterator[Problem]:
    for spec, at in phases_of(plan):
        for i, evaluation in enumerate(spec.evaluate):
            if evaluation.rollout and evaluation.prompts:
                text = "an evaluation names either `prompts` or a `rollout` of its own, not both"
                yield Problem((*at, "evaluate", i, "prompts"), text)


def figures_are_logged(plan: Plan) -> Iterator[Problem]:
    """`save.best` and `stop` name a figure that an evaluation gives, or that a component declares for the steps themselves."""
    for phase in plan.phases:
        for place, said in ((("save", "best"), phase.spec.save.best), (("stop",), phase.spec.stop)):
            if said:
                yield from _figure_is_logged(phase, said.figure, place)


def _figure_is_logged(phase: PlannedPhase, best: str, place: Place) -> Iterator[Problem]:
    at, key = (*phase.at, *place), ".".join(map(str, place))
    if best.startswith("eval/"):
        names = [figure_name(e.spec.name, figure) for e in phase.evaluations for figure in e.figures]
        whole = all(len(e.rewards) == len(e.spec.reward) for e in phase.evaluations)
        if best not in names and whole and len(phase.evaluations) == len(phase.spec.evaluate):
            yield Problem(
                at,
                f"{key}: no evaluation of phase '{phase.spec.name}' gives '{best}'{nearest(best, names)}; "
                f"there are: {', '.join(names) or 'none'}",
            )
    elif best and phase.complete and not _logs(phase, best):
        yield Problem(
            at,
            f"{key}: nothing in phase '{phase.spec.name}' logs '{best}'{nearest(best, _step_figures(phase))}; "
            "name a figure of an evaluation (eval/NAME) or of the steps (reward, kl, …)",
        )


def _logs(phase: PlannedPhase, figure: str) -> bool:
    patterns = [name for name in _declared(phase) if "*" in name and name != "reward/*"]
    return figure in _step_figures(phase) or any(fnmatchcase(figure, pattern) for pattern in patterns)


def _step_figures(phase: PlannedPhase) -> list[str]:
    named = [f"reward/{slot.instance}" for slot in phase.rewards]
    return [*named, *(name for name in _declared(phase) if "*" not in name)]


def _declared(phase: PlannedPhase) -> list[str]:
    logged = [*CORE_METRICS, *(metric for slot in phase.every for metric in slot.metrics)]
    return [metric.name for metric in logged if not metric.timing and not metric.name.startswith("eval/")]


def phases_start_from_earlier_ones(plan: Plan) -> Iterator[Problem]:
    """`model.from` names an earlier phase, and a phase names no model of its own."""
    names: list[str] = []
    for spec, at in phases_of(plan):
        model, start = spec.model, spec.model.start
        if model.build or model.path or model.family or model.merge:
            text = "a phase starts from the experiment's model or another phase; use `from:`"
            yield Problem((*at, "model"), text)
        if start is not None and start not in names:
            later = rounds.latest(start, [phase.name for phase in plan.experiment.phases])
            earlier = ", ".join(names) or "none"
            why = f"{'comes later' if later else 'does not exist'}{nearest(start, names)}; earlier ones: {earlier}"
            if later and later != start:
                why += f"; say where round 1 starts from: {{from: {start}, first: PHASE}}"
            yield Problem((*at, "model", "from"), f"model.from: phase '{start}' {why}")
        names.append(spec.name)


def adapters_go_on(plan: Plan) -> Iterator[Problem]:
    """A phase that starts from one with an adapter names the same adapter with the same options."""
    for phase in plan.phases:
        origin = next((other for other in plan.phases if other.spec.name == phase.start), None)
        trained, adapter = origin.adapter if origin else None, phase.adapter
        if trained is None:
            continue
        says = f"phase '{phase.spec.name}' starts from '{phase.start}', which trained the adapter '{trained.instance}'"
        if adapter is None:
            if phase.spec.model.adapter is None and plan.experiment.model.adapter is None:
                text = f"{says}, but has no adapter; name the adapter again under model.adapter"
                yield Problem((*phase.at, "model"), text)
            continue
        before, now = trained.config.model_dump(), adapter.config.model_dump()
        other = trained.offer != adapter.offer
        changed = [f"{key} {before[key]} → {now.get(key)}" for key in before if before[key] != now.get(key)]
        if other or changed:
            what = f"'{adapter.instance}'" if other else f"'{adapter.instance}' with {', '.join(changed)}"
            yield Problem(
                (*phase.at, "model", "adapter") if phase.spec.model.adapter else (*phase.at, "model"),
                f"{says}, but names {what}; an adapter continues with the options it was trained with",
            )


def configs_name_earlier_phases(plan: Plan) -> Iterator[Problem]:
    """A `PhaseName` in a config names an earlier phase, and that phase has what the component needs."""
    for number, phase in enumerate(plan.phases):
        before = plan.phases[:number]
        names = [spec.name for spec, at in phases_of(plan) if at < phase.at]
        for slot in phase.with_evaluations:
            named = marked(slot.config, "phase")
            for key, name in named.items():
                if rounds.latest(name, names) is None:
                    text = f"{slot.instance}.{key}: no earlier phase '{name}'; there are: {', '.join(names) or 'none'}"
                    yield Problem((*slot.path, key), text)
            meant = {other for name in named.values() for other in rounds.every(name, names)}
            asked = [other for other in before if other.spec.name in meant] if named else [phase]
            asked = [other for other in asked if other.whole]  # of the others, what was wrong is said already
            for need, other in ((need, other) for need in sorted(slot.needs) for other in asked):
                yield from _asked_of_phase(slot, need, other, bool(named))


def _asked_of_phase(slot: Slot, need: str, other: PlannedPhase, named: bool) -> Iterator[Problem]:
    """What a component needs from a phase: a head that the phase trains, or feedback that the phase collects."""
    who, head = f"'{slot.instance}'", need.removeprefix("head:")
    heads = {given for s in other.every for given in s.gives}
    heads |= {f"head:{other.head.instance}"} if other.head else set()
    if need == "feedback" and not other.feedback:
        yield Problem(
            slot.path,
            f"{who} reads the feedback of phase '{other.spec.name}', but that phase collects none; "
            "name a phase that has a `feedback`",
        )
    if need.startswith("head:") and need not in heads:
        update = other.update
        own = update is not None and update.cls.held_out is not Component.held_out and update.instance
        if own and not named and "evaluate" in slot.path:
            hint = f"leave out `reward` in this evaluation, which then gives the figures of '{own}', e.g. its loss"
        else:
            hint = f"{'name a phase that trains one' if named else 'add it to this phase'}: model: {{head: {head}}}"
        yield Problem(
            slot.path, f"{who} reads a head '{head}', but the model of phase '{other.spec.name}' has none; {hint}"
        )


def evaluations_have_what_they_need(plan: Plan) -> Iterator[Problem]:
    """The evaluation's own rollout or the phase's update gives what the evaluation's figures need."""
    for phase in plan.phases:
        for evaluation in phase.evaluations:
            gives = {g for top in (evaluation.rollout, phase.update) if top for slot in top.every() for g in slot.gives}
            for slot in evaluation.every:
                for need in sorted(slot.needs - gives):
                    if not of_a_phase(need):
                        yield Problem(slot.path, missing(need, slot, phase, evaluation.rollout))


def phases_of(plan: Plan) -> Iterator[tuple[Phase, Place]]:
    """Every phase of the experiment, whether or not its components were found, and its place."""
    for index, spec in enumerate(plan.experiment.phases):
        yield spec, ("phases", index)


LAWS: tuple[Law, ...] = (
    device_is_there,
    folders_hold_what_they_should,
    reward_models_stay_reward_models,
    names_differ,
    kept_files_differ_in_name,
    evaluations_say_one_source,
    figures_are_logged,
    phases_start_from_earlier_ones,
    adapters_go_on,
    data_exists,
    first_rows_can_be_used,
    rows_have_the_columns,
    *FIT,
    evaluations_have_what_they_need,
    configs_name_earlier_phases,
    model_has_the_sides,
    model_is_large_enough,
    networks_compute_as_asked,
)
