"""Recorded episodes: actions, outcomes and rewards. The offline counterpart of `episodes`."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, Encoded, Record, Rollout, hookimpl


class Transcripts(Component):
    """Rows of `prompt` and `turns`, each turn [action, shown words, reward]. Only actions are learned from; the reward of an
    action is on its last token."""

    gives = frozenset({"recorded_BT"})

    class Config(hookline.Config):
        path: DataName
        """Rows with `prompt` and `turns`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(32, ge=1)
        """Episodes per step."""

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        longest = ctx.role_named("policy").context
        self.row = source.made(lambda record, where: self._read(ctx, record, where, longest))
        self.size = len(source)
        for i in range(self.size):
            self.row(i)  # is shown to be an episode

    def _read(self, ctx: Context, record: Record, where: str, longest: int) -> Encoded:
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
        if len(row) > longest:
            raise DataError(
                f"{where} has {len(row)} tokens, but the model has {longest} positions",
                "build the model with a longer context, or leave the row out",
            )
        return row

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        rows = [self.row(i) for i in ctx.take(self.size, self.config.rows)]
        none = {} if rows else {"recorded_BT": torch.zeros(0, 1)}
        return Rollout.build(ctx, rows, source=self.config.path, columns=none)


def _encoded(ctx: Context, text: object, where: str) -> list[int]:
    if not isinstance(text, str):
        raise DataError(
            f"{where} is {'null' if text is None else type(text).__name__}, not text",
            'write it as text; "" is an empty one',
        )
    try:
        return ctx.encode_turn((), text)
    except DataError as err:
        raise DataError(f"{where}: {err.message}", err.hint) from None
