"""Comparisons with probabilities: adds P(a ≻ b) for every two answers to a prompt as a column.

The probabilities come from the task's own preferences, or from Bradley–Terry (1952) on the rewards, P = σ((r_a − r_b)/temperature).
`soft` gives the probability itself, which contains more information per comparison; `sampled` draws one outcome per comparison, as
a person would. Answers of equal reward are then also compared, with P = ½, which keeps their ratio as in the reference.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataName, Metric, Rollout, Scored, hookimpl
from hookline_plugins.maths import compared, places


class Preference(Component):
    """Wraps the score and adds `preference_B` [B, K]: P(row ≻ the k-th row of its group)."""

    needs = frozenset({"groups"})
    gives = frozenset({"preference_B"})
    metrics = (
        Metric("decided", "mean over comparisons of |2P − 1|: 0 means that all are undecided, 1 that all are certain"),
    )

    class Config(hookline.Config):
        task: DataName | None = None
        """The task whose preferences are used, e.g. builtin:cyclic; none: Bradley–Terry on the rewards."""
        temperature: float = Field(1.0, gt=0)
        """Temperature of Bradley–Terry, in units of reward. Small decides clearly, large decides almost at random."""
        labels: Literal["soft", "sampled"] = "soft"
        """`soft`: the probability. `sampled`: 1 or 0, drawn once per comparison."""

    def setup(self, ctx: Context) -> None:
        self.task = ctx.task(self.config.task) if self.config.task else None

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        place_B = places(scored.group_B)
        width = int(place_B.max()) + 1 if len(scored) else 1
        preference_BK = torch.full((len(scored), width), 0.5)
        a, b = compared(scored.group_B, scored.episode_B).triu(1).nonzero(as_tuple=True)
        p = self._asked(scored, a.tolist(), b.tolist())
        ctx.log("decided", ctx.mean((2 * p - 1).abs()), len(p))
        if self.config.labels == "sampled":
            counts = ctx.gather((int(scored.sample_B[0]) if len(scored) else -1, len(p)))
            before = sum(count for first, count in counts if len(scored) and first < int(scored.sample_B[0]))
            u = torch.rand(sum(count for _, count in counts), generator=ctx.rng("label"))
            p = (u[before : before + len(p)] < p).float()
        preference_BK[a, place_B[b]] = p
        preference_BK[b, place_B[a]] = 1 - p
        return scored.with_extra(preference_B=preference_BK)

    def _asked(self, scored: Scored, a: list[int], b: list[int]) -> torch.Tensor:
        if self.task is None:
            reward_B = scored.episode_reward_B
            return torch.sigmoid((reward_B[a] - reward_B[b]) / self.config.temperature)
        text = [scored.response_text(row) for row in range(len(scored))]
        said = [self.task.preference(scored.records[i], text[i], text[j]) for i, j in zip(a, b)]
        return torch.tensor(said, dtype=torch.float32)
