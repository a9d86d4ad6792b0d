"""Calls to rewards: each is called separately; coroutines are awaited together."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from hookline.batch.stages import Rollout, Scored, Term
from hookline.contract.component import Component
from hookline.loop.checks import check_term
from hookline.loop.context import PhaseContext
from hookline.loop.hooks import ask
from hookline.registry.blame import blame
from hookline.registry.slot import Slot

__all__ = ["ask_rewards", "recorded"]


def recorded(rollout: Rollout) -> Scored | None:
    """Rows that were read, with the rewards that were recorded with them; None if there are none."""
    reward = rollout.extra.get("recorded_BT", rollout.extra.get("recorded_B"))
    if reward is None:
        return None
    reward = reward.float()
    return rollout.scored(reward, {"recorded": reward.sum(1) if reward.dim() == 2 else reward})


def ask_rewards(ctx: PhaseContext, rewards: Mapping[str, tuple[Component, Slot]], rollout: Rollout) -> dict[str, Term]:
    """Call every reward separately; coroutines are awaited together. Returns the terms by reward name."""
    answers = {
        name: ask(component, slot, "hookline_reward", {"ctx": ctx, "rollout": rollout}, ctx.lend)
        for name, (component, slot) in rewards.items()
    }
    late = {name: answer for name, answer in answers.items() if inspect.isawaitable(answer)}
    if late:

        async def wait() -> list[Any]:
            async def one(name: str, answer: Any) -> Any:
                with blame(rewards[name][1], "hookline_reward", late=True):
                    return await answer

            return await asyncio.gather(*(one(name, answer) for name, answer in late.items()))

        answers |= dict(zip(late, ctx.wait(wait())))
    terms = {}
    for name, answer in answers.items():
        with blame(rewards[name][1], "hookline_reward"):
            terms[name] = check_term(answer, rewards[name][1], rollout)
    return terms
