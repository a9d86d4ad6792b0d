"""Answers of the policy beside those of an opponent: a geometric mixture π^(1−a) π_ref^a of policy and reference.

a = 1 is the reference itself (XPO, Xie et al. 2024), a little above 0 the opponent of Nash-MD (Munos et al. 2023, §7), 0 the
policy again (self-play). The mixture is taken token by token, from both models' logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import Field

from hookline import Context, NextToken, Rollout, Sampling, concat, hookimpl
from hookline_plugins.rollouts.generate import Generate
from hookline_plugins.rollouts.population import falling


class Duel(Generate):
    """`generate`, and to each answer another one by the opponent. Evaluations see the policy's answers alone.

    Columns: `weight_B` is 1 for the policy's answers that were drawn, `opponent_B` for the opponent's, 0 otherwise.
    """

    @property
    def gives(self) -> set[str]:
        return {*super().gives, "groups", "weight_B", "opponent_B"}

    class Config(Generate.Config):
        opponent: float = Field(0.125, ge=0, le=1)
        """The reference's share a: small plays against oneself, 1 against the reference."""
        final_opponent: float | None = Field(None, ge=0, le=1)
        """Where `opponent` goes in a straight line by the phase's end; none: it stays."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        ctx.role("reference", frozen=True)

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        own = super().hookline_rollout(ctx)
        if ctx.evaluating or not len(own):
            return own
        c, n = self.config, len(own)
        a = falling(c.opponent, c.final_opponent, ctx)

        def mixed(said: Mapping[str, NextToken]) -> torch.Tensor:
            return (1 - a) * said["policy"].logits_BV + a * said["reference"].logits_BV

        sample_B = ctx.sample_ids(n)
        drawn = ctx.draw(
            [own.prompt_ids(row) for row in range(n)],
            sample_B,
            sampling_=Sampling(temperature=c.temperature, top_k=c.top_k, top_p=c.top_p),
            max_new_tokens=c.max_new_tokens,
            beside=("reference",),
            combine=mixed,
        )
        T = drawn.token_ids_BT.shape[1]
        theirs = replace(
            own,
            token_ids_BT=drawn.token_ids_BT,
            length_B=drawn.length_B,
            mask_BT=torch.arange(T) < drawn.length_B[:, None],
            sample_B=sample_B,
            episode_B=sample_B,
            finish_reason=drawn.finish_reason,
            source=("opponent",) * n,
            behaviour=drawn.behaviour,
        )
        drawn_B = torch.tensor([float(source != "greedy") for source in own.source])
        nobody_B = torch.zeros(n)
        return concat([own, theirs]).with_extra(
            weight_B=torch.cat([drawn_B, nobody_B]), opponent_B=torch.cat([nobody_B, torch.ones(n)])
        )
