"""Implicit language Q-learning (Snell et al. 2022, after IQL, Kostrikov et al. 2021): offline, using only actions in the data.

    L_V = L₂^τ(min_i Q̂_i(s, a) − V(s)),          L₂^τ(d) = ½ |τ − 1[d < 0]| d²
    L_Q = Σ_i ½ (r + γ V(s') − Q_i(s, a))²
    L_CQL = Σ_i log Σ_a' exp Q_i(s, a') − Q_i(s, a)
    L = L_Q + L_V + conservative · L_CQL + clone · (−w log π(a|s))

V is an expectile over the actions in the data: τ = ½ gives their mean, which is SARSA; τ → 1 gives their best, which is Q-learning
restricted to the data. Q̂ are slow copies of the twin heads. The policy's own output layer is trained to clone the data, with w = 1
or w = min(exp(awac · (Q̂ − V)), 20) (AWAC, Nair et al. 2020). To act, use `guided`: π(a|s) ∝ π_β(a|s) exp(β (min_i Q_i − V)).

Healthy: `v_value` is a little above the mean of `q_value` (how much depends on τ), `q_loss` and `v_loss` are small compared with
the squared returns, and `nll` is as in cloning. If `advantage` is far below 0, V overestimates Q; lower τ.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from hookline import Context, Loss, Metric, MicroBatch, Scored, Stats
from hookline_plugins.algorithms.values import ValueLearner, expectile
from hookline_plugins.guidance import q_head


class ILQL(ValueLearner):
    """Offline Q-learning with twin Q heads, an expectile V, a conservative term and Polyak targets, and cloning of the data."""

    q_heads = ("q1", "q2")
    spread = 0.01
    metrics = (
        *ValueLearner.metrics,
        Metric("v_loss", "mean over actions of the expectile loss of min Q̂(s, a) − V(s)"),
        Metric("v_value", "mean over actions of V(s)"),
        Metric("advantage", "mean over actions of min Q̂(s, a) − V(s)"),
    )

    class Config(ValueLearner.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            **ValueLearner.Config.synonyms, "tau": "expectile", "awac_scale": "clone", "alpha": "polyak", "beta": "awac",
        }  # fmt: skip
        expectile: float = Field(0.7, gt=0, lt=1)
        """τ. 0.5 values the mean action of the data, a value near 1 the best action; the nearer to 1, the noisier."""
        gamma: float = Field(0.99, ge=0, le=1)
        """Discount per token."""
        conservative: float = Field(0.1, ge=0)
        """Weight of the conservative term. Large pulls Q towards the data's log-likelihood; 0 trusts Q outside the data."""
        clone: float = Field(1.0, ge=0)
        """Weight of cloning. With 0 the policy's output layer does not change, although a trunk shared with the values does."""
        awac: float = Field(0.0, ge=0)
        """How strongly cloning prefers actions of high advantage. 0 clones all equally; large clones only the best actions."""
        polyak: float = Field(0.005, gt=0, le=1)
        """How far the slow Q heads move per optimiser step. Small is stable and slow; 1: no slow heads are used."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        ctx.head("v", partial(v_head, initial=self.config.initial))

    def wants(self) -> tuple[str, ...]:
        return (*super().wants(), "v")

    def next_value(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor:
        return stats["v"].detach()

    def more_terms(self, mb: MicroBatch[Scored], stats: Stats) -> list[Loss]:
        advantage_BT = self.slow_value(mb, stats) - stats["v"]
        v_loss = mb.mean_over("taken_BT", expectile(advantage_BT, self.config.expectile))
        mb.log("v_loss", v_loss)
        mb.log("v_value", mb.mean_over("taken_BT", stats["v"].detach()))
        mb.log("advantage", mb.mean_over("taken_BT", advantage_BT.detach()))
        return [v_loss]

    def clone_weight(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor | float:
        if not self.config.awac:
            return 1.0
        return torch.exp(self.config.awac * (self.slow_value(mb, stats) - stats["v"].detach())).clamp(max=20.0)


def v_head(hidden_size: int, initial: float = 0.0) -> nn.Module:
    """V, linear in the hidden state, like the Q heads."""
    return q_head(hidden_size, tokens=1, initial=initial)
