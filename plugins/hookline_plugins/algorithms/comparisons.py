"""Shared by the methods that learn from comparisons: which rows are compared, with which label, and means over comparisons.

A comparison is two rows of one group with different rewards (`hookline.pairs`). Optional extra columns change this:
`preference_B` [B, K]: P(row ≻ the k-th row of its group), a soft label; rewards are then ignored, and a tie (½) also counts.
`weight_B`, `opponent_B`: the weight of a row as the learner's answer, and as the answer it is compared with (default 1 each);
the comparison of a with b has the weight (weight_a opponent_b + weight_b opponent_a)/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hookline import (
    Batch,
    Component,
    Context,
    Loss,
    Metric,
    MicroBatch,
    PluginError,
    Scored,
    Term,
    hookimpl,
    pairs,
)
from hookline_plugins.maths import compared, ordered, places

Length = Literal["sum", "mean"]


@dataclass(frozen=True)
class Comparisons:
    """N comparisons between rows of a batch."""

    chosen: Tensor
    """The row that is more likely to be preferred, int64 [N]."""
    rejected: Tensor
    preferred: Tensor
    """P(chosen ≻ rejected), in [½, 1]."""
    weight: Tensor


def comparisons(batch: Scored) -> Comparisons:
    """All comparisons in a batch, or in a part of a batch that contains whole groups."""
    label_BK = batch.extra.get("preference_B")
    if label_BK is None:
        a, b = pairs(batch)
        p = batch.reward_B.new_ones(len(a))
    else:
        a, b = compared(batch.group_B, batch.episode_B).triu(1).nonzero(as_tuple=True)
        place_B = places(batch.group_B)
        p, back = label_BK[a, place_B[b]], label_BK[b, place_B[a]]
        if bool(((p + back - 1).abs() > 1e-4).any()):
            raise PluginError(
                "in preference_B, P(a ≻ b) + P(b ≻ a) is not 1 for two rows of a group",
                "do not drop rows of a group after the group was labelled",
            )
        a, b, p = torch.where(p < 0.5, b, a), torch.where(p < 0.5, a, b), p.maximum(back)
    ones_B = batch.reward_B.new_ones(len(batch))
    weight_B, opponent_B = batch.extra.get("weight_B", ones_B), batch.extra.get("opponent_B", ones_B)
    weight = (weight_B[a] * opponent_B[b] + weight_B[b] * opponent_B[a]) / 2
    keep = weight > 0
    return Comparisons(a[keep], b[keep], p[keep], weight[keep])


def prepared(batch: Scored) -> Scored:
    """The rows that are compared, with a column `comparisons_B`: the total weight of comparisons in which a row is chosen."""
    if (
        not {"preference_B", "opponent_B"} & batch.extra.keys()
    ):  # with these columns, rows must keep their place in the group
        found = comparisons(batch)
        batch = batch.rows(torch.unique(torch.cat([found.chosen, found.rejected])))
    found = comparisons(batch)
    if not len(found.chosen):
        return batch.rows([]).with_extra(comparisons_B=torch.zeros(0))
    return weighed(batch)


def weighed(batch: Scored) -> Scored:
    """The same rows with the column `comparisons_B`."""
    found = comparisons(batch)
    return batch.with_extra(comparisons_B=torch.zeros(len(batch)).index_add(0, found.chosen, found.weight))


def mean(mb: MicroBatch[Scored], found: Comparisons, x: Tensor) -> Loss:
    """Weighted mean over the comparisons of the optimiser step: [N] →."""
    total_B = x.new_zeros(len(mb.batch)).index_add(0, found.chosen, found.weight * x)
    return mb.mean_over("comparisons_B", total_B / mb["comparisons_B"].clamp(min=1e-30))


def answer_logprob(logprobs_BT: Tensor, mask_BT: Tensor, length: Length, weight_BT: Tensor | None = None) -> Tensor:
    """Log-prob of each answer: the sum over its tokens, or their mean, which does not depend on the length; weighted, if asked."""
    if weight_BT is None:
        total_B = torch.where(mask_BT, logprobs_BT, 0.0).sum(1)
        return total_B if length == "sum" else total_B / mask_BT.sum(1).clamp(min=1)
    weight_BT = torch.where(mask_BT, weight_BT, 0.0)
    total_B = (weight_BT * torch.where(mask_BT, logprobs_BT, 0.0)).sum(1)
    return total_B if length == "sum" else total_B / weight_BT.sum(1).clamp(min=1e-12)


class Comparing(Component):
    """An update from comparisons. A subclass defines the loss of a comparison."""

    needs = frozenset({"before", "groups"})
    takes = Scored
    off_policy = True
    metrics: Sequence[Metric] = (
        Metric("margin", "mean over comparisons of the chosen answer's implicit reward minus the rejected one's"),
        Metric(
            "accuracy",
            "share of comparisons with a positive margin; a margin of 0 and a tied label count ½",
            better="higher",
        ),
        Metric("chosen_logprob", "mean over comparisons of Σ_t log π(chosen)", "nats per answer"),
        Metric("rejected_logprob", "mean over comparisons of Σ_t log π(rejected)", "nats per answer"),
        Metric("length_difference", "mean over comparisons of tokens(chosen) − tokens(rejected)", "tokens"),
    )

    held_out_figures: Sequence[str] = ("loss", "accuracy", "margin")
    """Those of the figures that an evaluation without rewards gives."""

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        ctx.train(self.columns(ctx, prepared(batch)), self.loss, unit="group")

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        assert isinstance(batch, Scored)
        found = ctx.measure(self.columns(ctx, weighed(batch)), self.loss, unit="group")
        return {name: found[name] for name in self.held_out_figures if name in found}

    def columns(self, ctx: Context, batch: Scored) -> Scored:
        """Add the columns that the loss reads."""
        return batch

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        raise NotImplementedError

    def watch(self, mb: MicroBatch[Scored], found: Comparisons, logprobs_BT: Tensor, margin: Tensor) -> None:
        """Log the figures that all of these methods have in common."""
        total_B = answer_logprob(logprobs_BT.detach(), mb.batch.mask_BT, "sum")
        tokens_B = mb.batch.mask_BT.sum(1).float()
        right = torch.where(found.preferred > 0.5, ordered(margin.detach()), 0.5)
        mb.log("margin", mean(mb, found, margin.detach()))
        mb.log("accuracy", mean(mb, found, right))
        mb.log("chosen_logprob", mean(mb, found, total_B[found.chosen]))
        mb.log("rejected_logprob", mean(mb, found, total_B[found.rejected]))
        mb.log("length_difference", mean(mb, found, tokens_B[found.chosen] - tokens_B[found.rejected]))
