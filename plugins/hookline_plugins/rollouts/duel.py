"""Answers of the policy and of an opponent, which is a geometric mixture π^(1−a) π_ref^a of policy and reference.

a = 1 is the reference (XPO, Xie et al. 2024), a value slightly above 0 is the opponent of Nash-MD (Munos et al. 2023, §7), and 0
is the policy itself (self-play). The mixture is computed for each token from the logits of both models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field

from hookline import Context, NextToken, Rollout, concat, hookimpl
from hookline_plugins.maths import falling
from hookline_plugins.rollouts.generate import Generate


class Duel(Generate):
    """`generate`, with one answer of the opponent for each answer of the policy. Evaluations see only the policy's answers.

    Columns: `weight_B` is 1 for sampled answers of the policy, `opponent_B` is 1 for answers of the opponent; 0 otherwise.
    """

    @property
    def needs(self) -> set[str]:
        return {*super().needs, "engine:combine"}

    @property
    def gives(self) -> set[str]:
        return {*super().gives, "groups", "weight_B", "opponent_B"}

    class Config(Generate.Config):
        synonyms: ClassVar[Mapping[str, str]] = {**Generate.Config.synonyms, "mixture_coef": "opponent"}
        opponent: float = Field(0.125, ge=0, le=1)
        """a, the reference's share of the mixture. Small plays against the policy itself, 1 against the reference."""
        final_opponent: float | None = Field(None, ge=0, le=1)
        """The value of `opponent` at the end of the phase, reached linearly; none: it is constant."""

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        ctx.role("reference", frozen=True)

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        own = super().hookline_rollout(ctx)
        if ctx.evaluating:
            return own
        c, n = self.config, len(own)
        sample_B = ctx.sample_ids(n)
        if not n:
            return own
        a = falling(c.opponent, c.final_opponent, ctx.step, ctx.steps)

        def mixed(said: Mapping[str, NextToken]) -> torch.Tensor:
            return (1 - a) * said["policy"].logits_BV + a * said["reference"].logits_BV

        drawn = ctx.draw(
            [own.prompt_ids(row) for row in range(n)],
            sample_B,
            sampling_=self.sampling,
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
