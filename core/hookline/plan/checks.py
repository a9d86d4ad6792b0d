"""Laws about a plan: what cannot work together is refused before a model is built."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from hookline.batch.stages import Advantaged, Scored
from hookline.config.experiment import Evaluation, Experiment, Phase
from hookline.contract.family import SIDES, Family
from hookline.contract.fields import marked
from hookline.contract.metrics import CORE_METRICS
from hookline.data import sources
from hookline.errors import DataError, ExperimentError, HooklineError, PluginError, nearest
from hookline.plan.plan import PlannedEvaluation, PlannedPhase
from hookline.plan.slots import Planner
from hookline.registry.slot import Slot
from hookline.world import devices


def _check_names(planner: Planner, evaluations: Sequence[Evaluation], at: tuple[str | int, ...]) -> None:
    names = [e.name for e in evaluations]
    for i, name in enumerate(names):
        if name in names[:i]:
            planner.say((*at, "evaluate", i), f"two evaluations are called '{name}'; give one a `name`")


def _check_folders(planner: Planner, experiment: Experiment) -> None:
    """The model and tokenizer folders, as far as that can be known without reading weights."""
    from hookline.data.tokenizer import Tokenizer
    from hookline.models.folder import check_folder

    spec, path = experiment.tokenizer, experiment.model.path
    try:
        if path:
            check_folder(path)
    except ExperimentError as err:
        planner.fail(err, ("model", "path"))
        return
    try:
        if spec is None or spec.path:
            Tokenizer.file((spec.path if spec else path) or "")
    except (DataError, ExperimentError) as err:
        planner.fail(err, ("tokenizer", "path") if spec else ("model", "path"))


def _check_device(planner: Planner, experiment: Experiment) -> None:
    """Whether the device is there, before a network is built for it."""
    try:
        devices.resolve(experiment.device)
    except ExperimentError as err:
        planner.fail(err, ("device",))


def _check_best(
    planner: Planner, spec: Phase, evaluations: Sequence[PlannedEvaluation], at: Sequence[str | int]
) -> None:
    best = spec.save.best.figure if spec.save.best else ""
    if not best or len(evaluations) < len(spec.evaluate):
        return
    names = [
        f"eval/{'' if e.spec.name == 'heldout' else e.spec.name + '/'}{reward.instance}"
        for e in evaluations
        for reward in e.rewards
    ]
    if best.startswith("eval/") and best not in names:
        planner.say(
            (*at, "save", "best"),
            f"save.best: no evaluation of phase '{spec.name}' gives '{best}'{nearest(best, names)}; "
            f"there are: {', '.join(names) or 'none'}",
        )


def _check_figure(planner: Planner, phase: PlannedPhase, at: Sequence[str | int]) -> None:
    """`save.best` by a figure of the steps themselves: somebody must have declared it."""
    best = phase.spec.save.best.figure if phase.spec.save.best else ""
    if not best or best.startswith("eval/"):
        return
    logged = [*CORE_METRICS, *(metric for slot in phase.slots for metric in slot.metrics)]
    logged = [metric for metric in logged if not metric.timing and not metric.name.startswith("eval/")]
    named = [f"reward/{slot.instance}" for slot in phase.rewards]
    names = [*named, *(metric.name for metric in logged if "*" not in metric.name)]
    patterns = [metric.name for metric in logged if "*" in metric.name and metric.name != "reward/*"]
    if best not in names and not any(fnmatchcase(best, pattern) for pattern in patterns):
        planner.say(
            (*at, "save", "best"),
            f"save.best: nothing in phase '{phase.spec.name}' logs '{best}'{nearest(best, names)}; "
            "name a figure of an evaluation (eval/NAME) or of the steps (reward, kl, …)",
        )


def _check_data(planner: Planner, name: str, path: tuple[str | int, ...]) -> None:
    try:
        sources.exists(name, planner.loose)
    except (DataError, PluginError) as err:
        planner.fail(err, path)


def _check_fit(planner: Planner, phase: PlannedPhase, at: tuple[str | int, ...], sides: frozenset[str]) -> None:
    """Stages and needs: what cannot work together is refused here, by name. sides: what the model's family has."""
    everything = sides.union(*(slot.gives for slot in phase.slots))
    paid = bool(phase.rewards) or bool({"recorded_B", "recorded_BT"} & phase.rollout.gives)
    crediting = phase.advantage_by
    if crediting and not paid:
        planner.say(
            crediting.path,
            f"'{crediting.instance}' turns rewards into advantages, but phase '{phase.spec.name}' names no reward",
        )
    runs = {"rollout": True, "score": paid, "advantage": crediting, "update": phase.update}
    for wrap in phase.wraps:
        if not any(runs[hook] for hook in runs if f"hookline_{hook}" in wrap.hooks):
            wrapped = ", ".join(hook for hook in runs if f"hookline_{hook}" in wrap.hooks)
            planner.say(
                wrap.path, f"'{wrap.instance}' wraps {wrapped}, which nobody answers in phase '{phase.spec.name}'"
            )
    if phase.feedback and not paid:
        planner.say(
            phase.feedback[0].path, f"'{phase.feedback[0].instance}' judges by reward; name the `reward` it sees"
        )
    if phase.update:
        takes = phase.update.cls.takes
        if issubclass(takes, Advantaged) and not phase.advantage_by:
            planner.say(
                phase.update.path,
                f"'{phase.update.instance}' takes advantages; name an `advantage` (hookline plugins list)",
            )
        elif issubclass(takes, Scored) and not paid:
            planner.say(
                phase.update.path,
                f"'{phase.update.instance}' takes rewards; name a `reward`, or a rollout that reads recorded ones",
            )
    claimed: dict[str, Slot] = {}
    for slot in phase.slots:
        for claim in sorted(slot.claims):
            first = claimed.setdefault(claim, slot)
            if first is not slot:
                planner.say(
                    slot.path,
                    f"'{slot.instance}' and '{first.instance}' both {_CLAIMS.get(claim, f'claim {claim!r}')}; keep one of them",
                )
    if (
        phase.update
        and "off-policy" in everything
        and not phase.update.cls.off_policy
        and "correction" not in everything
    ):
        stale = next(slot for slot in phase.slots if "off-policy" in slot.gives)
        planner.say(
            phase.update.path,
            f"'{phase.update.instance}' learns on-policy, but '{stale.instance}' brings rows of older weights or another policy; "
            "wrap it with importance weights, or name an update that is off_policy-safe",
        )
    seen: set[str] = set()
    stages = [phase.rollout, *phase.rewards, *phase.wraps, phase.advantage, phase.update, *phase.feedback]
    for slot in filter(None, stages):
        for need in sorted(slot.needs):
            columns = need.endswith(("_B", "_BT", "_BP"))
            there = seen if columns and slot.kind != "wrapper" else everything
            if need not in there and not _of_a_phase(need):
                planner.say(slot.path, _missing(need, slot, phase))
        seen |= slot.gives


