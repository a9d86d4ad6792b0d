"""DAPO, decoupled clip and dynamic sampling policy optimisation (Yu et al. 2025, arXiv:2503.14476).

    maximise  mean over all tokens of  min(ρ_t A_i, clip(ρ_t, 1 − clip_range, 1 + clip_high) A_i),     A_i as in GRPO

Differences from GRPO: `clip_high` is larger than `clip_range`, so the probability of unlikely tokens can grow, which keeps the
entropy high; every token of the batch has the same weight; groups whose rewards are all equal are left out, so that they do not
dilute the average (`kept` is the share of rows that remain; the paper samples until the batch is full again, here the batch becomes
smaller); there is no KL penalty. The paper's penalty on answers near the length limit is the separate reward `overlong`. A penalty
in the reward that differs between any two answers, such as `kl-penalty`, makes all rewards different, and then no group is left
out. Healthy: `kept` above .2, falling as prompts are solved.

    update: {use: dapo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from hookline import Advantaged, Context, Loss, Metric
from hookline_plugins import maths
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.policy_gradient import Minibatch, PolicyGradient


class DAPO(GRPO):
    """GRPO with a higher upper bound, averaged over tokens, without groups whose rewards are all equal."""

    metrics = (
        *GRPO.metrics,
        Metric(
            "kept", "share of rows in groups whose rewards differ; only these rows are learned from", healthy=(0.1, 1.0)
        ),
    )

    class Config(GRPO.Config):
        clip_high: float | None = Field(0.28, gt=0)
        """How far a ratio may rise above 1 before it is clipped. Larger than `clip_range`, so that rare tokens can grow."""

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return PolicyGradient.average(self, mb, x_BT)

    def select(self, ctx: Context, batch: Advantaged) -> Advantaged:
        differs_B = ~maths.group_equal(batch.episode_reward_B, batch.group_B)
        ctx.log("kept", ctx.mean(differs_B.float()), len(batch))
        return batch if bool(differs_B.all()) else batch.rows(differs_B)
