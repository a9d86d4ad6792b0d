"""CISPO, clipped importance sampling policy optimisation (MiniMax-M1 2025, arXiv:2506.13585): clip the weight, keep the token.

    maximise  mean over all tokens of  sg(clip(ρ_t, 1 − clip_range, 1 + clip_high)) A_i log π(a_t|s_t),     A_i as in GRPO

PPO's clip removes the gradient of a token whose ratio has left the range; such tokens are often rare and decide how the answer
goes on. In CISPO every token keeps its gradient, and only its weight is bounded; sg stops the gradient of the weight. The paper
bounds the weight only from above (`clip_range` near 1). Healthy: as for `policy_gradient`; `clip_fraction` is the share of
weights that were bounded.

    update: {use: cispo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from hookline import Loss
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.policy_gradient import Minibatch, PolicyGradient


class CISPO(GRPO):
    """The plain policy gradient with a bounded importance weight."""

    class Config(GRPO.Config):
        clip_range: float = Field(0.99, gt=0, lt=1)
        """How far a weight may fall below 1. A value near 1 hardly bounds it."""
        clip_high: float | None = Field(2.0, gt=0)
        """How far a weight may rise above 1. Small is safe, but slows tokens whose probability has already grown."""

    def objective(self, ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        weight_BT = ratio_BT.detach().clamp(1 - self.config.clip_range, 1 + self.config.high)
        return weight_BT * advantage_BT * ratio_BT.log()  # log ρ has the gradient of log π

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return PolicyGradient.average(self, mb, x_BT)
