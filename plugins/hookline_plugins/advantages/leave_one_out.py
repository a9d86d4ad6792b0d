"""Leave-one-out baseline (Kool et al. 2019; RLOO, Ahmadian et al. 2024): A_i = R_i − mean of the siblings' rewards.

The siblings of an answer are the other answers to its prompt; their mean does not depend on the answer itself, so the
gradient stays unbiased without a critic. The advantage is k/(k−1) times that of `group-relative` with `scale: none`.
Healthy: the mean advantage is 0 by construction, and `equal_groups` is well below 1.
"""

from __future__ import annotations

from hookline import Advantaged, Component, Scored, hookimpl
from hookline_plugins.maths import leave_one_out, over_episodes


class LeaveOneOut(Component):
    """An answer's reward minus the mean reward of the other answers to its prompt, the same for all its tokens. An answer of several rows
    (an episode) counts once, and all of its rows share it."""

    needs = frozenset({"groups"})

    @hookimpl
    def hookline_advantage(self, scored: Scored) -> Advantaged:
        return scored.advantaged(over_episodes(leave_one_out, scored.reward_B, scored.group_B, scored.episode_B))
