"""Comparisons and rankings as rows: the rows of a group are the answers, and better answers have higher rewards."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

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
    Record,
    Rollout,
    hookimpl,
)
from hookline_plugins.rollouts.events import PAIR, answer_of, event_of, wanted
from hookline_plugins.splits import Split, in_split

COLUMNS = ("recorded_B", "gold_B")


class Preferences(Component):
    """Reads a file of `prompt`, `chosen`, `rejected`, or the judgements that an earlier phase collected.

    A comparison is two rows with reward 1 and 0; a ranking is a row for each answer, with the number of places below it as
    reward, and answers that tie are not compared. A correction is preferred to what it corrects.
    """

    needs = property(lambda self: frozenset({"feedback"} if self.config.from_ else ()))
    gives = frozenset({"groups", "pairs", "recorded_B"})

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose judgements are read, with exactly the tokens that were sampled."""
        path: DataName | None = None
        """Alternatively, a file with `prompt`, `chosen` and `rejected`."""
        split: Split = "all"
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
        left = same = empty = unordered = 0
        for i in wanted(source.records, self.config.split):
            answers = self.judgement(i)
            texts = {tuple(answer.answer_ids) for answer in answers}
            if not answers:
                unordered += 1
            elif max(map(len, answers)) > longest:
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
        if unordered:
            ctx.run.notice(
                f"{source.name}: {unordered} of {len(source)} judgements put no answer before another, e.g. ties and ratings, and "
                "were left out"
            )
        if empty:
            ctx.run.notice(f"{source.name}: {empty} of {len(source)} judgements have an empty answer")

    def reads_row(self, record: Record) -> bool:
        return in_split(record, self.config.split)

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(wanted(records, self.config.split)), self.config.rows

    def read_row(self, ctx: Encoder, record: Any, where: str, longest: int | None = None) -> list[Encoded]:
        """The answers that are compared, best first; none if the judgement does not put one before another."""
        how: Any = {"where": where, "longest": longest or self.config.longest or None, "overlong": self.config.overlong}
        event = event_of(record, where)
        if event is None:
            return [_ranked(ctx.encode(record, answer=PAIR[place], **how), 1 - place) for place in (0, 1)]
        levels = event.levels() or {}
        if len(set(levels.values())) < 2:
            return []
        gold = {i: candidate.gold for i, candidate in enumerate(event.candidates)}
        order = sorted(levels, key=lambda i: -levels[i])
        return [_ranked(answer_of(ctx, event, i, record, how), levels[i], gold.get(i)) for i in order]

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        judged = [self.judgement(self.judgements[i]) for i in ctx.take(len(self.judgements), self.config.rows)]
        rows = [answer for answers in judged for answer in answers]
        group = [number for number, answers in enumerate(judged) for _ in answers]
        columns = {} if rows else dict.fromkeys(COLUMNS, torch.zeros(0))
        return Rollout.build(ctx, rows, source=self.config.from_ or self.config.path, group=group, columns=columns)


def _ranked(answer: Encoded, level: int, gold: float | None = None) -> Encoded:
    """An answer with the reward of its place, and its true reward where that is known."""
    worth = (float(level), nan if gold is None else gold)
    return replace(
        answer, columns={**answer.columns, **{name: torch.tensor(value) for name, value in zip(COLUMNS, worth)}}
    )
