"""Answers sampled from the policy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

import hookline
from hookline import (
    Completions,
    Component,
    Context,
    DataError,
    DataName,
    ExperimentError,
    Rollout,
    Sampling,
    hookimpl,
    pad_rows,
)
from hookline_plugins.rollouts.dataset import recorded


class Generate(Component):
    """Each step takes some prompts and draws several answers to each; the sampled ids themselves are kept."""

    class Config(hookline.Config):
        prompts: DataName
        """Rows with `prompt`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(64, ge=1)
        """Prompts per step."""
        samples_per_prompt: int = Field(1, ge=1)
        """Answers per prompt. Group methods and comparisons need at least 2."""
        max_new_tokens: int = Field(32, ge=1)
        """Where an answer that does not end is cut."""
        temperature: float = Field(1.0, gt=0, le=100)
        """Above 1 flattens the distribution, below 1 sharpens it."""
        top_k: int = Field(0, ge=0)
        """Keep the k likeliest tokens; 0 keeps all, 1 always takes the likeliest. Ratios are then taken on the kept tokens."""
        top_p: float = Field(1.0, gt=0, le=1)
        """Keep the likeliest tokens that reach this probability; 1 keeps all."""

        greedy: bool = False
        """One more answer per prompt, of the likeliest tokens, source `greedy`: for methods that compare with it (remax)."""

    @property
    def needs(self) -> set[str]:
        cut = self.config.top_k > 0 or self.config.top_p < 1
        return {"decodes"} | ({"engine:kept-ids"} if cut else set())

    @property
    def gives(self) -> set[str]:
        several = {"groups"} if self.config.samples_per_prompt > 1 else set()
        return {"behaviour"} | several | ({"greedy"} if self.config.greedy else set())

    positions = property(lambda self: int(self.config.max_new_tokens) + 1)

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.prompts)
        longest = ctx.role_named("policy").context - self.config.max_new_tokens
        if longest < 1:
            raise ExperimentError(
                f"max_new_tokens is {self.config.max_new_tokens}, the model has {longest + self.config.max_new_tokens} "
                "positions in all, so no prompt fits",
                "lower max_new_tokens, or build a longer context",
            )
        self.prompts = []
        for number, record in enumerate(source.records):
            if not isinstance(record.get("prompt"), str):
                has = f"is {type(record['prompt']).__name__}, not text" if "prompt" in record else "is missing"
                raise DataError(f"{source.name} row {number + 1}: 'prompt' {has}", f"the row has: {', '.join(record)}")
            ids = ctx.tokenizer.prompt(record["prompt"])
            if len(ids) > longest:
                raise DataError(
                    f"{source.name} row {number + 1}: its prompt has {len(ids)} tokens, with {self.config.max_new_tokens} "
                    f"new ones there is room for {longest}",
                    "shorten it, lower max_new_tokens, or build a longer context",
                )
            self.prompts.append((ids, record))

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        c = self.config
        sources = ("policy",) * c.samples_per_prompt + ("greedy",) * (c.greedy and not ctx.evaluating)
        taken = ctx.take(len(self.prompts), c.rows)
        chosen, source = [i for i in taken for _ in sources], sources * len(taken)
        if not chosen:
            return recorded(ctx, [], [], "policy")
        sample_B = ctx.sample_ids(len(chosen))
        prompts = [self.prompts[i][0] for i in chosen]
        prompt_ids_BP, prompt_length_B = pad_rows(prompts)
        sampling = Sampling(temperature=c.temperature, top_k=c.top_k, top_p=c.top_p)
        drawn = self.draw(ctx, prompts, sample_B, sampling, torch.tensor([name == "greedy" for name in source]))
        T = drawn.token_ids_BT.shape[1]
        return Rollout(
            prompt_ids_BP=prompt_ids_BP,
            prompt_length_B=prompt_length_B,
            token_ids_BT=drawn.token_ids_BT,
            length_B=drawn.length_B,
            mask_BT=torch.arange(T) < drawn.length_B[:, None],
            group_B=torch.arange(len(chosen)) // len(sources) + int(sample_B[0]),
            sample_B=sample_B,
            records=tuple(self.prompts[i][1] for i in chosen),
            decode=ctx.tokenizer.decode,
            finish_reason=drawn.finish_reason,
            source=source,
            behaviour=drawn.behaviour,
        )

    def draw(
        self,
        ctx: Context,
        prompts: Sequence[Sequence[int]],
        sample_B: torch.Tensor,
        sampling: Sampling,
        greedy_B: torch.Tensor,
    ) -> Completions:
        """Answers of the policy; a rollout that draws from more than the policy has its own."""
        longest = self.config.max_new_tokens
        return ctx.draw(prompts, sample_B, sampling_=sampling, max_new_tokens=longest, greedy_B=greedy_B)
