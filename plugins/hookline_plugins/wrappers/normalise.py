"""Rewards on one scale, whatever their source: mean 0 and standard deviation 1 on the first batch whose rewards differ.

Those rows are drawn by the policy as the phase begins, as in Ziegler et al. (2019, §2.2), where the reward model is
normalised on samples of the initial policy. Stands inside a KL penalty that is listed after it, so that the price of a
nat means the same under every reward.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl, put_last


class Normalise(Component):
    """Shift and scale each answer's reward by what the first batch showed."""

    metrics = (
        Metric("reward_scale", "standard deviation of the raw reward by which rewards are divided", aggregate="last"),
    )

    class Config(hookline.Config):
        floor: float = Field(1e-4, gt=0)
        """Rewards that differ by less have no scale yet and are only shifted; a constant reward is never blown up."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.mean: float | None = None
        self.std = 1.0

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        if not len(scored):
            return scored
        mean, std = self.mean, self.std
        if mean is None:
            mean = ctx.mean(scored.reward_B)
            spread = ctx.mean((scored.reward_B - mean).square()) ** 0.5
            if spread > self.config.floor:  # until rewards differ there is no scale to take: they are only shifted
                std = spread
                self.mean, self.std = mean, std
        ctx.log("reward_scale", std)
        shift_B = scored.reward_B.new_full((len(scored),), -mean / std)
        return replace(scored, reward_BT=scored.reward_BT / std + put_last(shift_B, scored.mask_BT))

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean, self.std = state["mean"], float(state["std"])
