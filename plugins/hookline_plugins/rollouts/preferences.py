"""Comparisons and rankings as rows: the rows of a group are the answers, and better answers have higher rewards."""

from __future__ import annotations

import hashlib
from array import array
from math import nan
from typing import Any, Literal

import torch
from pydantic import Field

import hookline
from hookline import (
    Component,
    Context,
    DataError,
    DataName,
    Encoded,
    Encoder,
    Overlong,
    PhaseName,
    Rollout,
    hookimpl,
)


class Preferences(Component):
    """Reads a file of `prompt`, `chosen`, `rejected`, or the judgements that an earlier phase collected.

    A comparison is two rows with reward 1 and 0; a ranking of K answers is K rows with rewards K−1 … 0.
    """

    needs = property(lambda self: frozenset({"feedback"} if self.config.from_ else ()))
    gives = frozenset({"groups", "pairs", "recorded_B"})

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose judgements are read, with exactly the tokens that were sampled."""
        path: DataName | None = None
        """Alternatively, a file with `prompt`, `chosen` and `rejected`."""
        split: Literal["all", "train", "heldout"] = "all"
        """`heldout`: about a tenth of the prompts, chosen by a hash, which `train` never contains."""
        longest: int = Field(0, ge=0)
        """The maximum number of tokens of prompt and answer together; 0: the model's context."""
        overlong: Overlong = "leave-out"
        """What happens to judgements with a longer answer: `truncate` cuts its end, `refuse` ends the run."""
        rows: int = Field(32, ge=1)
        """Judgements per step (each is two rows or more)."""

    def setup(self, ctx: Context) -> None:
        if (self.config.from_ is None) == (self.config.path is None):
            raise DataError("preferences are read either `from` a phase or from a `path`", "give exactly one")
        source = ctx.collected(self.config.from_) if self.config.from_ else ctx.rows(self.config.path)
        longest = self.config.longest or ctx.role_named("policy").context
        self.judgement = source.made(lambda record, where: self.read_row(ctx, record, where, longest))
        self.judgements = array("q")
        left = same = empty = 0
        for i, record in enumerate(source.records):
            if self._wanted(record):
                answers = self.judgement(i)
                texts = {tuple(answer.answer_ids) for answer in answers}
                if max(map(len, answers)) > longest:
                    left += 1
                elif len(texts) == 1:
                    same += 1
                else:
                    self.judgements.append(i)
                    empty += (ctx.tokenizer.eos,) in texts
        if not self.judgements:
            raise DataError(
                f"{source.name}: 0 of {len(source)} judgements are in split '{self.config.split}', fit the context "
                "and have different answers",
                "check the split, the lengths, and that the answers of a row differ",
            )
        if left:
            ctx.run.notice(f"{source.name}: {left} judgements are longer than {longest} tokens and were left out")
        if same:
            ctx.run.notice(
                f"{source.name}: {same} of {len(source)} judgements compare identical answers and were left out"
            )
        if empty:
            ctx.run.notice(f"{source.name}: {empty} of {len(source)} judgements have an empty answer")

    def _wanted(self, record: Any) -> bool:
        if self.config.split == "all":
            return True
        tenth = hashlib.sha256(str(record.get("prompt")).encode()).digest()[0] < 26
        return tenth is (self.config.split == "heldout")

    def read_row(self, ctx: Encoder, record: Any, where: str, longest: int | None = None) -> list[Encoded]:
        """The answers that are compared, best first."""
        if "ranking" in record:
            return _sampled(ctx, record, where)
        how: Any = {"where": where, "longest": longest or self.config.longest or None, "overlong": self.config.overlong}
        return [ctx.encode(record, answer=answer, **how) for answer in ("chosen", "rejected")]

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        chosen = ctx.take(len(self.judgements), self.config.rows)
        rows, groups, rewards, gold = [], [], [], []
        for group, i in enumerate(chosen):
            answers = self.judgement(self.judgements[i])
            ranking = answers[0].record.get("ranking", ())
            worth = [answer.get("gold", nan) for answer in ranking] or [nan] * len(answers)
            for rank, answer in enumerate(answers):
                rows.append(answer)
                groups.append(group)
                rewards.append(float(len(answers) - 1 - rank))
                gold.append(float(worth[rank]))
        columns = {"recorded_B": torch.tensor(rewards), "gold_B": torch.tensor(gold)}
        source = self.config.from_ or self.config.path
        return Rollout.build(ctx, rows, source=source, group=groups, columns=columns)


def _sampled(ctx: Encoder, record: Any, where: str) -> list[Encoded]:
    """The answers of a judgement with exactly the tokens that were sampled; checks that the ids belong to this tokenizer."""

    def fits(ids: Any) -> bool:
        known = ctx.tokenizer.vocabulary
        return isinstance(ids, list) and bool(ids) and all(type(i) is int and 0 <= i < known for i in ids)

    ranking = record["ranking"]
    answers: list[Any] = []
    if isinstance(ranking, list):
        answers = [answer.get("token_ids") if isinstance(answer, dict) else None for answer in ranking]
    if len(answers) < 2:
        raise DataError(f"{where}: 'ranking' is not a list of two or more answers", "rank at least two")
    if not fits(record.get("prompt_ids")) or not all(map(fits, answers)):
        raise DataError(
            f"{where}: its prompt_ids and token_ids are not all lists of this tokenizer's ids",
            "give `prompt`, `chosen` and `rejected` as text instead",
        )
    for answer in ranking:
        gold = answer.get("gold", 0.0)
        if isinstance(gold, bool) or not isinstance(gold, int | float) or abs(gold) > torch.finfo(torch.float32).max:
            raise DataError(
                f"{where}: the gold reward {gold!r:.40} is not a float32", "write a number, or leave it out"
            )
    return [Encoded(prompt_ids=record["prompt_ids"], answer_ids=answer, record=record) for answer in answers]
