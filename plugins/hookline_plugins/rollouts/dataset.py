"""Prompts and answers read from a dataset."""

from __future__ import annotations

from array import array

from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, Rollout, hookimpl


class Dataset(Component):
    """Rows of `prompt` and `completion`."""

    class Config(hookline.Config):
        path: DataName
        """Rows with `prompt` and `completion`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(32, ge=1)
        """Rows per step."""
        longest: int = Field(0, ge=0)
        """Leave out rows with more tokens than this in prompt and answer together; 0: the model's context."""

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        longest = self.config.longest or ctx.role_named("policy").context
        self.row = source.made(lambda record, where: ctx.encode(record, where=where))
        self.rows, empty = array("q"), 0
        for i in range(len(source)):
            row = self.row(i)
            if len(row) <= longest:
                self.rows.append(i)
                empty += len(row.answer_ids) == 1
        if not self.rows:
            raise DataError(
                f"{source.name}: 0 of {len(source)} rows fit into {longest} tokens",
                "raise `longest`, or build the model with a longer context",
            )
        if len(self.rows) < len(source):
            left = len(source) - len(self.rows)
            ctx.run.notice(
                f"{source.name}: {left} of {len(source)} rows are longer than {longest} tokens and were left out"
            )
        if empty:
            ctx.run.notice(
                f"{source.name}: {empty} of {len(self.rows)} rows have an empty completion; they teach only to end at once"
            )

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        rows = [self.row(self.rows[i]) for i in ctx.take(len(self.rows), self.config.rows)]
        return Rollout.build(ctx, rows, source=self.config.path)
