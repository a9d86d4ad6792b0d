"""What the rollout itself brought along: rewards read from data, or earned while an episode was played."""

from __future__ import annotations

import torch

from hookline import Component, Rollout, hookimpl


class Recorded(Component):
    """For evaluations, which pay nothing unless a reward is named; in training, recorded rewards are paid anyway."""

    better = "higher"
    needs = frozenset({"recorded_BT"})

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return rollout.extra["recorded_BT"]
