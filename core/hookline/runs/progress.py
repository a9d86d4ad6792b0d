"""Whether a phase learns anything, and, where it does not, the reason in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline.errors import HooklineError, NumbersError, ServiceError
from hookline.plan.plan import PlannedPhase

__all__ = ["nothing_learned"]


def nothing_learned(phase: PlannedPhase, rows: Sequence[Mapping[str, Any]], failed: str) -> HooklineError:
    """The error of a phase in which no optimiser step followed a gradient.

    rows: the figures of its steps so far. failed: the first failure of a service, or empty.
    """
    name, steps = phase.spec.name, len(rows)
    assert phase.update is not None
    update = phase.update.instance

    def total(figure: str) -> float:
        return sum(float(row.get(figure, 0.0)) for row in rows)

    head = f"nothing was learned in {'the only step' if steps == 1 else f'{steps} steps'} of phase '{name}'"
    if not total("rows") and total("unjudged"):
        if failed:
            return ServiceError(f"{head}, because no row was judged; the first failure is of {failed}", "check the service")
        return NumbersError(f"{head}, because no row was judged", "check the reward's ok_B on a few answers")
    if not total("rows"):
        return NumbersError(f"{head}, because no row reached the update", "check the rollout, and what filters its rows")
    if not total("tokens"):
        return NumbersError(
            f"{head}, because mask_BT was false for every token", "the mask is true where the policy chose the token"
        )
    if not total("optimiser_steps"):
        return NumbersError(f"{head}, because '{update}' took no optimiser step", "call ctx.train in hookline_update")
    if not any(row.get("learning_rate", 0.0) for row in rows):
        return NumbersError(f"{head}, because the learning rate of '{update}' was 0", "raise lr")
    why = f"{head}, because every gradient of '{update}' was 0"
    compares = phase.rewards and {"groups", "pairs"} & phase.update.needs
    if compares and not any("equal_groups" in row for row in rows):
        dropped = total("unjudged")
        return NumbersError(
            f"{why}: no group had two {'judged ' if dropped else ''}rows, and '{update}' compares the answers to one prompt",
            "draw more answers per prompt, or let more of them be judged"
            if dropped
            else "draw several answers per prompt, and give them one group",
        )
    if rows and all(row.get("reward_std", 1.0) == 0 for row in rows):
        return NumbersError(f"{why}, and every reward was equal", "check the reward and a few answers")
    return NumbersError(why, f"check what '{update}' multiplies its log-probs with, e.g. the advantages")
