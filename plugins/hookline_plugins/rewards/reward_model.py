"""The reward that a trained reward model gives to an answer, read at its last token."""

from __future__ import annotations

from typing import Any

from pydantic import Field

import hookline
from hookline import Component, Context, PhaseName, Rollout, Term, hookimpl, read_last


class RewardModel(Component):
    """The head `reward` of an earlier phase's final model; in evaluations of the phase that trains it, of the current model."""

    better = "higher"
    needs = frozenset({"head:reward"})

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase that trained the reward model. None, in evaluations of that phase: the current model."""
        shift: float = 0.0
        """Added to every reward."""
        scale: float = Field(1.0, gt=0)
        """Factor of every reward, applied before the shift."""

    def setup(self, ctx: Context) -> None:
        self.role: Any = "policy"
        if self.config.from_:
            self.role = f"reward-model:{self.config.from_}"
            ctx.role(self.role, phase=self.config.from_, frozen=True)

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        reward_B = read_last(ctx.stats(rollout, model=self.role, want=("reward",))["reward"], rollout.mask_BT)
        return Term(reward_B * self.config.scale + self.config.shift, rollout.mask_BT.any(1))
