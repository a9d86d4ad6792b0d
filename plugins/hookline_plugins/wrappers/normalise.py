"""Rewards on one scale, for any source: (R − mean) / std of an answer's reward, with mean and std from one of four sets of answers.

- `first`: the first batch whose rewards differ; the values are then frozen. These rows are drawn by the policy at the start of
  the phase, as in Ziegler et al. (2019, §2.2), where the reward model is normalised on samples of the initial policy.
- `running`: all answers of the phase so far, merged exactly batch by batch (Chan et al. 1979), as in the reward scaling of PPO's
  public implementations (Engstrom et al. 2020, §3).
- `batch`: the answers of this step. `group`: the answers to the same prompt.

Mean and standard deviation are saved with the run. Evaluations use raw rewards and do not change them. List `normalise` before
`kl-penalty`, so that the price of a nat means the same for every reward. Healthy: `reward_scale` settles.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl, put_last
from hookline_plugins.maths import ends_episode, group_mean, group_std, over_episodes


class Normalise(Component):
    """Shift and scale each answer's reward. An answer of several rows (an episode) counts once, and is shifted once."""

    needs = property(lambda self: frozenset({"groups"} if self.config.over == "group" else ()))
    metrics = (
        Metric("reward_scale", "standard deviation of the raw reward by which rewards are divided", aggregate="last"),
    )

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"shift_mean": "shift", "eps": "floor", "epsilon": "floor"}
        over: Literal["first", "running", "batch", "group"] = "first"
        """The answers that define mean and scale. `first` and `running` keep prices such as β comparable between steps."""
        shift: bool = True
        """Also subtract the mean. With false a reward keeps its sign."""
        floor: float = Field(1e-4, gt=0)
        """Rewards with a smaller standard deviation are only shifted, so that a constant reward is never amplified."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.count, self.mean, self.squares = 0, 0.0, 0.0
        """Number of answers seen, their mean, and the sum of squared distances from the mean."""

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        c, reward_B = self.config, scored.reward_B
        last_B = ends_episode(scored.episode_B, scored.sample_B)
        if c.over == "group":
            mean_B, std_B = (
                over_episodes(statistic, reward_B, scored.group_B, scored.episode_B)
                for statistic in (group_mean, partial(group_std, correction=0))
            )
        else:
            mean, std = self._learn(ctx, scored.episode_reward_B[last_B])
            mean_B, std_B = torch.full_like(reward_B, mean), torch.full_like(reward_B, std)
        scale_B = torch.where(std_B > c.floor, std_B, 1.0)
        scale = ctx.mean(scale_B)
        if scale:  # 0 where no rank has rows
            ctx.log("reward_scale", scale)
        scaled_BT = scored.reward_BT / scale_B[:, None]
        if c.shift:
            scaled_BT = scaled_BT + put_last(torch.where(last_B, -mean_B / scale_B, 0.0), scored.mask_BT)
        return replace(scored, reward_BT=scaled_BT)

    def _learn(self, ctx: Context, reward_B: torch.Tensor) -> tuple[float, float]:
        """Mean and standard deviation for this step; `first` and `running` update the saved values."""
        count, mean = int(ctx.sum(len(reward_B))), ctx.mean(reward_B)
        squares = ctx.sum((reward_B.double() - mean).square())
        if not count:
            return self.mean, (self.squares / max(1, self.count)) ** 0.5
        if self.config.over == "first" and self.count:
            count, mean, squares = self.count, self.mean, self.squares
        if self.config.over == "running":
            apart, both = mean - self.mean, self.count + count
            mean = self.mean + apart * count / both
            squares += self.squares + apart**2 * self.count * count / both
            count = both
        std = (squares / count) ** 0.5
        if self.config.over == "running" or (self.config.over == "first" and std > self.config.floor):
            self.count, self.mean, self.squares = count, mean, squares
        return mean, std

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count, self.mean, self.squares = int(state["count"]), float(state["mean"]), float(state["squares"])
