"""What a trained reward model says about an answer, read at its last token."""

from __future__ import annotations

from typing import Any

from pydantic import Field

import hookline
from hookline import Component, Context, PhaseName, Rollout, Term, hookimpl, read_last


class RewardModel(Component):
    """The model with which an earlier phase ended, by its head `reward`; or the model being trained, in its own phase."""

    better = "higher"
    needs = frozenset({"head:reward"})

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase that trained it. None, in evaluations of that very phase: the model as it stands."""
        shift: float = 0.0
        """Added to every reward."""
        scale: float = Field(1.0, gt=0)
        """Every reward's factor, before the shift."""

    def setup(self, ctx: Context) -> None:
        self.role: Any = "policy"
        if self.config.from_:
            self.role = f"reward-model:{self.config.from_}"
            ctx.role(self.role, phase=self.config.from_, frozen=True)

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        reward_B = read_last(ctx.stats(rollout, model=self.role, want=("reward",))["reward"], rollout.mask_BT)
        return Term(reward_B * self.config.scale + self.config.shift, rollout.mask_BT.any(1))
