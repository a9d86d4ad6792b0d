"""GRPO, group relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300).

    A_i = (r_i − mean) / (std + 1e-6)   over the answers to one prompt, the same for all of an answer's tokens
    maximise  1/G Σ_i 1/|y_i| Σ_t  min(ρ_t A_i, clip(ρ_t, 1 ± clip_range) A_i) − β k3_t,      ρ_t a ratio per token

All answers have the same weight, so a token of a long answer has a smaller weight (Dr. GRPO and DAPO correct this). A group
with equal rewards has advantage 0. The paper's KL penalty is `kl_loss: 0.04, kl_estimator: k3`; by default there is none.
Healthy: `equal_groups` below .9, the other figures as for `policy_gradient`.

    update: {use: grpo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from torch import Tensor

from hookline import Context, Loss, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Clipped, Minibatch


class GRPO(Clipped):
    """Policy gradient with rewards whitened within each group and a clipped ratio per token, averaged over answers."""

    needs = Clipped.needs | {"groups"}

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        return maths.over_episodes(maths.group_whiten, scored.reward_B, scored.group_B, scored.episode_B)

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return mb.row_mean(maths.masked_mean(x_BT, self.acts(mb), dim=1))
