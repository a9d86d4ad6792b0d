"""Rewards: each is asked by itself; those that are coroutines wait together."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any

from hookline.batch.stages import Rollout, Term
from hookline.contract.component import Component
from hookline.loop.checks import check_term
from hookline.loop.context import Context
from hookline.loop.hooks import ask, blame

__all__ = ["ask_rewards"]


def ask_rewards(
    ctx: Context, rewards: Mapping[str, tuple[Component, Any]], rollout: Rollout, answers: asyncio.Runner
) -> dict[str, Term]:
    """Every reward by itself; those that are coroutines wait together."""
    said = {
        name: ask(component, slot, "hookline_reward", {"ctx": ctx, "rollout": rollout})
        for name, (component, slot) in rewards.items()
    }
    late = {name: value for name, value in said.items() if inspect.isawaitable(value)}
    if late:

        async def wait() -> list[Any]:
            async def one(name: str, value: Any) -> Any:
                with blame(rewards[name][1], "hookline_reward"):
                    return await value

            return await asyncio.gather(*(one(name, value) for name, value in late.items()))

        said |= dict(zip(late, answers.run(wait())))
    return {name: check_term(value, rewards[name][1], rollout) for name, value in said.items()}
