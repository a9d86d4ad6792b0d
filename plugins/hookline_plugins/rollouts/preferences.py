"""Comparisons as experience: two rows of one group, the chosen one with reward 1, the rejected one with 0."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, PhaseName, Rollout, hookimpl
from hookline_plugins.rollouts.dataset import recorded


class Preferences(Component):
    """`prompt`, `chosen`, `rejected`, from a file or from the comparisons that an earlier phase collected."""

    gives = frozenset({"groups", "pairs", "recorded_B"})

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose collected comparisons are read, token for token as they were sampled."""
        path: DataName | None = None
        """Or a file with `prompt`, `chosen` and `rejected`."""
        split: Literal["all", "train", "heldout"] = "all"
        """`heldout`: the prompts, about a tenth, that `train` never shows; chosen by a hash of the prompt."""
        rows: int = Field(32, ge=1)
        """Comparisons per step (twice as many rows)."""

    def setup(self, ctx: Context) -> None:
        if (self.config.from_ is None) == (self.config.path is None):
            raise DataError("preferences come either `from` a phase or from a `path`", "give exactly one")
        source = ctx.collected(self.config.from_) if self.config.from_ else ctx.rows(self.config.path)
        self.pairs = [
            self._pair(ctx, record, f"{source.name} row {number + 1}")
            for number, record in enumerate(source.records)
            if self._wanted(record)
        ]
        longest = ctx.role_named("policy").context
        fitting = [pair for pair in self.pairs if len(pair[0]) + max(len(pair[1]), len(pair[2])) <= longest]
        if not fitting:
            raise DataError(
                f"{source.name}: 0 of {len(source)} comparisons are in split '{self.config.split}' and fit",
                "check split and lengths",
            )
        if len(fitting) < len(self.pairs):
            left = len(self.pairs) - len(fitting)
            ctx.run.notice(f"{source.name}: {left} comparisons are longer than {longest} tokens and left out")
        self.pairs = fitting

    def _wanted(self, record: Any) -> bool:
        if self.config.split == "all":
            return True
        tenth = hashlib.sha256(str(record.get("prompt")).encode()).digest()[0] < 26
        return tenth is (self.config.split == "heldout")

    def _pair(self, ctx: Context, record: Any, where: str) -> tuple[list[int], list[int], list[int], Any]:
        for field in ("prompt", "chosen", "rejected"):
            if not isinstance(record.get(field), str):
                has = f"is {type(record[field]).__name__}, not text" if field in record else "is missing"
                raise DataError(f"{where}: '{field}' {has}", f"the row has: {', '.join(record)}")
        if "chosen_ids" in record:
            given = [record.get(key) for key in ("prompt_ids", "chosen_ids", "rejected_ids")]
            for key, ids in zip(("prompt_ids", "chosen_ids", "rejected_ids"), given):
                whole = isinstance(ids, list) and all(type(i) is int and 0 <= i < ctx.tokenizer.vocabulary for i in ids)
                if not whole or (key == "prompt_ids" and not ids):
                    raise DataError(f"{where}: '{key}' is no list of this tokenizer's ids", "drop the *_ids from the row")
            return given[0], given[1], given[2], record
        t = ctx.tokenizer
        return t.prompt(record["prompt"]), t.answer(record["chosen"]), t.answer(record["rejected"]), record

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        chosen = ctx.take(len(self.pairs), self.config.rows)
        rows, groups = [], []
        for i in chosen:
            prompt, better, worse, record = self.pairs[i]
            rows += [(prompt, better, record), (prompt, worse, record)]
            groups += [i, i]
        rollout = recorded(ctx, rows, groups, self.config.from_ or self.config.path)
        return rollout.with_extra(recorded_B=torch.tensor([1.0, 0.0]).repeat(len(chosen)))
