"""Nash-MD (Munos et al. 2023): finds the policy to which no other policy is preferred, by playing against a mixture of itself.

Answers y ~ π are compared with y' ~ π^(1−a) π_ref^a (rollout `duel` or `population`). The policy follows, at each token t,

    ∇ log π(y_t) [ P(y ≻ y') − ½ − τ Σ_{s≥t} log π(y_s)/π_ref(y_s) ]

whose fixed point for a → 0 is the regularised Nash equilibrium π ∝ π_ref exp(P(· ≻ π)/τ). No reward is needed, and preferences
may be cyclic. A constant a > 0 damps oscillations, but its fixed point is a little nearer to the reference; set
`final_opponent: 0` to lower a to 0. Healthy: `win_rate` settles at ½ (no policy wins against itself), and `kl` levels off. A
`win_rate` that oscillates means that the step is too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hookline import Component, Context, Loss, Metric, MicroBatch, Scored, UpdateConfig, hookimpl
from hookline_plugins.maths import places


class NashMD(Component):
    """Policy gradient on the probability of being preferred, with a price on the KL to the reference."""

    needs = frozenset({"before", "groups", "preference_B", "opponent_B", "weight_B"})
    claims = frozenset({"kl"})
    takes = Scored
    metrics = (
        Metric("win_rate", "mean over the policy's answers of P(y ≻ opponent)", healthy=(0.2, 0.9), better="higher"),
        Metric("kl", "mean over the policy's answers of Σ_t log π/π_ref, before the update", "nats per answer"),
    )

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"beta": "tau"}
        tau: float = Field(0.1, ge=0)
        """Price of each nat away from the reference. Large stays near it; 0 seeks the plain Nash equilibrium and may oscillate."""

        @model_validator(mode="after")
        def _one_step(self) -> Self:
            if self.epochs * self.minibatches > 1:
                raise ValueError(
                    "takes one optimiser step per rollout, because it has no ratio; leave out epochs and minibatches"
                )
            return self

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        win_B = wins(batch.extra["preference_B"], batch.extra["opponent_B"], batch.group_B)
        mine = (batch.extra["weight_B"] > 0) & win_B.isfinite()
        batch, win_B = batch.rows(mine), win_B[mine]
        weight_B = batch.extra["weight_B"]
        own_BT = ctx.stats(batch, support="kept").logprobs_BT
        gain_BT = own_BT - ctx.stats(batch, model="reference", support="whole").logprobs_BT
        gain_BT = torch.where(batch.mask_BT, gain_BT, 0.0)
        to_go_BT = gain_BT.flip(1).cumsum(1).flip(1)
        total = max(ctx.sum(weight_B), 1e-12)
        ctx.log("win_rate", ctx.sum(weight_B * win_B) / total, len(batch))
        ctx.log("kl", ctx.sum(weight_B * gain_BT.sum(1)) / total, len(batch))
        credit_BT = win_B[:, None] - 0.5 - self.config.tau * to_go_BT
        ctx.train(batch.with_extra(credit_BT=credit_BT), self.loss)

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        logprobs_BT = mb.stats(support="kept").logprobs_BT
        gained_BT = torch.where(mb.batch.mask_BT, logprobs_BT * mb["credit_BT"], 0.0)
        return mb.mean_over("weight_B", -gained_BT.sum(1))


def wins(preference_BK: Tensor, opponent_B: Tensor, group_B: Tensor) -> Tensor:
    """P(row ≻ an answer of the opponent to the same prompt); NaN where the opponent has no answer."""
    K = preference_BK.shape[1]
    groups, where_B = torch.unique(group_B, return_inverse=True)
    opponent_GK = opponent_B.new_zeros(len(groups), K).index_put((where_B, places(group_B)), opponent_B)
    return (preference_BK * opponent_GK[where_B]).sum(1) / opponent_GK[where_B].sum(1)
