"""Whitening: advantages with mean 0 and standard deviation 1 over all chosen tokens of the step."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import torch
from pydantic import Field

import hookline
from hookline import Advantaged, Component, Context, Metric, Scored, hookimpl


class Whiten(Component):
    """Stands around the advantage, whoever answers, and brings it to unit scale."""

    metrics = (Metric("advantage_std", "standard deviation of advantages over tokens, before whitening"),)

    class Config(hookline.Config):
        shift: bool = True
        """Also subtract the mean."""
        floor: float = Field(1e-8, gt=0)
        """Advantages that differ by less are not scaled: there is nothing to bring to unit scale."""

    @hookimpl(wrapper=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Generator[None, Advantaged, Advantaged]:
        result = yield
        mask = result.mask_BT
        x = result.advantage_BT[mask]
        mean = ctx.mean(x)
        std = ctx.mean((x - mean).square()) ** 0.5
        ctx.log("advantage_std", std)
        white = (result.advantage_BT - (mean if self.config.shift else 0.0)) / (std if std > self.config.floor else 1.0)
        return replace(result, advantage_BT=torch.where(mask, white, 0.0))
