"""Whether a phase learns anything, and, where it does not, the reason in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline.contract.fields import UpdateConfig
from hookline.errors import HooklineError, NumbersError, ServiceError
from hookline.plan.plan import PlannedPhase

__all__ = ["nothing_learned", "nothing_to_train", "unanswered"]


def unanswered(phase: PlannedPhase, rows: Sequence[Mapping[str, Any]], failed: str) -> ServiceError | None:
    """The error of a phase in which a service left every row without an answer; None if a row was judged.

    rows: the figures of its steps so far. failed: the first failure of a service, or empty.
    """
    if not failed or not _total(rows, "unjudged") or _total(rows, "rows"):
        return None
    return ServiceError(
        f"{_head(phase, rows)}, because no row was judged; the first failure is of {failed}", "check the service"
    )


def nothing_learned(phase: PlannedPhase, rows: Sequence[Mapping[str, Any]], failed: str) -> HooklineError:
    """The error of a phase in which no optimiser step followed a gradient.

    rows: the figures of its steps so far. failed: the first failure of a service, or empty.
    """
    assert phase.update is not None
    update, head = phase.update.instance, _head(phase, rows)
    if service := unanswered(phase, rows, failed):
        return service
    if not _total(rows, "rows") and _total(rows, "unjudged"):
        return NumbersError(f"{head}, because no row was judged", "check the reward's ok_B on a few answers")
    if not _total(rows, "rows"):
        return NumbersError(
            f"{head}, because no row reached the update", "check the rollout, and what filters its rows"
        )
    if not _total(rows, "tokens"):
        return NumbersError(
            f"{head}, because mask_BT was false for every token", "the mask is true where the policy chose the token"
        )
    compares = bool(phase.rewards) and bool({"groups", "pairs"} & phase.update.needs)
    alike = _alike(rows)
    if not _total(rows, "optimiser_steps"):
        if compares and alike:  # an update may leave out such groups
            return NumbersError(f"{head}, because {alike}", "check the reward and a few answers")
        return NumbersError(f"{head}, because '{update}' took no optimiser step", "call ctx.train in hookline_update")
    if not any(row.get("learning_rate", 0.0) for row in rows):
        return NumbersError(f"{head}, because the learning rate of '{update}' was 0", "raise lr")
    if any(row.get("grad_norm", 0.0) and row.get("learning_rate", 0.0) for row in rows):
        rate = max(row.get("learning_rate", 0.0) for row in rows)
        return NumbersError(f"{head}, because no weight changed at a learning rate of {rate:g}", "raise lr")
    why = f"{head}, because every gradient of '{update}' was 0"
    if compares and not any("equal_groups" in row for row in rows):
        dropped = _total(rows, "unjudged")
        return NumbersError(
            f"{why}: no group had two {'judged ' if dropped else ''}rows, and '{update}' compares the answers to one prompt",
            "draw more answers per prompt, or let more of them be judged"
            if dropped
            else "draw several answers per prompt, and give them one group",
        )
    if alike:
        return NumbersError(f"{why}, and {alike}", "check the reward and a few answers")
    return NumbersError(why, f"check what '{update}' multiplies its log-probs with, e.g. the advantages")


def nothing_to_train(phase: PlannedPhase, rows: Sequence[Mapping[str, Any]]) -> str:
    """The notice for the end of a phase that had no rows, or whose update cannot train; empty for others.

    rows: the figures of its steps.
    """
    name, update = phase.spec.name, phase.update
    if rows and not _total(rows, "rows"):
        judged = "judged rows in none" if _total(rows, "unjudged") else "no rows in any"
        return f"phase '{name}' had {judged} of its {len(rows)} steps"
    if update and not isinstance(update.config, UpdateConfig):
        return f"phase '{name}' took no optimiser step, because '{update.instance}' has no learning rate"
    return ""


def _head(phase: PlannedPhase, rows: Sequence[Mapping[str, Any]]) -> str:
    steps = "the only step" if len(rows) == 1 else f"{len(rows)} steps"
    return f"nothing was {'learned' if phase.update else 'collected'} in {steps} of phase '{phase.spec.name}'"


def _total(rows: Sequence[Mapping[str, Any]], figure: str) -> float:
    return sum(float(row.get(figure, 0.0)) for row in rows)


def _alike(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which rewards were equal in every step that had any; empty if some differed."""
    spreads = [row["reward_std"] for row in rows if "reward_std" in row]
    if spreads and not any(spreads):
        return "every reward was equal"
    groups = [row["equal_groups"] for row in rows if "equal_groups" in row]
    return "the rewards of each prompt's answers were equal" if groups and min(groups) == 1 else ""
