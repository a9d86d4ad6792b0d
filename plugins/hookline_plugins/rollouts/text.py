"""Plain text as rows: the stream of tokens is cut into blocks."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import ClassVar

from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, Encoded, Encoder, Record, Rollout, hookimpl


class Text(Component):
    """Texts joined end to end and cut into blocks. In an epoch every token is predicted once, except the very first
    token and a tail that is shorter than a block."""

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "block_size": "length", "seq_length": "length", "sequence_length": "length", "context_length": "length",
            "max_length": "length", "max_seq_length": "length",
        }  # fmt: skip
        path: DataName
        """Rows with `text`: a file, or builtin:NAME/SPLIT."""
        rows: int = Field(16, ge=1)
        """Blocks per step."""
        length: int = Field(256, ge=2)
        """Tokens predicted per block. Longer blocks show more context and cost more memory."""

    positions = property(lambda self: int(self.config.length) + 1)

    def setup(self, ctx: Context) -> None:
        source = ctx.rows(self.config.path)
        texts, end = source.texts("text"), ctx.tokenizer.eos
        self.stream, count = array("i", [end]), 0
        while some := list(islice(texts, 1000)):
            count += len(some)
            for ids in ctx.tokenizer.encode_many(some):
                self.stream.extend((*ids, end))
        if not count:
            raise DataError(f"{source.name}: 0 of {len(source)} rows have a 'text'", "name a source of plain texts")
        if count < len(source):
            ctx.run.notice(
                f"{source.name}: {len(source) - count} of {len(source)} rows have no 'text' and were left out"
            )
        length = self.config.length
        self.blocks = (len(self.stream) - 1) // length
        if not self.blocks:
            raise DataError(
                f"{source.name} has {len(self.stream)} tokens, which is less than one block of {length}",
                "lower `length`",
            )
        del self.stream[self.blocks * length + 1 :]

    def one_pass(self, ctx: Encoder, records: Sequence[Record]) -> tuple[int, int]:
        texts = iter([text for record in records if isinstance(text := record.get("text"), str) and text])
        tokens = 0
        while some := list(islice(texts, 1000)):
            tokens += sum(len(ids) + 1 for ids in ctx.tokenizer.encode_many(some))
        return tokens // self.config.length, self.config.rows

    def read_row(self, ctx: Encoder, record: Record, where: str) -> list[int] | None:
        text = record.get("text")
        if text is not None and not isinstance(text, str):
            raise DataError(f"{where}: 'text' is {type(text).__name__}, not text", "write plain text")
        return ctx.tokenizer.encode(text) if text else None

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        length = self.config.length
        starts = [block * length for block in ctx.take(self.blocks, self.config.rows)]
        blocks = [self.stream[at : at + length + 1].tolist() for at in starts]
        rows = [Encoded(prompt_ids=block[:1], answer_ids=block[1:]) for block in blocks]
        return Rollout.build(ctx, rows, source=self.config.path)
