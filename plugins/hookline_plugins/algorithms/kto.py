"""Kahneman–Tversky optimisation (Ethayarajh et al. 2024): learns from answers that are labelled good or bad, without pairs.

With g = β log π/π_ref and z = β max(0, KL estimated on mismatched answers), detached:
    good: λ_D [1 − σ(g − z)]      bad: λ_U [1 − σ(z − g)]
A row is good when its reward is above `threshold`; in an episode of several rows, when the episode's total reward is. z is the
baseline of both: an answer counts as improved only when its g exceeds what an arbitrary answer gains. The KL is estimated by
pairing each prompt with an answer to another prompt of the same step. The loss is ½ at the start (λ = 1).
Healthy: `good_gain` is above `bad_gain`, and `kl` grows slowly. If there are few good rows, raise `good` so that
λ_D n_D : λ_U n_U is between 1 and 4/3.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from hookline import Batch, Component, Context, Loss, Metric, MicroBatch, Scored, Term, UpdateConfig, hookimpl, pad_rows
from hookline_plugins.algorithms.comparisons import answer_logprob
from hookline_plugins.maths import ordered

Row = tuple[int, int, list[int]]
"""Group, sample id and prompt."""
UNSAYABLE = -1e4
"""A token below this log-prob under the reference counts as impossible; its log-ratio is then meaningless."""


class KTO(Component):
    """Raise good answers above, and lower bad answers below, the gain of an arbitrary answer."""

    needs = frozenset({"before"})
    claims = frozenset({"kl"})
    takes = Scored
    off_policy = True
    metrics = (
        Metric("good_gain", "mean over good rows of Σ_t log π/π_ref", "nats per answer"),
        Metric("bad_gain", "mean over bad rows of Σ_t log π/π_ref", "nats per answer"),
        Metric("margin", "mean over rows of g − z for good rows and of z − g for bad ones"),
        Metric("accuracy", "share of rows with a positive margin; a margin of 0 counts ½", better="higher"),
        Metric("good_share", "share of good rows, weighted", healthy=(0.05, 0.95)),
        Metric("kl", "mean of Σ_t log π/π_ref over mismatched prompts and answers, at least 0", "nats per answer"),
    )

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"desirable_weight": "good", "undesirable_weight": "bad"}
        beta: float = Field(0.1, gt=0)
        """Price of each nat away from the reference. Small follows the labels further, large stays near the reference."""
        threshold: float = 0.5
        """Rows with a reward above this value are good, the others bad. For an episode of several rows, their sum counts."""
        good: float = Field(1.0, ge=0)
        """λ_D, the weight of good rows."""
        bad: float = Field(1.0, ge=0)
        """λ_U, the weight of bad rows. Large avoids bad answers more strongly."""

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)
        self.kl = 0.0

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        c = self.config
        batch = self._columns(ctx, batch)
        other = mismatched(batch, ctx.role_named("policy").context, ctx.gather)

        def look() -> None:
            self.kl = self._kl(ctx, other)

        look()
        ctx.log("kl", self.kl)
        ctx.train(batch, self.loss, after=look if c.epochs * c.minibatches > 1 else None)

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        assert isinstance(batch, Scored)
        batch = self._columns(ctx, batch)
        self.kl = self._kl(ctx, mismatched(batch, ctx.role_named("policy").context, ctx.gather))
        found = ctx.measure(batch, self.loss)
        return {name: found[name] for name in ("loss", "accuracy", "margin", "good_gain", "bad_gain") if name in found}

    def _columns(self, ctx: Context, batch: Scored) -> Scored:
        """Add the columns that the loss reads."""
        c, given = self.config, batch.extra
        weight_B = given.get("weight_B", torch.ones(len(batch)))
        good_B = (batch.episode_reward_B > c.threshold).float()
        return batch.with_extra(
            reference_logprobs_BT=ctx.stats(batch, model="reference", support="whole").logprobs_BT,
            weight_B=weight_B,
            good_B=good_B * weight_B,
            bad_B=(1 - good_B) * weight_B,
        )

    def _kl(self, ctx: Context, other: Scored) -> float:
        """The baseline z/β, under the current policy."""
        reference_BT = ctx.stats(other, model="reference", support="whole").logprobs_BT
        own_BT = ctx.stats(other, support="whole").logprobs_BT
        gain_BT = torch.where(reference_BT > UNSAYABLE, own_BT - reference_BT, 0.0)
        weight_B = other.extra["weight_B"]
        return max(0.0, ctx.sum(weight_B * gain_BT.sum(1)) / max(ctx.sum(weight_B), 1e-12))

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        c = self.config
        gain_BT = mb.stats(support="whole").logprobs_BT - mb["reference_logprobs_BT"]
        gain_B = answer_logprob(gain_BT, mb.batch.mask_BT, "sum")
        mb.log("good_gain", mb.mean_over("good_B", gain_B.detach()))
        mb.log("bad_gain", mb.mean_over("bad_B", gain_B.detach()))
        good_B = mb["good_B"] > 0
        mb.log("good_share", mb.mean_over("weight_B", good_B.float()))
        ahead_B = torch.where(good_B, 1.0, -1.0) * c.beta * (gain_B.detach() - self.kl)
        mb.log("margin", mb.mean_over("weight_B", ahead_B))
        mb.log("accuracy", mb.mean_over("weight_B", ordered(ahead_B)))
        return mb.mean_over("weight_B", kto_loss(c.beta * gain_B, c.beta * self.kl, good_B, c.good, c.bad))


def kto_loss(gain_B: Tensor, baseline: float, good_B: Tensor, good: float, bad: float) -> Tensor:
    """Per row: λ (1 − σ(± (g − z)))."""
    return torch.where(good_B, good * torch.sigmoid(baseline - gain_B), bad * torch.sigmoid(gain_B - baseline))


def mismatched(
    batch: Scored, context: int, gather: Callable[[list[Row]], list[list[Row]]] = lambda own: [own]
) -> Scored:
    """The same answers after other prompts, where another prompt exists and fits; with a single prompt, the unchanged rows.

    The rows of all ranks, ordered by group, get the prompts of rows that are one group, the largest, further back. context:
    the tokens that fit. gather: `ctx.gather`, for rows that are spread over several ranks.
    """
    ids = [batch.prompt_ids(row) for row in range(len(batch))]
    parts = gather(list(zip(batch.group_B.tolist(), batch.sample_B.tolist(), ids)))
    every = sorted(itertools.chain(*parts), key=lambda row: row[0])
    largest = max(Counter(group for group, _, _ in every).values(), default=0)
    prompts = {sample: every[at - largest][2] for at, (_, sample, _) in enumerate(every)}
    if all(prompts[sample] == prompt for _, sample, prompt in every):
        return batch
    given = [prompts[sample] for sample in batch.sample_B.tolist()]
    kept = [i for i, new in enumerate(given) if new != ids[i] and len(new) + int(batch.length_B[i]) <= context]
    ids_BP, length_B = pad_rows([given[i] for i in kept])
    return replace(batch.rows(kept), prompt_ids_BP=ids_BP, prompt_length_B=length_B)
