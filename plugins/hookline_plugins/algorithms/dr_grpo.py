"""Dr. GRPO, "GRPO done right" (Liu et al. 2025, arXiv:2503.20783): GRPO without its two biases.

    A_i = r_i − mean,    maximise  1/G Σ_i 1/length Σ_t  min(ρ_t A_i, clip(ρ_t, 1 ± clip_range) A_i)

Dividing by the standard deviation favours prompts that are nearly solved or nearly hopeless; dividing by |y_i| favours
short right answers and long wrong answers. Dr. GRPO divides by a constant instead. With one optimiser step per rollout the
gradient is (k−1)/k of RLOO's gradient. Healthy: as for `policy_gradient`; answers do not grow longer while rewards are constant.

    update: {use: dr-grpo, lr: 0.2, length: 10}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from hookline import Context, Loss, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.policy_gradient import Minibatch


class DrGRPO(GRPO):
    """GRPO with centred instead of whitened rewards, summed over tokens instead of averaged."""

    class Config(GRPO.Config):
        length: float = Field(1.0, gt=0)
        """The constant that every answer's sum is divided by, e.g. max_new_tokens. It scales the gradient, which AdamW ignores but
        gradient clipping does not."""

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        mean_B = maths.over_episodes(maths.group_mean, scored.reward_B, scored.group_B, scored.episode_B)
        return scored.episode_reward_B - mean_B

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        length: float = self.config.length
        return mb.row_mean((x_BT * self.acts(mb)).sum(1) / length)
