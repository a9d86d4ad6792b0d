"""Prompts with their answers, read from a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, Rollout, hookimpl, pad_rows


class Dataset(Component):
    """Rows of `prompt` and `completion`."""

    class Config(hookline.Config):
        path: DataName
        """Rows with `prompt` and `completion`: a .jsonl file, or builtin:NAME/SPLIT."""
        rows: int = Field(32, ge=1)
        """Rows per step."""
        longest: int = Field(0, ge=0)
        """Leave out rows of more tokens, prompt and answer together; 0: the model's context."""

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        longest = self.config.longest or ctx.role_named("policy").context
        self.rows: list[tuple[list[int], list[int], Any]] = []
        for number, record in enumerate(source.records):
            for field in ("prompt", "completion"):
                if not isinstance(record.get(field), str):
                    has = f"is {type(record[field]).__name__}, not text" if field in record else "is missing"
                    raise DataError(f"{source.name} row {number + 1}: '{field}' {has}", f"it has: {', '.join(record)}")
            prompt, answer = ctx.tokenizer.prompt(record["prompt"]), ctx.tokenizer.answer(record["completion"])
            if len(prompt) + len(answer) <= longest:
                self.rows.append((prompt, answer, record))
        if not self.rows:
            raise DataError(
                f"{source.name}: 0 of {len(source)} rows fit into {longest} tokens",
                "raise `longest`, or build a longer context",
            )
        if len(self.rows) < len(source):
            left = len(source) - len(self.rows)
            ctx.run.notice(f"{source.name}: {left} of {len(source)} rows are longer than {longest} tokens and left out")

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        chosen = ctx.take(len(self.rows), self.config.rows)
        return recorded(ctx, [self.rows[i] for i in chosen], range(len(chosen)), self.config.path)


def recorded(
    ctx: Context, rows: Sequence[tuple[list[int], list[int], Any]], groups: Sequence[int], source: str
) -> Rollout:
    """Read rows of (prompt ids, answer ids, record) as a Rollout without behaviour.

    groups: per row, a number below the count of rows; rows of one prompt share it. It becomes unique in the run.
    """
    sample_B = ctx.sample_ids(len(rows))
    prompt_ids_BP, prompt_length_B = pad_rows([prompt for prompt, _, _ in rows])
    token_ids_BT, length_B = pad_rows([answer for _, answer, _ in rows])
    return Rollout(
        prompt_ids_BP=prompt_ids_BP,
        prompt_length_B=prompt_length_B,
        token_ids_BT=token_ids_BT,
        length_B=length_B,
        mask_BT=torch.arange(token_ids_BT.shape[1]) < length_B[:, None],
        group_B=torch.tensor(list(groups), dtype=torch.long) + (sample_B[0] if rows else 0),
        sample_B=sample_B,
        records=tuple(record for _, _, record in rows),
        decode=ctx.tokenizer.decode,
        finish_reason=("recorded",) * len(rows),
        source=(source,) * len(rows),
    )
