"""ReMax (Li et al. 2024, arXiv:2310.10505): REINFORCE whose baseline is the reward of the greedy answer.

    A = r(y) − r(y_greedy),     maximise  mean over rows of  A Σ_t log π(y_t|x, y_<t)

The greedy answer costs one more row per prompt and no second model. `generate` adds it with `greedy: true`; it is scored like
every other row, serves as the baseline, and is not learned from. The baseline does not depend on the drawn answer, so the gradient
is that of the expected reward. Healthy: `baseline`, the mean reward of the greedy answers, is at or above the mean reward of the
drawn answers, and the two become equal as entropy falls; `reward` is the mean over both kinds.

    rollout: {use: generate, greedy: true, …}
    update: {use: remax, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

import torch
from torch import Tensor

from hookline import Advantaged, Context, Loss, Metric, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Minibatch, PolicyGradient


class ReMax(PolicyGradient):
    """The policy gradient with the greedy answer's reward as its baseline."""

    needs = PolicyGradient.needs | {"greedy"}
    metrics = (*PolicyGradient.metrics, Metric("baseline", "mean over rows of what is subtracted from the return"))

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        reward_B = scored.episode_reward_B
        once_B = greedy(scored) & maths.ends_episode(scored.episode_B, scored.sample_B)  # an answer of several rows
        greedy_B = once_B.to(reward_B.dtype)
        there_B = maths.group_mean(greedy_B, scored.group_B)
        baseline_B = maths.group_mean(greedy_B * reward_B, scored.group_B) / there_B.clamp(min=1e-12)
        ctx.log("baseline", ctx.mean(baseline_B), len(scored))
        return torch.where(there_B > 0, reward_B - baseline_B, 0.0)  # its greedy answer may be missing a reward

    def select(self, ctx: Context, batch: Advantaged) -> Advantaged:
        return batch.rows(~greedy(batch))

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return mb.row_mean((x_BT * self.acts(mb)).sum(1))


def greedy(scored: Scored) -> Tensor:
    """Which rows are greedy answers."""
    return torch.tensor([source == "greedy" for source in scored.source], dtype=torch.bool)