_CLAIMS = {
    "kl": "price the KL to the reference",
    "value": "bring a critic's value head",
    "correction": "correct for rows of older weights",
}


def _check_evaluation(
    planner: Planner, phase: PlannedPhase, evaluation: PlannedEvaluation, sides: frozenset[str]
) -> None:
    """What an evaluation's figures need, its own rollout or the phase's update must give."""
    slots = (evaluation.rollout, *evaluation.rewards)
    gives = sides | evaluation.rollout.gives | (phase.update.gives if phase.update else frozenset())
    for slot in slots:
        for need in sorted(set(slot.needs) - gives):
            if not _of_a_phase(need):
                planner.say(slot.path, _missing(need, slot, phase, evaluation.rollout))


def _of_a_phase(need: str) -> bool:
    return need == "feedback" or need.startswith("head:")


def _check_named_phases(planner: Planner, phase: PlannedPhase, before: Sequence[PlannedPhase]) -> None:
    """Needs that are asked of the phase a config names: a head it trains, feedback it collected."""
    for slot in (*phase.slots, *(s for e in phase.evaluations for s in (e.rollout, *e.rewards))):
        named = marked(slot.config, "phase").values()
        asked = [p for p in before if p.spec.name in named] if named else [phase]
        for need, other in ((need, other) for need in sorted(slot.needs) for other in asked):
            head, who = need.removeprefix("head:"), f"'{slot.instance}'"
            heads = {g for s in other.slots for g in s.gives} | {f"head:{other.head.instance if other.head else ''}"}
            if need == "feedback" and not other.feedback:
                planner.say(
                    slot.path,
                    f"{who} reads what phase '{other.spec.name}' collected, but it collects nothing; "
                    "name a phase that has a `feedback`",
                )
            if need.startswith("head:") and need not in heads:
                where = "name a phase that trains one" if named else "add it to this phase"
                planner.say(
                    slot.path,
                    f"{who} reads a head '{head}', but the model of phase '{other.spec.name}' has none; "
                    f"{where}: model: {{head: {head}}}",
                )


