"""REINFORCE (Williams 1992, Machine Learning 8): the policy gradient with the reward from each token on, minus a baseline.

    ∇J = E[ Σ_t (G_t − b) ∇log π(a_t|s_t) ],      G_t = Σ_{k≥t} γ^{k−t} r_k

Tokens of a row are summed and rows are averaged, so the gradient is that of the expected reward. A baseline that does not depend
on the answer does not change the mean of the gradient and reduces its variance. `ema` is a running mean of earlier steps (saved
with the run); `mean` is over the batch and `group` over the answers to the same prompt. These two include the answer itself, which
scales the gradient by (n−1)/n and has no other effect.

The method takes one optimiser step per rollout; with more steps (`epochs`, `minibatches`) rows are weighted by the unclipped
ratio π/π_old. Healthy: `baseline` follows `reward`; `approx_kl` is 0. See `policy_gradient` for the other figures.

    update: {use: reinforce, lr: 0.2, baseline: ema}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from hookline import Context, Loss, Metric, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Minibatch, PolicyGradient


class Reinforce(PolicyGradient):
    """The policy gradient with reward-to-go and one of four baselines."""

    needs = property(lambda self: PolicyGradient.needs | ({"groups"} if self.config.baseline == "group" else set()))
    metrics = (*PolicyGradient.metrics, Metric("baseline", "mean over rows of what is subtracted from the return"))

    class Config(PolicyGradient.Config):
        baseline: Literal["none", "mean", "group", "ema"] = "mean"
        """The baseline: none, the mean of the batch, the mean of the prompt's answers, or a running mean of earlier steps."""
        decay: float = Field(0.9, ge=0, lt=1)
        """How slowly `ema` forgets. A value near 1 is smooth and lags behind."""
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount per token; lower values prefer early reward."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.seen: float | None = None

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        to_go = partial(maths.reward_to_go, gamma=self.config.gamma)
        return_BT = maths.end_to_end(to_go, scored.episode_B, scored.sample_B, scored.reward_BT, scored.mask_BT)
        baseline_B = self.baseline(ctx, scored)
        ctx.log("baseline", ctx.mean(baseline_B), len(scored))
        return (return_BT - baseline_B[:, None]) * scored.mask_BT

    def baseline(self, ctx: Context, scored: Scored) -> Tensor:
        """The baseline that is subtracted from each row's return. An answer of several rows (an episode) counts once."""
        reward_B, episode_B = scored.reward_B, scored.episode_B
        if self.config.baseline == "group":
            return maths.over_episodes(maths.group_mean, reward_B, scored.group_B, episode_B)
        if self.config.baseline == "none" or not ctx.sum(len(reward_B)):
            return reward_B * 0.0
        mean = ctx.mean(maths.per_episode(reward_B, episode_B))
        if self.config.baseline == "mean":
            return reward_B * 0.0 + mean
        before = mean if self.seen is None else self.seen
        self.seen = self.config.decay * before + (1 - self.config.decay) * mean
        return reward_B * 0.0 + before

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return mb.row_mean((x_BT * self.acts(mb)).sum(1))

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]
