"""Reward clipping: R ← min(max(R, −limit), limit), so that one answer cannot decide a step (Mnih et al. 2015; Ramamurthy et al. 2023).

Clips the sum that an answer earned, as wrappers listed before left it, or every token's reward. What it does not do: tell
great from good beyond the limit. Healthy: `reward_clipped` below a tenth; at 1 only the sign is left.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Literal

from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl, put_last


class Options(hookline.Config):
    limit: float = Field(10.0, gt=0)
    """The largest reward, and minus it the smallest. Small is safe and blind to size."""
    each: Literal["answer", "token"] = "answer"
    """What is clipped: an answer's sum (the difference is paid on its last token), or each token's reward."""


class ClipReward(Component[Options]):
    """No reward beyond ±limit."""

    metrics = (Metric("reward_clipped", "share of answers whose reward left ±limit", healthy=(0.0, 0.5)),)

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        if not len(scored):
            return scored
        limit, reward_BT = self.config.limit, scored.reward_BT
        if self.config.each == "token":
            clipped_BT = reward_BT.clamp(-limit, limit)
            beyond_B = (clipped_BT != reward_BT).any(1)
        else:
            reward_B = scored.reward_B
            beyond_B = reward_B.abs() > limit
            clipped_BT = reward_BT + put_last(reward_B.clamp(-limit, limit) - reward_B, scored.mask_BT)
        ctx.log("reward_clipped", ctx.mean(beyond_B), len(scored))
        return replace(scored, reward_BT=clipped_BT)
