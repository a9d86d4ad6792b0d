"""Encodes records as tokens; no other module reads their fields. Plain text: `prompt`, and an answer by its field's
name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hookline.batch.encoded import Encoded, Record
from hookline.data.sources import at, text_of
from hookline.data.tokenizer import Tokenizer
from hookline.errors import DataError

__all__ = ["encode", "encode_turn"]

NOT_READ = ("messages", "tools", "images")
"""Fields of chat and vision data that plain text cannot represent."""


def encode(
    tokenizer: Tokenizer,
    record: Record,
    *,
    answer: str | None = "completion",
    where: str = "",
    longest: int | None = None,
    new_tokens: int = 0,
) -> Encoded:
    """Encode a record's `prompt`, and the answer in the field `answer`, as token ids; see `hookline.Context.encode`.

    Also raises DataError for a record with fields that plain text cannot represent: `messages`, `tools`, `images`.
    """
    refuse_unread(record, where)
    prompt, text = text_of(record, "prompt", where), text_of(record, answer, where) if answer is not None else None
    try:
        prompt_ids = tokenizer.prompt(prompt)
        answer_ids = tokenizer.answer(text) if text is not None else []
    except DataError as err:
        raise DataError(at(where, err.message), err.hint) from None
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
    """The token ids that one more turn adds after those of `previous`; plain text adds no tokens around the text.

    previous: the chat messages so far, which determine what a chat template adds; empty for plain text. message: the
    text of the turn. Raises DataError for chat messages, because these tokenizers have no chat template.
    """
    if previous or not isinstance(message, str):
        raise DataError("chat messages cannot be encoded: there is no chat template", "give the turn as plain text")
    return tokenizer.encode(message)


def refuse_unread(record: Record, where: str = "") -> None:
    """Refuse a record with fields that plain text cannot represent, instead of ignoring these fields."""
    unread = next((name for name in NOT_READ if record.get(name)), None)
    if unread and not (unread == "messages" and "prompt" in record):
        raise DataError(
            at(where, f"'{unread}' cannot be encoded: rows are plain text"), "write `prompt` and `completion` as text"
        )
