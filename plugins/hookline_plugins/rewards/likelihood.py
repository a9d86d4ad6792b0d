"""Figures for evaluations: the perplexity of the rows under a model, and the KL to another model."""

from __future__ import annotations

import math

import torch

import hookline
from hookline import Component, Context, PhaseName, Rollout, Scored, Term, hookimpl


class Perplexity(Component):
    """log p(token) under the policy, among all tokens. Over an evaluation, and for each row: exp of minus the mean per token."""

    better = "lower"
    needs = frozenset({"before"})

    class Config(hookline.Config):
        role: str = "policy"
        """Whose."""

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        return Term(ctx.stats(rollout, model=self.config.role, support="whole").logprobs_BT)

    def summarise(self, term: Term, scored: Scored) -> float:
        tokens = int(scored.mask_BT.sum())
        nll = -float(term.value.double().sum()) / max(1, tokens)
        return math.exp(nll) if nll < 700 else math.inf


class KL(Component):
    """log π − log π_ref, summed over an answer. This is the KL per answer in nats when the policy drew the answers itself.

    With top-k or top-p, π is the truncated policy that drew the answers; π_ref has its whole vocabulary.
    """

    better = "lower"
    needs = frozenset({"before"})

    class Config(hookline.Config):
        to: PhaseName | None = None
        """The phase whose final policy is the reference; none: the policy at the start of this phase."""

    gives = property(lambda self: frozenset() if self.config.to else frozenset({"role:reference"}))

    def setup(self, ctx: Context) -> None:
        self.role = f"kl:{self.config.to}" if self.config.to else "reference"
        ctx.role(self.role, phase=self.config.to, frozen=True)

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> torch.Tensor:
        own_BT = ctx.stats(rollout, support="kept").logprobs_BT
        difference = own_BT - ctx.stats(rollout, model=self.role, support="whole").logprobs_BT
        return torch.where(rollout.mask_BT, difference, 0.0).sum(1)
