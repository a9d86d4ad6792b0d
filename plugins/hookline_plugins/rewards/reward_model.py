"""What a trained reward model says about an answer, read at its last token."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hookline import Component, Config, Context, PhaseName, Rollout, Term, hookimpl


class RewardModel(Component):
    """The model with which an earlier phase ended, by its head `reward`; or the model being trained, in its own phase."""

    class Config(Config):
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
        reward_BT = ctx.stats(rollout, model=self.role, want=("reward",))["reward"]
        last_B = (rollout.mask_BT.long().cumsum(1) * rollout.mask_BT).argmax(1) if rollout.mask_BT.shape[1] else None
        if last_B is None:
            return Term(reward_BT.sum(1), rollout.mask_BT.any(1))
        reward_B = reward_BT.gather(1, last_B[:, None])[:, 0]
        return Term(reward_B * self.config.scale + self.config.shift, rollout.mask_BT.any(1))
