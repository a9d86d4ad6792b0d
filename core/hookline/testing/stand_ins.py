"""The neighbours of a component in the harness: a tiny model, rows with every irregularity that is allowed, plain answers.

The neighbours are ordinary components. Rows differ in length, some have holes in their mask, groups have three rows, and no two
rows have the same reward or advantage, so that nothing agrees by chance.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline.batch.stages import Advantaged, Batch, Rollout, Sampling, Scored
from hookline.contract.component import Component
from hookline.contract.context import Context
from hookline.contract.environment import Environment
from hookline.contract.fields import DataName, UpdateConfig, Use
from hookline.contract.hookspecs import hookimpl
from hookline.contract.judgement import Judgement
from hookline.contract.model import Architecture, Vocabulary

__all__ = ["STAND_INS"]

LONGEST = 9


class TinyGPT2(Architecture):
    """Two layers of width 32, with weights large enough that the answers differ."""

    def build(self, tokenizer: Vocabulary) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        shape = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}
        ends = {name: tokenizer.special[name] for name in ("bos_token_id", "eos_token_id")}
        return GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.vocabulary, **shape, **ends))


class Sampled(Component):
    """Answers sampled from the policy, three to a prompt."""

    gives = frozenset({"behaviour", "groups"})

    class Config(hookline.Config):
        prompts: DataName
        """Rows with `prompt`."""
        rows: int = Field(4, ge=1)
        """Prompts per step."""

    def setup(self, ctx: Context) -> None:
        self.rows = [ctx.encode(row, answer=None) for row in ctx.rows(self.config.prompts).records]

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        chosen = [self.rows[i] for i in ctx.take(len(self.rows), self.config.rows) for _ in range(3)]
        if not chosen:
            return Rollout.build(ctx, [], source="policy")
        sample_B = ctx.sample_ids(len(chosen))
        prompts = [row.prompt_ids for row in chosen]
        drawn = ctx.draw(prompts, sample_B, sampling_=Sampling(temperature=0.9), max_new_tokens=LONGEST)
        group = [row // 3 for row in range(len(chosen))]
        return Rollout.build(ctx, chosen, drawn, source="policy", sample_B=sample_B, group=group)


class Host(Sampled):
    """`Sampled` with an additional environment, for the laws of environments."""

    class Config(Sampled.Config):
        environment: Use[Environment]
        """The environment under test."""


class Pairs(Component):
    """Recorded comparisons: two answers to a prompt, the better answer first."""

    gives = frozenset({"groups", "pairs", "recorded_B"})

    class Config(hookline.Config):
        prompts: DataName
        """Rows with `prompt`, `chosen` and `rejected`, or with a `completion` that replaces both answers."""
        rows: int = Field(6, ge=1)
        """Comparisons per step."""

    def setup(self, ctx: Context) -> None:
        self.pairs = []
        for row in ctx.rows(self.config.prompts).records:
            answers = [str(row.get(key) or row.get("completion") or row["prompt"]) for key in ("chosen", "rejected")]
            self.pairs.append([replace(ctx.encode({**row, "answer": a}, answer="answer"), record=row) for a in answers])

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        chosen = [self.pairs[i] for i in ctx.take(len(self.pairs), self.config.rows)]
        rows = [answer for answers in chosen for answer in answers]
        recorded_B = torch.tensor([1.0, 0.0] * len(chosen))
        columns = {"recorded_B": recorded_B, "gold_B": recorded_B * 0.7}
        group = [row // 2 for row in range(len(rows))]
        return Rollout.build(ctx, rows, source=self.config.prompts, group=group, columns=columns)


class Uneven(Component):
    """Wraps the rollout: gives rows different lengths, and every third row a hole in its mask, as after tool output."""

    @hookimpl(wrapper=True)
    def hookline_rollout(self) -> Generator[None, Rollout, Rollout]:
        rollout = yield
        if not len(rollout):
            return rollout
        B, T = rollout.token_ids_BT.shape
        sample_B, at_T = rollout.sample_B, torch.arange(T)  # by sample, so that a row is the same in any batch
        keep_B = torch.minimum(rollout.length_B, 3 + sample_B * 5 % 7)
        hole_BT = (sample_B % 3 == 1)[:, None] & (at_T == 1)
        mask_BT = rollout.mask_BT & (at_T < keep_B[:, None]) & ~hole_BT
        cut_B = (keep_B < rollout.length_B).tolist()
        behaviour = rollout.behaviour
        if behaviour is not None and behaviour.support is None:
            behaviour = replace(behaviour, logprobs_BT=torch.where(mask_BT, behaviour.logprobs_BT, 0.0))
        reasons = zip(rollout.finish_reason, cut_B)
        uneven = replace(
            rollout,
            length_B=keep_B,
            mask_BT=mask_BT,
            finish_reason=tuple("length" if cut and why == "stop" else why for why, cut in reasons),
            behaviour=behaviour,
            extra={
                name: torch.where(mask_BT.reshape(B, T, *[1] * (column.dim() - 2)), column, 0)
                if name.endswith("_BT")
                else column
                for name, column in rollout.extra.items()
            },
        )
        return uneven.rows(range(B))


class Stale(Component):
    """Wraps the rollout: makes rows look as if other weights had drawn them, for components that correct for this."""

    gives = frozenset({"off-policy"})

    @hookimpl(wrapper=True)
    def hookline_rollout(self) -> Generator[None, Rollout, Rollout]:
        rollout = yield
        if rollout.behaviour is None:
            return rollout
        gap_BT = 0.8 * torch.sin(rollout.token_ids_BT.float() * 2.3) * rollout.mask_BT
        logprobs_BT = (rollout.behaviour.logprobs_BT + gap_BT).clamp(max=0.0)
        return replace(rollout, behaviour=replace(rollout.behaviour, logprobs_BT=logprobs_BT))


class Worth(Component):
    """One number per answer; no two answers get the same number."""

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return worth(rollout)


class Trickle(Component):
    """A small reward for every token, so that rewards are spread over the whole answer."""

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return 0.2 * torch.sin(rollout.token_ids_BT.float() * 1.7) * rollout.mask_BT


def worth(rollout: Batch) -> torch.Tensor:
    weight_BT = rollout.mask_BT * torch.cos(rollout.token_ids_BT.float() + torch.arange(rollout.token_ids_BT.shape[1]))
    return weight_BT.sum(1) + 0.1 * torch.sin(rollout.sample_B.float())


class Credit(Component):
    """The reward minus its group's mean, with a slightly larger weight early in the answer."""

    @hookimpl
    def hookline_advantage(self, scored: Scored) -> Advantaged:
        same_BB = (scored.group_B[:, None] == scored.group_B).float()
        centred_B = scored.reward_B - same_BB @ scored.reward_B / same_BB.sum(1).clamp(min=1)
        early_T = 1.0 + 0.5 * torch.cos(torch.arange(scored.mask_BT.shape[1], dtype=torch.float32))
        return scored.advantaged(centred_B[:, None] * early_T * scored.mask_BT)


