"""Reward clipping: R ← min(max(R, −limit), limit), so that one answer cannot decide a step (Mnih et al. 2015; Ramamurthy et al. 2023).

Clips the total reward of an answer, or every token's reward, after the wrappers that are listed before it. Answers beyond the limit
can no longer be distinguished. Healthy: `reward_clipped` is below .1; at 1 only the sign of the reward is left.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl, put_last


class Options(hookline.Config):
    synonyms: ClassVar[Mapping[str, str]] = {"reward_clip_range": "limit", "cliprange_reward": "limit", "clip_range": "limit"}
    limit: float = Field(10.0, gt=0)
    """Rewards are clipped to ±limit. Small is safe and ignores the size of rewards."""
    each: Literal["answer", "token"] = "answer"
    """What is clipped: an answer's sum (the difference is added to its last token), or each token's reward."""


class ClipReward(Component[Options]):
    """Clips rewards to ±limit."""

    metrics = (Metric("reward_clipped", "share of answers whose reward was outside ±limit", healthy=(0.0, 0.5)),)

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
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
