"""The length of an answer."""

from __future__ import annotations

import torch
from pydantic import Field

import hookline
from hookline import Component, Rollout, hookimpl


class Options(hookline.Config):
    per: float = Field(1.0, gt=0)
    """Number of tokens that gives a reward of 1."""
    free: int = Field(0, ge=0)
    """Number of tokens that are free."""


class Length(Component[Options]):
    """Tokens per answer divided by `per`. With a negative weight it is a price on length."""

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        tokens_B = rollout.mask_BT.sum(1).float()
        priced: torch.Tensor = (tokens_B - self.config.free).clamp(min=0) / self.config.per
        return priced