def _check_same_adapter(
    planner: Planner, spec: Phase, trained: Slot, adapter: Slot, start: str, at: Sequence[str | int]
) -> None:
    """An adapter that goes on is the one that was trained, with the same options."""
    before, now = trained.config.model_dump(), adapter.config.model_dump()
    other = trained.offer != adapter.offer
    changed = [f"{key} {before[key]} → {now.get(key)}" for key in before if before[key] != now.get(key)]
    if other or changed:
        what = f"'{adapter.instance}'" if other else f"'{adapter.instance}' with {', '.join(changed)}"
        planner.say(
            (*at, "model", "adapter") if spec.model.adapter else (*at, "model"),
            f"phase '{spec.name}' starts from '{start}', which trained the adapter '{trained.instance}', but names {what}; "
            "an adapter goes on with the options it was trained with",
        )


def _check_model(
    planner: Planner,
    experiment: Experiment,
    architecture: Slot | None,
    phases: Sequence[PlannedPhase],
    family: Family,
) -> None:
    """Whether rollouts fit into the model's positions, and adapters onto its layers, before any weight exists."""
    from hookline.models.folder import positions
    from hookline.models.load import check_adapter

    path = experiment.model.path
    most = positions(architecture, path)
    for slot in (s for p in phases for s in (p.rollout, *(e.rollout for e in p.evaluations))):
        needed = slot.positions
        if most is not None and needed > most:
            asked = [f"{k} is {v}" for k, v in slot.config if type(v) is int and needed - 1 <= v <= needed]
            why = ": " + ", ".join(asked) if asked else ""
            err = ExperimentError(
                f"'{slot.instance}' needs {needed} positions, one token of the prompt among them{why}; "
                f"the model has {most} positions",
                "ask for fewer tokens, or build a longer context",
            )
            planner.fail(err, slot.path)
    tried: list[Slot] = []
    for adapter in (phase.adapter for phase in phases if phase.adapter):
        if any(adapter.config == other.config and adapter.offer == other.offer for other in tried):
            continue
        tried.append(adapter)
        try:
            check_adapter(architecture, path, adapter, family)
        except HooklineError as err:
            planner.fail(err, adapter.path)


def _missing(need: str, slot: Slot, phase: PlannedPhase | None = None, source: Slot | None = None) -> str:
    """source: the rollout whose rows lack it; the phase's own unless given. phase: None for a side of the model."""
    if need in SIDES or phase is None:
        return f"'{slot.instance}' needs {SIDES[need]} ('{need}'), which the experiment's model does not have; see model.family"
    source = source or phase.rollout
    rollout = source.instance
    several = f"several answers per prompt, but '{rollout}' reads one; name a rollout that reads comparisons"
    if "behaviour" in source.gives:
        several = f"several samples per prompt, but '{rollout}' gives one; e.g. samples_per_prompt: 4"
    known: dict[str, Any] = {
        "groups": several,
        "pairs": f"comparisons, but '{rollout}' reads none; name a rollout that does",
        "behaviour": f"the sampler's log-probs, but '{rollout}' records none; name a rollout that samples",
        "critic": "a critic, but nothing in this phase brings one; name an update that does",
        "greedy": f"the likeliest answer to each prompt beside the sampled ones, but '{rollout}' brings none; e.g. greedy: true",
    }
    return f"'{slot.instance}' needs {known.get(need, f'{need!r}, which nothing in phase {phase.spec.name!r} gives')}"
