"""GRPO, group relative policy optimisation (Shao et al. 2024, DeepSeekMath, arXiv:2402.03300).

    A_i = (r_i − mean) / (std + 1e-6)   over the answers to one prompt, the same for all of an answer's tokens
    maximise  1/G Σ_i 1/|y_i| Σ_t  min(ρ_t A_i, clip(ρ_t, 1 ± clip_range) A_i) − β k3_t,      ρ_t a ratio per token

All answers have the same weight, so a token of a long answer has a smaller weight (Dr. GRPO and DAPO correct this). An answer of several
rows (an episode) counts once, in the baseline and in the mean of the loss. A group with equal rewards has advantage 0. The paper's KL
penalty is `kl_loss: 0.04, kl_estimator: k3`; by default there is none.
Healthy: `equal_groups` below .9, the other figures as for `policy_gradient`.

    update: {use: grpo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

import torch
from torch import Tensor

from hookline import Advantaged, Context, Loss, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Clipped, Minibatch


class GRPO(Clipped):
    """Policy gradient with rewards whitened within each group and a clipped ratio per token, averaged over answers."""

    needs = Clipped.needs | {"groups"}

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        return maths.over_episodes(maths.group_whiten, scored.reward_B, scored.group_B, scored.episode_B)

    def prepared(self, ctx: Context, batch: Advantaged) -> Advantaged:
        batch = super().prepared(ctx, batch)
        if ctx.sum(len(batch)) == ctx.sum(len(torch.unique(batch.episode_B))):
            return batch
        acts = batch.extra["act_BT"] != 0 if self.config.macro else batch.mask_BT
        return batch.with_extra(episode_share_BT=maths.episode_share(acts, batch.episode_B))

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        if "episode_share_BT" in mb.batch.extra:
            return mb.mean_over("episode_share_BT", x_BT)
        return mb.row_mean(maths.masked_mean(x_BT, self.acts(mb), dim=1))
