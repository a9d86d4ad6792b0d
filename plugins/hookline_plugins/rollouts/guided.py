"""Answers guided by values (Snell et al. 2022, eq. 5): drawn from π(a|s) ∝ π_β(a|s) exp(β (min_i Q_i(s, a) − V(s))).

π_β is the policy that cloned the data, so actions that never occur in the data stay unlikely for any Q. V is the same for all
a and does not change the distribution, so it is not computed. The recorded log-probs are those of this distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from hookline import Completions, Context, PhaseName, Sampling
from hookline_plugins.guidance import guide_role, guided, q_names
from hookline_plugins.rollouts.generate import Generate


class Guided(Generate):
    """`generate`, drawing from the policy guided by its Q heads, or from an earlier phase's policy guided by its Q heads."""

    class Config(Generate.Config):
        beta: float = Field(1.0, ge=0)
        """How strongly values outweigh the cloned policy. 0 is the policy itself, large is greedy in Q on its support."""
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose policy and Q heads are used. None: the policy of this phase, whose update learns the heads."""

    @property
    def needs(self) -> set[str]:
        return {*super().needs, "engine:combine"}

    gives = property(
        lambda self: {"behaviour", "off-policy"} | ({"groups"} if self.config.samples_per_prompt > 1 else set())
    )

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.guide = guide_role(ctx, self.config.from_)

    def draw(
        self, ctx: Context, prompts: Sequence[Sequence[int]], sample_B: Tensor, sampling: Sampling, greedy_B: Tensor
    ) -> Completions:
        return ctx.draw(
            prompts,
            sample_B,
            sampling_=sampling,
            max_new_tokens=self.config.max_new_tokens,
            greedy_B=greedy_B,
            model=self.guide,
            combine=guided(self.guide, q_names(ctx, self.guide), self.config.beta),
        )
