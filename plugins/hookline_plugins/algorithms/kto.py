"""Kahneman–Tversky optimisation (Ethayarajh et al. 2024): answers that are good or bad by themselves, no pairs needed.

With g = β log π/π_ref and z = β max(0, KL estimated on mismatched answers), detached:
    good: λ_D [1 − σ(g − z)]      bad: λ_U [1 − σ(z − g)]
A row is good when its reward lies above `threshold`; a row of an episode of several rows, when what the episode earned does.
z shifts both: what gained as much as any answer would is not yet won. The KL comes from each prompt with an answer to another
one, of the same step. The loss is ½ at the start (λ = 1).
Healthy: `good_gain` above `bad_gain`, `kl` growing slowly. With few good rows raise `good` so that
λ_D n_D : λ_U n_U lies between 1 and 4/3.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hookline import Component, Context, Loss, Metric, MicroBatch, Scored, UpdateConfig, hookimpl
from hookline_plugins.algorithms.comparisons import answer_logprob

UNSAYABLE = -1e4
"""Below this log-prob the reference rules a token out; how much more the policy does means nothing."""


class KTO(Component):
    """Move good answers above, bad answers below what happens to any answer."""

    needs = frozenset({"before"})
    claims = frozenset({"kl"})
    takes = Scored
    off_policy = True
    metrics = (
        Metric("good_gain", "mean over good rows of Σ_t log π/π_ref", "nats per answer"),
        Metric("bad_gain", "mean over bad rows of Σ_t log π/π_ref", "nats per answer"),
        Metric("good_share", "share of rows that are good, by weight", healthy=(0.05, 0.95)),
        Metric("kl", "mean of Σ_t log π/π_ref over mismatched prompts and answers, at least 0", "nats per answer"),
    )

    class Config(UpdateConfig):
        beta: float = Field(0.1, gt=0)
        """Price of a nat from the reference. Small follows the labels far, large stays."""
        threshold: float = 0.5
        """Rows whose reward is above are good, the others bad; of an episode of several rows, its sum."""
        good: float = Field(1.0, ge=0)
        """λ_D, the weight of good rows."""
        bad: float = Field(1.0, ge=0)
        """λ_U, the weight of bad rows. Large avoids losses."""

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)
        self.kl = 0.0

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        c, given = self.config, batch.extra
        weight_B = given.get("weight_B", torch.ones(len(batch)))
        good_B = (batch.episode_reward_B > c.threshold).float()
        batch = batch.with_extra(
            reference_logprobs_BT=ctx.stats(batch, model="reference").logprobs_BT,
            weight_B=weight_B,
            good_B=good_B * weight_B,
            bad_B=(1 - good_B) * weight_B,
        )
        other = mismatched(batch, ctx.role_named("policy").context)

        def look() -> None:
            self.kl = self._kl(ctx, other)

        look()
        ctx.log("kl", self.kl)
        ctx.train(batch, self.loss, after=look if c.epochs * c.minibatches > 1 else None)

    def _kl(self, ctx: Context, other: Scored) -> float:
        """The baseline z/β, under the policy as it is."""
        reference_BT = ctx.stats(other, model="reference").logprobs_BT
        gain_BT = torch.where(reference_BT > UNSAYABLE, ctx.stats(other).logprobs_BT - reference_BT, 0.0)
        weight_B = other.extra["weight_B"]
        return max(0.0, ctx.sum(weight_B * gain_BT.sum(1)) / max(ctx.sum(weight_B), 1e-12))

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        c = self.config
        gain_BT = mb.stats(want=("logprobs",)).logprobs_BT - mb["reference_logprobs_BT"]
        gain_B = answer_logprob(gain_BT, mb.batch.mask_BT, "sum")
        mb.log("good_gain", mb.mean_over("good_B", gain_B.detach()))
        mb.log("bad_gain", mb.mean_over("bad_B", gain_B.detach()))
        good_B = mb["good_B"] > 0
        mb.log("good_share", mb.mean_over("weight_B", good_B.float()))
        return mb.mean_over("weight_B", kto_loss(c.beta * gain_B, c.beta * self.kl, good_B, c.good, c.bad))


def kto_loss(gain_B: Tensor, baseline: float, good_B: Tensor, good: float, bad: float) -> Tensor:
    """Per row: λ (1 − σ(± (g − z)))."""
    return torch.where(good_B, good * torch.sigmoid(baseline - gain_B), bad * torch.sigmoid(gain_B - baseline))


def mismatched(batch: Scored, context: int) -> Scored:
    """The same answers behind other prompts, where there is one and it fits; of one prompt alone, the rows as they are."""
    order = batch.group_B.argsort(stable=True)
    largest = int(torch.unique(batch.group_B, return_counts=True)[1].max()) if len(batch) else 0
    answers, prompts = batch.rows(order), batch.rows(order.roll(largest))
    moved = replace(answers, prompt_ids_BP=prompts.prompt_ids_BP, prompt_length_B=prompts.prompt_length_B)
    other_B = torch.tensor([answers.prompt_ids(i) != moved.prompt_ids(i) for i in range(len(moved))], dtype=torch.bool)
    if not other_B.any():
        return batch
    return moved.rows(other_B & (moved.prompt_length_B + moved.length_B <= context))
