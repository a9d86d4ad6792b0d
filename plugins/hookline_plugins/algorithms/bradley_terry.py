"""Reward modelling by Bradley–Terry (1952; Christiano et al. 2017): P(a beats b) = σ(r_a − r_b).

The loss is −log σ(r_chosen − r_rejected), mean over comparisons. Rewards are read from the head `reward` at the last
token. The loss depends only on differences of rewards, so `centre` adds c·mean r² to keep their mean near 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch.nn.functional import softplus

from hookline import (
    Batch,
    Component,
    Context,
    Loss,
    Metric,
    MicroBatch,
    Scored,
    Term,
    UpdateConfig,
    hookimpl,
    pairs,
    read_last,
)
from hookline_plugins.maths import ordered


class BradleyTerry(Component):
    """Learn a reward from comparisons. A comparison is two rows of one group with different rewards."""

    needs = frozenset({"pairs", "head:reward"})
    takes = Scored
    off_policy = True
    metrics = (
        Metric(
            "accuracy",
            "share of comparisons that the model orders as the judge did; equal rewards count ½",
            better="higher",
        ),
        Metric("margin", "mean of r_chosen − r_rejected", "nats"),
    )

    class Config(UpdateConfig):
        usual_lr: ClassVar[float] = 1e-5
        synonyms: ClassVar[Mapping[str, str]] = {"center_rewards_coefficient": "centre"}
        centre: float = Field(0.01, ge=0)
        """Weight of mean r², which keeps rewards near 0. Large flattens them."""

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        chosen, _rejected = pairs(batch)
        if not ctx.sum(len(chosen)):
            batch = batch.rows([])
        # the rows of a group stay in one micro-batch, so that each comparison is complete there
        ctx.train(batch.with_extra(wins_B=wins(batch)), self.loss, unit="group")

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        assert isinstance(batch, Scored)
        return ctx.measure(batch.with_extra(wins_B=wins(batch)), self.loss, unit="group")

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        reward_B = read_last(mb.stats(want=("reward",))["reward"], mb.batch.mask_BT)
        chosen, rejected = pairs(mb.batch)
        margin = reward_B[chosen] - reward_B[rejected]
        wins_B = mb["wins_B"].clamp(min=1)

        def per_win(x: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(reward_B).index_add(0, chosen, x) / wins_B

        mb.log("accuracy", mb.mean_over("wins_B", per_win(ordered(margin.detach()))))
        mb.log("margin", mb.mean_over("wins_B", per_win(margin)))
        total: Loss = (
            mb.mean_over("wins_B", per_win(softplus(-margin))) + mb.row_mean(reward_B.square()) * self.config.centre
        )
        return total


def wins(batch: Scored) -> torch.Tensor:
    """In how many comparisons each row is the chosen one, [B]."""
    chosen, _rejected = pairs(batch)
    return torch.zeros(len(batch)).index_add(0, chosen, torch.ones(len(chosen)))
