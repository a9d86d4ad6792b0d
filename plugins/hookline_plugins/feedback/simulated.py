"""A simulated annotator: compares answers as a person might, from a known gold reward, with Bradley–Terry noise."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Judgement, Metric, Scored, hookimpl


class SimulatedAnnotator(Component):
    """P(a beats b) = σ((g_a − g_b) / temperature), where g is the reward that the phase names."""

    needs = frozenset({"groups"})
    metrics = (Metric("agreement", "share of judgements that order the two answers as the gold reward does"),)

    class Config(hookline.Config):
        temperature: float = Field(0.1, gt=0)
        """Noise in units of reward: small is a careful annotator, large tosses coins."""
        pairs_per_group: int = Field(1, ge=1)
        """Comparisons of different answers to one prompt; equal answers are not shown."""

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement]:
        gold_B = scored.reward_B.double()
        said: list[Judgement] = []
        right = 0.0
        for group in dict.fromkeys(scored.group_B.tolist()):
            rows = (scored.group_B == group).nonzero()[:, 0].tolist()
            different = [(a, b) for a, b in combinations(rows, 2) if scored.response_ids(a) != scored.response_ids(b)]
            generator = ctx.rng("judge", int(scored.sample_B[rows[0]]))
            order = torch.randperm(len(different), generator=generator).tolist()
            for a, b in (different[i] for i in order[: self.config.pairs_per_group]):
                margin = float(gold_B[a] - gold_B[b]) / self.config.temperature
                p = float(torch.sigmoid(torch.tensor(margin, dtype=torch.float64)))
                first = float(torch.rand((), generator=generator, dtype=torch.float64)) < p
                right += 0.5 if margin == 0 else float(first == (margin > 0))
                chosen, rejected = (a, b) if first else (b, a)
                detail = {
                    "gold_chosen": float(gold_B[chosen]),
                    "gold_rejected": float(gold_B[rejected]),
                    "certainty": max(p, 1 - p),
                }
                said.append(Judgement(chosen=chosen, rejected=rejected, annotator="simulated", detail=detail))
        if said:
            ctx.log("agreement", right / len(said), len(said))
        return said
