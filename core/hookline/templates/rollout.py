"""NAME: a rollout for Hookline. A rollout makes the rows of every step."""

import hookline
from hookline import Component, DataName, Rollout, Sampling, hookimpl
from pydantic import Field


class Example(Component):
    """One answer to each prompt, drawn from the policy."""

    gives = frozenset({"behaviour"})

    class Config(hookline.Config):
        prompts: DataName
        """Rows with `prompt`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(16, ge=1)
        """Prompts per step. Large values make gradients less noisy and steps slower."""
        max_new_tokens: int = Field(12, ge=1)
        """Largest number of tokens in an answer; longer answers are cut there."""

    @hookimpl
    def hookline_rollout(self, ctx):
        rows = ctx.rows(self.config.prompts).records
        chosen = [ctx.encode(rows[i], answer=None) for i in ctx.take(len(rows), self.config.rows)]
        sample_B = ctx.sample_ids(len(chosen))
        prompts = [row.prompt_ids for row in chosen]
        drawn = ctx.draw(prompts, sample_B, sampling_=Sampling(), max_new_tokens=self.config.max_new_tokens)
        return Rollout.build(ctx, chosen, drawn, source="policy", sample_B=sample_B)
