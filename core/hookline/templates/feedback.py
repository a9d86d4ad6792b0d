"""NAME: a source of judgements for Hookline. Its judgements become the data of a later phase."""

import hookline
import torch
from hookline import Component, Judgement, hookimpl
from pydantic import Field


class Example(Component):
    """Compares the first two different answers to a prompt by their reward, and is sometimes wrong."""

    needs = frozenset({"groups"})

    class Config(hookline.Config):
        mistakes: float = Field(0.1, ge=0, le=0.5)
        """Share of comparisons that are reversed. 0 makes no mistakes, 0.5 decides at random."""

    @hookimpl
    def hookline_judge(self, ctx, scored):
        groups: dict[int, dict[tuple[int, ...], int]] = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, {}).setdefault(tuple(scored.response_ids(row)), row)
        return [self.compare(ctx, scored, *list(rows.values())[:2]) for rows in groups.values() if len(rows) > 1]

    def compare(self, ctx, scored, one, other):
        pair = sorted((one, other), key=lambda row: -float(scored.reward_B[row]))
        if float(torch.rand((), generator=ctx.rng("mistake", int(scored.sample_B[one])))) < self.config.mistakes:
            pair.reverse()
        return Judgement(ranking=tuple(pair), annotator="NAME")
