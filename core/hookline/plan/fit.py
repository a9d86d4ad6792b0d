"""Laws about the components of a phase: another component must give what one needs, and only one may make a claim."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hookline.batch.stages import Advantaged, Scored
from hookline.contract.family import SIDES
from hookline.contract.kinds import KINDS
from hookline.errors import ExperimentError, nearest
from hookline.plan.plan import Plan, PlannedPhase
from hookline.plan.slots import Problem
from hookline.registry.slot import Slot

__all__ = ["FIT", "missing", "of_a_phase"]


def of_complete_phases(law: Callable[[PlannedPhase], Iterator[Problem]]) -> Callable[[Plan], Iterator[Problem]]:
    """A law about one phase as a law about a plan; phases with a component that was not found are skipped."""

    def of_plan(plan: Plan) -> Iterator[Problem]:
        for phase in plan.phases:
            if phase.complete:
                yield from law(phase)

    return of_plan


def pays(phase: PlannedPhase) -> bool:
    """Whether rows get a reward: a component gives one, or the rollout reads recorded rewards."""
    recorded = {"recorded_B", "recorded_BT"}
    return bool(phase.rewards) or any(recorded & slot.gives for slot in phase.rollout.every())


def stages_are_reached(phase: PlannedPhase) -> Iterator[Problem]:
    """A wrapper wraps a hook that some component answers, and an update gets the stage it takes."""
    paid = pays(phase)
    crediting = phase.advantage_by
    if crediting and not paid:
        text = f"'{crediting.instance}' turns rewards into advantages, but phase '{phase.spec.name}' names no reward"
        yield Problem(crediting.path, text)
    runs = {"rollout": True, "score": paid, "advantage": crediting, "update": phase.update}
    for wrap in phase.wraps:
        if not any(runs[hook] for hook in runs if f"hookline_{hook}" in wrap.hooks):
            wrapped = ", ".join(hook for hook in runs if f"hookline_{hook}" in wrap.hooks)
            text = f"'{wrap.instance}' wraps {wrapped}, which no component answers in phase '{phase.spec.name}'"
            yield Problem(wrap.path, text)
    unpaid = next((judge for judge in phase.feedback if not paid and issubclass(judge.cls.takes, Scored)), None)
    if unpaid:
        yield Problem(unpaid.path, f"'{unpaid.instance}' judges by reward; name the `reward` that it reads")
    if phase.update:
        takes, who = phase.update.cls.takes, f"'{phase.update.instance}'"
        if issubclass(takes, Advantaged) and not phase.advantage_by:
            text = f"{who} takes advantages; name an `advantage` (hookline plugins list)"
            yield Problem(phase.update.path, text)
        elif issubclass(takes, Scored) and not paid:
            text = f"{who} takes rewards; name a `reward`, or a rollout that reads recorded ones"
            yield Problem(phase.update.path, text)


_CLAIMS = {
    "kl": "penalise the KL to the reference",
    "value": "provide a critic's value head",
    "correction": "correct for rows from older weights",
}


def claims_differ(phase: PlannedPhase) -> Iterator[Problem]:
    """At most one component of a phase makes each claim."""
    claimed: dict[str, Slot] = {}
    for slot in phase.every:
        for claim in sorted(slot.claims):
            first = claimed.setdefault(claim, slot)
            if first is not slot:
                both = _CLAIMS.get(claim, f"claim {claim!r}")
                text = f"'{slot.instance}' and '{first.instance}' both {both}; keep one of them"
                yield Problem(slot.path, text)


def stale_rows_are_corrected(phase: PlannedPhase) -> Iterator[Problem]:
    """Rows from older weights are corrected, or the update is safe to use with them."""
    given = phase.gives
    if phase.update and "off-policy" in given and not phase.update.cls.off_policy and "correction" not in given:
        stale = next(slot for slot in phase.every if "off-policy" in slot.gives)
        yield Problem(
            phase.update.path,
            f"'{phase.update.instance}' learns on-policy, but '{stale.instance}' gives rows from older weights or another policy; "
            "add a wrapper with importance weights, or name an update that is safe with off-policy rows",
        )


def needs_are_met(phase: PlannedPhase) -> Iterator[Problem]:
    """Another component gives what a component needs; a column is given by a component earlier in the loop."""
    everything = phase.gives
    seen: set[str] = set()
    for top in phase.slots:
        for slot in top.every():
            for need in sorted(slot.needs):
                columns = need.endswith(("_B", "_BT", "_BP"))
                there = seen if columns and not KINDS[top.kind].around else everything
                if need not in there and not of_a_phase(need):
                    yield Problem(slot.path, missing(need, slot, phase))
        seen |= {given for slot in top.every() for given in slot.gives}


def engine_can(plan: Plan) -> Iterator[Problem]:
    """The phase's engine has the abilities that components need to draw: `engine:combine` is met by an engine that gives `combine`."""
    for phase in plan.phases:
        if not phase.of("engine"):
            continue
        engine = phase.engine
        for slot in phase.with_evaluations:
            asked = sorted(need.removeprefix("engine:") for need in slot.needs if need.startswith("engine:"))
            for ability in asked:
                if ability not in engine.gives:
                    can = (
                        f"it gives {', '.join(sorted(engine.gives))}" if engine.gives else "it gives nothing of its own"
                    )
                    err = ExperimentError(
                        f"'{slot.instance}' needs an engine that gives '{ability}', but '{engine.instance}' does not; {can}",
                        "name another `engine` in this phase, e.g. engine: local",
                    )
                    yield Problem(slot.path, err)


def of_a_phase(need: str) -> bool:
    """Whether a need is met by a phase, its model or its engine, rather than by other components of the phase."""
    return need == "feedback" or need in SIDES or need.startswith(("head:", "engine:"))


def missing(need: str, slot: Slot, phase: PlannedPhase, source: Slot | None = None) -> str:
    """The message about a need that no component meets. source: the rollout whose rows lack it; default: the phase's own."""
    source = source or phase.rollout
    rollout = source.instance
    several = f"several answers per prompt, but '{rollout}' reads one; name a rollout that reads comparisons"
    if "behaviour" in source.gives:
        several = f"several samples per prompt, but '{rollout}' gives one; e.g. samples_per_prompt: 4"
    known = {
        "groups": several,
        "pairs": f"comparisons, but '{rollout}' reads none; name a rollout that reads comparisons",
        "behaviour": f"the sampler's log-probs, but '{rollout}' records none; name a rollout that samples",
        "critic": "a critic, but nothing in this phase provides one; name an update that does",
        "greedy": f"a greedy answer to each prompt besides the sampled ones, but '{rollout}' gives none; e.g. greedy: true",
    }
    if need in known:
        return f"'{slot.instance}' needs {known[need]}"
    close = nearest(need, {*known, *phase.gives, *SIDES, "feedback"})
    return f"'{slot.instance}' needs {need!r}, which nothing in phase {phase.spec.name!r} gives{close}"


FIT = (
    *map(of_complete_phases, (stages_are_reached, claims_differ, stale_rows_are_corrected, needs_are_met)),
    engine_can,
)
