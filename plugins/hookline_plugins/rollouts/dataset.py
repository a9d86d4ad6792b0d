"""Prompts and answers read from a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

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


class Dataset(Component):
    """Rows of `prompt` and `completion`, as text or as messages, or of `messages`."""

    gives = property(lambda self: frozenset({"recorded_B"} if self.config.label else ()))

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"assistant_only_loss": "learn", "mask_history": "learn"}
        path: DataName
        """Rows with `prompt` and `completion`, or `messages`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(32, ge=1)
        """Rows per step."""
        longest: int = Field(0, ge=0)
        """The maximum number of tokens of prompt and answer together; 0: the model's context."""
        overlong: Overlong = "leave-out"
        """What happens to longer rows: `truncate` cuts the end of the answer, `refuse` ends the run."""
        learn: Literal["all", "last"] = "all"
        """Which turns of the assistant in `messages`, or in a completion of several messages, are learned."""
        label: str = ""
        """The field with a label, true or false, or a number, which is paid as the row's reward, e.g. `label` for KTO."""

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        longest = self.config.longest or ctx.role_named("policy").context
        self.row = source.made(lambda record, where: self.read_row(ctx, record, where, longest))
        silent: set[int] = set()

        def looked_at(i: int) -> Encoded:
            row = self.row(i)
            if len(row.answer_ids) == 1:
                silent.add(i)
            return row

        self.rows = fitting(ctx, source, looked_at, longest)
        if empty := len(silent.intersection(self.rows)):
            ctx.run.notice(
                f"{source.name}: {empty} of {len(self.rows)} rows have an empty completion; they teach only to end at once"
            )

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        return len(records), self.config.rows

    def read_row(self, ctx: Encoder, record: Record, where: str, longest: int | None = None) -> Encoded:
        c = self.config
        row = ctx.encode(record, where=where, learn=c.learn, longest=longest or c.longest or None, overlong=c.overlong)
        if not self.config.label:
            return row
        label = record.get(self.config.label)
        if not isinstance(label, bool | int | float) or not math.isfinite(label):
            raise DataError(
                f"{where}: '{self.config.label}' is {label!r:.40}, not a label", "write true, false or a number"
            )
        return replace(row, columns={"recorded_B": torch.tensor(float(label))})

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        rows = [self.row(self.rows[i]) for i in ctx.take(len(self.rows), self.config.rows)]
        none = {"recorded_B": torch.zeros(0)} if self.config.label and not rows else {}
        return Rollout.build(ctx, rows, source=self.config.path, columns=none)
