"""Answers sampled from the policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

from hookline import (
    Completions,
    Component,
    Context,
    DataName,
    Encoded,
    Encoder,
    ExperimentError,
    Overlong,
    Record,
    Rollout,
    Sampling,
    hookimpl,
)
from hookline_plugins.rollouts.fitting import fitting
from hookline_plugins.sampling import SamplingOptions


class Generate(Component):
    """Each step takes some prompts and draws several answers to each. The sampled token ids are kept."""

    class Config(SamplingOptions):
        prompts: DataName
        """Rows with `prompt`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(64, ge=1)
        """Prompts per step."""
        longest: int = Field(0, ge=0)
        """The maximum number of tokens of a prompt; 0: what the model's context and max_new_tokens leave."""
        overlong: Overlong = "refuse"
        """What happens to longer prompts: `truncate` cuts their start, `leave-out` leaves them out."""
        samples_per_prompt: int = Field(1, ge=1)
        """Answers per prompt. Group methods and comparisons need at least 2."""
        max_new_tokens: int = Field(32, ge=1)
        """Number of tokens after which an answer is cut."""
        greedy: bool = False
        """One more answer per prompt, made of the likeliest tokens (source `greedy`), for methods that need it (remax)."""

    @property
    def needs(self) -> set[str]:
        sampling = self.sampling
        asked = {"kept-ids": sampling.truncated, "penalties": sampling.reshapes, "stop-strings": bool(sampling.stop_strings)}
        return {"decodes"} | {f"engine:{ability}" for ability, needed in asked.items() if needed}

    @property
    def sampling(self) -> Sampling:
        """What answers are drawn from."""
        drawn_from: Sampling = self.config.sampling
        return drawn_from

    @property
    def gives(self) -> set[str]:
        several = {"groups"} if self.config.samples_per_prompt > 1 else set()
        return {"behaviour"} | several | ({"greedy"} if self.config.greedy else set())

    positions = property(lambda self: int(self.config.max_new_tokens) + 1)

    def setup(self, ctx: Context) -> None:
        self.sampling.check_length(self.config.max_new_tokens)
        source = ctx.rows(self.config.prompts)
        new, positions = self.config.max_new_tokens, ctx.role_named("policy").context
        if new >= positions:
            raise ExperimentError(
                f"max_new_tokens is {new}, but the model has {positions} positions in total, so no prompt fits",
                "lower max_new_tokens, or build the model with a longer context",
            )
        room = min(self.config.longest or positions, positions - new)
        self.prompt = source.made(lambda record, where: self.read_row(ctx, record, where, room))
        self.prompts = fitting(ctx, source, self.prompt, room, "prompts")

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(records), self.config.rows

    def read_row(self, ctx: Encoder, record: Record, where: str, room: int | None = None) -> Encoded:
        c, longest = self.config, room or self.config.longest
        new = c.max_new_tokens if longest else 0
        return ctx.encode(
            record,
            answer=None,
            where=where,
            longest=longest + new if longest else None,
            new_tokens=new,
            overlong=c.overlong,
        )

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        c = self.config
        sources = ("policy",) * c.samples_per_prompt + ("greedy",) * (c.greedy and not ctx.evaluating)
        taken = ctx.take(len(self.prompts), c.rows)
        chosen, source = [self.prompts[i] for i in taken for _ in sources], sources * len(taken)
        prompts = [self.prompt(i) for i in chosen]
        if not prompts:
            return Rollout.build(ctx, [], source="policy")
        sample_B = ctx.sample_ids(len(prompts))
        sampling = self.sampling
        greedy_B = torch.tensor([name == "greedy" for name in source])
        drawn = self.draw(ctx, [prompt.prompt_ids for prompt in prompts], sample_B, sampling, greedy_B)
        group = [row // len(sources) for row in range(len(prompts))]
        return Rollout.build(ctx, prompts, drawn, source=source, sample_B=sample_B, group=group)

    def draw(
        self,
        ctx: Context,
        prompts: Sequence[Sequence[int]],
        sample_B: torch.Tensor,
        sampling: Sampling,
        greedy_B: torch.Tensor,
    ) -> Completions:
        """Draw answers from the policy. A rollout that draws from another distribution overrides this method."""
        longest = self.config.max_new_tokens
        return ctx.draw(prompts, sample_B, sampling_=sampling, max_new_tokens=longest, greedy_B=greedy_B)
