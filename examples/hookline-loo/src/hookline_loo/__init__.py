"""Leave-one-out baseline (Kool et al. 2019; RLOO, Ahmadian et al. 2024): A_i = r_i − mean of the siblings' rewards.

The siblings of an answer are the other answers to its prompt. Their mean is independent of the answer itself, so the
gradient stays unbiased, and it needs no critic. An answer without a sibling has nothing to be compared with: A = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hookline import Advantaged, Component, Scored, hookimpl


class LeaveOneOut(Component):
    """An answer's reward minus the mean reward of the other answers to its prompt, the same for all its tokens."""

    needs = frozenset({"groups"})

    @hookimpl
    def hookline_advantage(self, scored: Scored) -> Advantaged:
        return scored.advantaged(leave_one_out(scored.reward_B, scored.group_B))


def leave_one_out(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """Each row's reward minus the mean of the other rows of its group; 0 for a row that is alone."""
    siblings_BB = (group_B[:, None] == group_B).to(reward_B.dtype).fill_diagonal_(0)
    count_B = siblings_BB.sum(1)
    return torch.where(count_B > 0, reward_B - siblings_BB @ reward_B / count_B.clamp(min=1), 0)
