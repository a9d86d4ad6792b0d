"""Whitening: advantages with mean 0 and standard deviation 1 over the chosen tokens of the step, or of each prompt's group.

As in PPO's public implementations (Huang et al. 2022, detail 7; Huang et al. 2024 for RLHF). `shift: false` keeps the mean, so
positive advantages stay positive. To whiten rewards, use `normalise` with `over: batch` or `over: group`.
Healthy: `advantage_std` stays within a factor of ten of its initial value; when it is near 0, whitening amplifies noise.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field

import hookline
from hookline import Advantaged, Component, Context, Metric, Scored, hookimpl
from hookline_plugins.maths import group_mean, group_std, whiten


class Whiten(Component):
    """Wraps any advantage component and scales its result to standard deviation 1."""

    needs = property(lambda self: frozenset({"groups"} if self.config.over == "group" else ()))
    metrics = (Metric("advantage_std", "standard deviation of advantages over tokens, before whitening"),)

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"shift_mean": "shift", "eps": "floor", "epsilon": "floor"}
        over: Literal["batch", "group"] = "batch"
        """The tokens that share a mean and a scale: all tokens of the step, or those of the answers to one prompt."""
        shift: bool = True
        """Also subtract the mean."""
        floor: float = Field(1e-8, gt=0)
        """Advantages with a smaller standard deviation are not scaled."""

    @hookimpl(wrapper=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Generator[None, Advantaged, Advantaged]:
        result = yield
        c, x_BT, mask_BT = self.config, result.advantage_BT, result.mask_BT
        x_N = x_BT[mask_BT]
        ctx.log("advantage_std", ctx.mean((x_N - ctx.mean(x_N)).square()) ** 0.5)
        if c.over == "batch":
            white_BT = whiten(x_BT, mask_BT, shift=c.shift, floor=c.floor, mean=ctx.mean)
        else:
            group_N = result.group_B[:, None].expand_as(mask_BT)[mask_BT]
            std_N = group_std(x_N, group_N, correction=0)
            centred_N = x_N - group_mean(x_N, group_N) if c.shift else x_N
            white_BT = torch.zeros_like(x_BT)
            white_BT[mask_BT] = centred_N / torch.where(std_N > c.floor, std_N, 1.0)
        return replace(result, advantage_BT=white_BT)
