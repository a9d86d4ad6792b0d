"""REINFORCE++ (Hu et al. 2025, arXiv:2501.03262): no critic, no groups; advantages on one scale over the whole batch.

    A_t = (G_t − mean) / std   over all tokens of the step,      loss as in PPO: min(ρA, clip(ρ, 1 ± clip_range) A), mean over tokens

The price on the KL belongs in the reward of each token (`wrap: kl-penalty`), and G_t sums it from each token on. The `-baseline`
variant first subtracts the mean of the prompt's answers, which suits rewards whose level depends on the prompt, and prices the KL
in the loss with `k2` (`kl_loss`). Healthy: as for `policy_gradient`; because advantages are whitened, `grad_norm` shows how much
the rows of the batch agree.

    update: {use: reinforce-plus-plus, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hookline import Context, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Clipped


class ReinforcePlusPlus(Clipped):
    """Reward-to-go, whitened over the batch, with PPO's clipped ratio."""

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        rows = scored.episode_B, scored.sample_B
        return_BT = maths.end_to_end(maths.reward_to_go, *rows, self.rewards(scored), scored.mask_BT)
        return maths.whiten(return_BT, scored.mask_BT, mean=ctx.mean)

    def rewards(self, scored: Scored) -> Tensor:
        return scored.reward_BT


class ReinforcePlusPlusBaseline(ReinforcePlusPlus):
    """REINFORCE++ on each answer's reward minus the mean reward of its prompt's answers."""

    needs = ReinforcePlusPlus.needs | {"groups"}
    exempt: Mapping[str, str] = {
        "own-group": "groups give the baseline, and advantages are then scaled over the whole batch"
    }

    def rewards(self, scored: Scored) -> Tensor:
        mean_B = maths.over_episodes(maths.group_mean, scored.reward_B, scored.group_B, scored.episode_B)
        last_BT = maths.end_to_end(maths.last_true, scored.episode_B, scored.sample_B, scored.mask_BT)
        return scored.reward_BT - mean_B[:, None] * last_BT
