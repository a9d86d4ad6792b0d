"""A simulated annotator: ranks answers by a known gold reward with noise, as a person might.

Gumbel noise is added to each answer's g/temperature, and the answers are sorted by the sum. This is a Plackett–Luce ranking (Luce
1959; Plackett 1975), in which every pair follows Bradley–Terry, P(a beats b) = σ((g_a − g_b) / temperature).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Judgement, Metric, Scored, hookimpl


class SimulatedAnnotator(Component):
    """Ranks the answers to each prompt by the reward that the phase names."""

    needs = frozenset({"groups"})
    metrics = (Metric("agreement", "share of pairs, without ties, that the annotator orders as the gold reward does"),)

    class Config(hookline.Config):
        temperature: float = Field(0.1, gt=0)
        """Noise in units of reward. Small is a careful annotator, large answers almost at random."""
        answers: int = Field(0, ge=0)
        """Number of different answers to a prompt that are ranked at once: 2 is a comparison; 0 ranks all of them."""

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement]:
        gold_B = scored.reward_B.double()
        said: list[Judgement] = []
        right = pairs = 0
        groups: dict[int, dict[tuple[int, ...], int]] = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, {}).setdefault(tuple(scored.response_ids(row)), row)
        for different in groups.values():
            rows = torch.tensor(list(different.values()))
            if self.config.answers:
                rows = rows[: self.config.answers]
            if len(rows) < 2:
                continue
            u = torch.rand(len(rows), generator=ctx.rng("judge", int(scored.sample_B[rows[0]])), dtype=torch.float64)
            noisy = gold_B[rows] / self.config.temperature - torch.log(-torch.log(u))
            ranking = rows[noisy.argsort(descending=True, stable=True)].tolist()
            gold = [float(gold_B[i]) for i in ranking]
            said.append(Judgement(ranking=tuple(ranking), gold=tuple(gold), annotator="simulated"))
            untied = [a > b for a, b in combinations(gold, 2) if a != b]
            right, pairs = right + sum(untied), pairs + len(untied)
        if pairs:
            ctx.log("agreement", right / pairs, pairs)
        return said
