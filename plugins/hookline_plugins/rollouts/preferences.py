"""Comparisons and rankings as rows: the rows of a group are the answers, and better answers have higher rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from typing import Any

import torch

from hookline import Context, Encoded, Encoder, Rollout, hookimpl
from hookline_plugins.rollouts.events import PAIR, answer_of, event_of
from hookline_plugins.rollouts.reading import Reader, Source

COLUMNS = ("recorded_B", "gold_B")


class Preferences(Reader[Source]):
    """Reads a file of `prompt`, `chosen`, `rejected`, or the judgements that an earlier phase collected.

    A comparison is two rows with reward 1 and 0; a ranking is a row for each answer, with the number of places below it as
    reward, and answers that tie are not compared. A correction is preferred to what it corrects.
    """

    gives = frozenset({"groups", "pairs", "recorded_B"})
    unread = "put no answer before another, e.g. ties and ratings,"
    Config = Source

    def unfit(self, answers: Sequence[Encoded]) -> str:
        return "compare identical answers" if len({tuple(answer.answer_ids) for answer in answers}) == 1 else ""

    def remark(self, ctx: Context, answers: Sequence[Encoded]) -> str:
        return "have an empty answer" if any(tuple(row.answer_ids) == (ctx.tokenizer.eos,) for row in answers) else ""

    def asked(self) -> str:
        return f"are in split '{self.config.split}', fit the context and have different answers"

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
        rollout, _ = self.drawn(ctx)
        return rollout if len(rollout) else rollout.with_extra(**dict.fromkeys(COLUMNS, torch.zeros(0)))


def _ranked(answer: Encoded, level: int, gold: float | None = None) -> Encoded:
    """An answer with the reward of its place, and its true reward where that is known."""
    worth = (float(level), nan if gold is None else gold)
    return replace(
        answer, columns={**answer.columns, **{name: torch.tensor(value) for name, value in zip(COLUMNS, worth)}}
    )
