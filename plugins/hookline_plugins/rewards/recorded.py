"""Rewards that the rollout recorded: read from data, or earned while an episode was played."""

from __future__ import annotations

import torch

from hookline import Component, Rollout, hookimpl


class Recorded(Component):
    """For evaluations, which use only the rewards they name. In training, recorded rewards always count."""

    better = "higher"
    needs = frozenset({"recorded_BT"})

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return rollout.extra["recorded_BT"]
