"""SAPO, soft adaptive policy optimisation (Gao et al. 2025, arXiv:2511.20347): a soft gate instead of a clip.

    maximise  1/G Σ_i 1/|y_i| Σ_t f(ρ_t) A_i,     f(ρ) = σ(τ(ρ − 1)) · 4/τ,     τ = tau_pos where A > 0, else tau_neg

A_i as in GRPO. f has slope 1 at ρ = 1, so the first gradient equals GRPO's; further away the slope falls smoothly to 0 without an
abrupt end. Lowering the probability of a token raises all others, which is less stable, so tau_neg is a little larger. Healthy:
`approx_kl` below .05. There is no `clip_fraction`, because nothing is clipped. `policy_loss` is near −mean(2A/τ), not near 0.

    update: {use: sapo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hookline_plugins import maths
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.policy_gradient import PolicyGradient


class SAPO(GRPO):
    """GRPO with a sigmoid gate on the ratio."""

    class Config(PolicyGradient.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"sapo_temperature_pos": "tau_pos", "sapo_temperature_neg": "tau_neg"}
        tau_pos: float = Field(1.0, gt=0)
        """How fast the gate closes where the advantage is positive. Large is similar to a tight clip."""
        tau_neg: float = Field(1.05, gt=0)
        """How fast the gate closes where the advantage is negative."""

    def objective(self, ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        tau_BT = torch.where(advantage_BT > 0, self.config.tau_pos, self.config.tau_neg)
        return maths.soft_gate(ratio_BT, tau_BT) * advantage_BT

    def outside(self, ratio_BT: Tensor) -> Tensor | None:
        return None
