"""How a record becomes tokens: the one place that reads its fields. Plain text: `prompt`, and an answer by its field's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline.batch.encoded import Encoded, Record
from hookline.data.sources import at, text_of
from hookline.data.tokenizer import Tokenizer
from hookline.errors import DataError

__all__ = ["encode", "encode_turn"]

NOT_READ = ("messages", "tools", "images")
"""Fields of chat and vision data that plain text has no room for."""


def encode(
    tokenizer: Tokenizer,
    record: Record,
    *,
    answer: str | None = "completion",
    where: str = "",
    longest: int | None = None,
    new_tokens: int = 0,
) -> Encoded:
    """A record's `prompt`, and the answer in the field `answer`, as token ids; see `hookline.Context.encode`.

    Raises DataError also for a record with what plain text has no room for: `messages`, `tools`, `images`.
    """
    refuse_unread(record, where)
    prompt_ids = tokenizer.prompt(text_of(record, "prompt", where))
    answer_ids = tokenizer.answer(text_of(record, answer, where)) if answer is not None else []
    encoded = Encoded(prompt_ids=prompt_ids, answer_ids=answer_ids, record=record)
    if longest is not None and len(encoded) + new_tokens > longest:
        what = "prompt and answer have" if answer is not None else "prompt has"
        new = f", with {new_tokens} new ones" if new_tokens else ","
        raise DataError(
            at(where, f"its {what} {len(encoded)} tokens{new} there is room for {longest - new_tokens}"),
            f"shorten it, {'lower max_new_tokens, ' if new_tokens else ''}or build a longer context",
        )
    return encoded


def encode_turn(tokenizer: Tokenizer, previous: Sequence[Mapping[str, Any]], message: str) -> list[int]:
    """The ids that one more turn adds behind those of `previous`; plain text adds its own and nothing around it.

    previous: the chat messages so far, which decide what a chat template adds; plain text has none. message: what is
    said or shown. Raises DataError for chat messages, which need a template that no tokenizer has here.
    """
    if previous or not isinstance(message, str):
        raise DataError("chat messages cannot be encoded: there is no chat template", "give the turn as plain text")
    return tokenizer.encode(message)


def refuse_unread(record: Record, where: str = "") -> None:
    """Refuse a record whose fields say more than plain text can, instead of learning from half of it."""
    unread = next((name for name in NOT_READ if record.get(name)), None)
    if unread and not (unread == "messages" and "prompt" in record):
        raise DataError(
            at(where, f"'{unread}' cannot be encoded: rows are plain text"), "write `prompt` and `completion` as text"
        )
