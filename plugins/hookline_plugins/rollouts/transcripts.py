"""Recorded episodes: actions, outcomes and rewards. The offline counterpart of `episodes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    Record,
    Rollout,
    hookimpl,
)
from hookline_plugins.rollouts.fitting import fitting


class Transcripts(Component):
    """Rows of `prompt` and `turns`, each turn [action, shown words, reward]. Only actions are learned from; the reward of an
    action is on its last token."""

    gives = frozenset({"recorded_BT"})

    class Config(hookline.Config):
        path: DataName
        """Rows with `prompt` and `turns`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(32, ge=1)
        """Episodes per step."""
        overlong: Overlong = "refuse"
        """What happens to episodes that are longer than the model's context: `truncate` cuts their end."""

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        longest = ctx.role_named("policy").context
        self.row = source.made(lambda record, where: self.read_row(ctx, record, where, longest))
        self.rows = fitting(ctx, source, self.row, longest, "episodes")

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(records), self.config.rows

    def read_row(self, ctx: Encoder, record: Record, where: str, longest: int | None = None) -> Encoded:
        turns = record.get("turns")
        if not isinstance(record.get("prompt"), str) or not isinstance(turns, list) or not turns:
            raise DataError(f"{where} is not an episode", f"it needs `prompt` and a list `turns`; it has: {', '.join(record)}")  # fmt: skip
        ids: list[int] = []
        chosen: list[bool] = []
        paid: list[float] = []
        for turn in turns:
            if not (isinstance(turn, list) and len(turn) == 3 and isinstance(turn[2], int | float)):
                raise DataError(
                    f"{where}: the turn {turn!r:.60} is not [action, shown, reward]", "write it as such a list"
                )
            if not abs(turn[2]) <= torch.finfo(torch.float32).max:
                raise DataError(f"{where}: the reward {turn[2]:g} is beyond float32", "scale the rewards of the file")
            said = _encoded(ctx, turn[0], f"{where}: the action of a turn")
            shown = _encoded(ctx, turn[1], f"{where}: the shown text of a turn")
            if not said:
                raise DataError(f"{where}: the action of a turn is empty", "leave the turn out")
            ids += said + shown
            chosen += [True] * len(said) + [False] * len(shown)
            paid += [0.0] * (len(said) - 1) + [float(turn[2])] + [0.0] * len(shown)
        prompt = ctx.encode(record, answer=None, where=where)
        row = replace(prompt, answer_ids=ids, learn=chosen, columns={"recorded_BT": torch.tensor(paid)})
        if longest is None or len(row) <= longest:
            return row
        if self.config.overlong == "refuse":
            raise DataError(
                f"{where} has {len(row)} tokens, but the model has {longest} positions",
                "build the model with a longer context, or set `overlong: leave-out`",
            )
        return row.cut(longest) if self.config.overlong == "truncate" else row

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        rows = [self.row(self.rows[i]) for i in ctx.take(len(self.rows), self.config.rows)]
        none = {} if rows else {"recorded_BT": torch.zeros(0, 1)}
        return Rollout.build(ctx, rows, source=self.config.path, columns=none)


def _encoded(ctx: Encoder, text: object, where: str) -> list[int]:
    if not isinstance(text, str):
        raise DataError(
            f"{where} is {'null' if text is None else type(text).__name__}, not text",
            'write it as text; "" is an empty one',
        )
    try:
        return ctx.encode_turn((), text)
    except DataError as err:
        raise DataError(f"{where}: {err.message}", err.hint) from None
