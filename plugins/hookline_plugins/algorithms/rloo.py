"""RLOO, REINFORCE leave-one-out (Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740): the baseline is the mean of the other answers.

    A_i = r_i − mean of the other answers' rewards = k/(k−1) (r_i − mean),      maximise  mean over rows of  A_i log π(y_i|x)

The whole answer is one action (`macro: {kind: answer}` is the default), so the ratio is that of the answer's probability. With one
optimiser step per rollout the gradient is an unbiased estimate of the gradient of the expected reward. With more steps the ratio is
clipped as in PPO. Healthy: as for `policy_gradient`; `equal_groups` below .9.

    update: {use: rloo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from torch import Tensor

from hookline import Context, Scored
from hookline_plugins import maths
from hookline_plugins.algorithms.policy_gradient import Clipped, Macro


class RLOO(Clipped):
    """Policy gradient with a leave-one-out advantage; the whole answer is one action."""

    needs = Clipped.needs | {"groups"}

    class Config(Clipped.Config):
        macro: Macro | None = Macro(kind="answer")
        """The tokens that form one action; default: the whole answer. {kind: ngram, n: 1} takes a ratio for each token."""

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        return maths.over_episodes(maths.leave_one_out, scored.reward_B, scored.group_B, scored.episode_B)
