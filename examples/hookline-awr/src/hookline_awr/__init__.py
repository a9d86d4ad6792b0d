"""Advantage-weighted regression (Peng et al. 2019): maximise E[exp(A / βσ) log π(a|s)], A = R − V(s), with a learned V.

R is the future reward, V is a value head on the policy's trunk, and σ is a running standard deviation of A, so that β does not
depend on the unit of the reward. Rows drawn with older weights can be used: they are imitated without a correction.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from hookline import Component, Context, Loss, Metric, MicroBatch, Scored, UpdateConfig, hookimpl


class AWR(Component):
    """Imitate what turned out better than expected."""

    takes = Scored
    off_policy = True
    metrics = (Metric("advantage_scale", "running standard deviation of R − V", "reward"),)

    class Config(UpdateConfig):
        beta: float = Field(1.0, gt=0)
        """Temperature in units of the advantage's spread. Small imitates only the best, large imitates everything."""
        most: float = Field(20.0, ge=1)
        """Largest weight a token may get."""

    def setup(self, ctx: Context) -> None:
        ctx.head("awr_value", lambda hidden_size: nn.Linear(hidden_size, 1))
        self.scale = 1.0

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        return_BT = batch.reward_BT.flip(1).cumsum(1).flip(1)
        advantage_BT = return_BT - ctx.stats(batch, want=("awr_value",))["awr_value"]
        if bool(batch.mask_BT.any()):
            self.scale += 0.05 * (float(advantage_BT[batch.mask_BT].std(correction=0)) - self.scale)
        ctx.log("advantage_scale", self.scale)
        weight_BT = (advantage_BT / (self.config.beta * max(self.scale, 1e-6))).exp().clamp(max=self.config.most)
        ctx.train(batch.with_extra(weight_BT=weight_BT, return_BT=return_BT), self.loss)

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        stats = mb.stats(want=("logprobs", "awr_value"), support="whole")
        imitate = mb.token_mean(-mb["weight_BT"] * stats.logprobs_BT)
        return imitate + mb.token_mean(0.5 * torch.square(stats["awr_value"] - mb["return_BT"]))

    def state_dict(self) -> dict[str, float]:
        return {"scale": self.scale}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.scale = state.get("scale", 1.0)