class Follow(Component):
    """The likelihood of the chosen tokens, weighted by the advantage, the reward, or 1, whichever the phase has."""

    takes = Batch
    Config = UpdateConfig
    off_policy = True

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Batch) -> None:
        weight_BT = batch.mask_BT.float()
        if isinstance(batch, Advantaged):
            weight_BT = batch.advantage_BT
        elif isinstance(batch, Scored):
            weight_BT = batch.reward_BT.flip(1).cumsum(1).flip(1) * batch.mask_BT
        ctx.train(
            batch.with_extra(weight_BT=weight_BT),
            lambda mb: mb.token_mean(-mb["weight_BT"] * mb.stats(support="kept").logprobs_BT),
        )


class Judge(Component):
    """Ranks the answers to each prompt by their reward."""

    @hookimpl
    def hookline_judge(self, scored: Scored) -> Sequence[Judgement]:
        groups: dict[int, list[int]] = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, []).append(row)
        worth_B = scored.reward_B
        return [
            Judgement(ranking=tuple(sorted(rows, key=lambda row: -float(worth_B[row]))), annotator="harness")
            for rows in groups.values()
            if len(rows) > 1
        ]


STAND_INS: Mapping[str, tuple[str, type[Component]]] = {
    "testing-model": ("model", TinyGPT2),
    "testing-sampled": ("rollout", Sampled),
    "testing-pairs": ("rollout", Pairs),
    "testing-host": ("rollout", Host),
    "testing-uneven": ("wrapper", Uneven),
    "testing-stale": ("wrapper", Stale),
    "testing-worth": ("reward", Worth),
    "testing-trickle": ("reward", Trickle),
    "testing-credit": ("advantage", Credit),
    "testing-follow": ("update", Follow),
    "testing-judge": ("feedback", Judge),
}
