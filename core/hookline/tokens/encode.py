"""Encodes records as tokens; no other module reads their fields. Plain text: `prompt`, and an answer by its field's
name. Conversations: `messages`, or lists of messages in these fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any, Literal

from hookline.batch.encoded import Encoded, Record
from hookline.contract.encoder import Learn, Overlong
from hookline.data.messages import messages_of
from hookline.data.rows import at, text_of
from hookline.errors import DataError
from hookline.tokens.chat import ChatTemplate
from hookline.tokens.replies import read, thought_of
from hookline.tokens.tokenizer import Tokenizer

__all__ = ["Encoding", "answers_of", "encode", "encode_text", "encode_turn", "is_chat", "read_turn"]

NOT_READ = ("images",)
"""Fields of vision data that text cannot represent."""
WHOLE = ("messages", "conversations")
"""The fields that hold a whole conversation."""
COMPARED = ("chosen", "rejected")


class Encoding:
    """What `hookline.Encoder` describes, for a tokenizer."""

    folder, at = "", "answer"

    def __init__(self, tokenizer: Tokenizer, folder: str = "", at: Literal["text", "answer"] = "answer") -> None:
        """folder: that of a model with a tokenizer of its own, for messages; at: where a finished text ends, see `Scores`."""
        self._tokenizer, self.folder, self.at = tokenizer, folder, at

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def encode(self, record: Record, **how: Any) -> Encoded:
        return encode(self.tokenizer, record, **how)

    def encode_text(self, record: Record, answer: str, *, where: str = "") -> list[int]:
        return encode_text(self.tokenizer, record, answer, where, self.folder, self.at == "text")

    def encode_turn(self, previous: Sequence[Mapping[str, Any]], message: Any, **how: Any) -> list[int]:
        return encode_turn(self.tokenizer, previous, message, **how)

    def read_turn(self, text: str, **how: Any) -> tuple[dict[str, Any], list[str]]:
        return read_turn(self.tokenizer, text, **how)


def encode(
    tokenizer: Tokenizer,
    record: Record,
    *,
    answer: str | None = "completion",
    where: str = "",
    longest: int | None = None,
    new_tokens: int = 0,
    learn: Learn = "all",
    overlong: Overlong = "refuse",
) -> Encoded:
    """Encode a record's `prompt`, and the answer in the field `answer`, as token ids; see `hookline.Encoder.encode`.

    Also raises DataError for a record with fields that text cannot represent: `images`.
    """
    refuse_unread(record, where, answer)
    if is_chat(record, answer):
        encoded = _conversation(tokenizer, record, answer, where, learn)
    else:
        prompt, text = text_of(record, "prompt", where), text_of(record, answer, where) if answer is not None else None
        try:
            prompt_ids, answer_ids = (tokenizer.prompt(prompt), []) if text is None else tokenizer.pair(prompt, text)
        except DataError as err:
            raise DataError(at(where, err.message), err.hint) from None
        if not prompt_ids:
            raise DataError(
                at(where, "its prompt is empty, and the model's tokenizer puts nothing before a text"), "write a prompt"
            )
        encoded = Encoded(prompt_ids=prompt_ids, answer_ids=answer_ids, record=record)
    if longest is not None and overlong == "truncate":
        encoded = encoded.cut(longest - new_tokens)
    if longest is not None and overlong == "refuse" and len(encoded) + new_tokens > longest:
        what = "prompt and answer have" if answer is not None else "prompt has"
        new = f", with {new_tokens} new ones" if new_tokens else ","
        raise DataError(
            at(where, f"its {what} {len(encoded)} tokens{new} there is room for {longest - new_tokens}"),
            f"shorten it, {'lower max_new_tokens, ' if new_tokens else ''}build a longer context, or set `overlong: leave-out`",
        )
    return encoded


def answers_of(record: Record) -> tuple[str | None, ...]:
    """The fields that hold a row's answers, as `encode` is asked for them: two that are compared, one, or None for a prompt."""
    if all(record.get(name) is not None for name in COMPARED):
        return COMPARED
    whole = any(record.get(name) is not None for name in ("completion", *WHOLE))
    return ("completion",) if whole else (None,)


def is_chat(record: Record, answer: str | None = None) -> bool:
    """Whether a record is a conversation."""
    if isinstance(record.get("prompt"), list):
        return True
    if record.get("prompt") is not None:
        return False
    return any(record.get(name) for name in WHOLE) or isinstance(record.get(answer or "chosen"), list)


def _conversation(tokenizer: Tokenizer, record: Record, answer: str | None, where: str, learn: Learn) -> Encoded:
    chat = _template(tokenizer, where)
    options = _options(record, where)
    before, said = _parts(record, answer, where)
    place = where or "the row"
    if not said:
        return Encoded(prompt_ids=chat.prompt(before, place, options), record=record)
    ids, chosen = chat.turns([*before, *said], place, options, learn, len(before))
    first, last = chosen.index(True), len(chosen) - chosen[::-1].index(True)
    return Encoded(prompt_ids=ids[:first], answer_ids=ids[first:last], learn=chosen[first:last], record=record)


def _parts(record: Record, answer: str | None, where: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages before an answer, and those of the answer; without an answer, the last ones of an assistant are left out."""
    compared = answer in COMPARED and record.get(answer) is not None
    whole = next((name for name in WHOLE if record.get(name) and record.get("prompt") is None and not compared), None)
    if whole:
        messages = messages_of(record[whole], at(where, f"`{whole}`"))
        if answer is not None:
            return [], messages
        while messages and messages[-1]["role"] == "assistant":
            messages.pop()
        if not messages:
            raise DataError(at(where, f"`{whole}` holds only an assistant's messages"), "begin with a user's message")
        return messages, []
    if record.get("prompt") is not None:
        before = messages_of(record["prompt"], at(where, "`prompt`"))
        return before, [] if answer is None else _answer(record, answer, where)
    if answer is not None and not compared:
        return [], _answer(record, answer, where)
    # chosen and rejected are whole conversations: what they have in common is the prompt
    both = [messages_of(record.get(name), at(where, f"`{name}`")) for name in COMPARED if name in record]
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*both)))) if len(both) == 2 else 0
    shared = min(shared, *(len(messages) - 1 for messages in both))
    if not shared:
        raise DataError(at(where, "`chosen` and `rejected` do not begin with the same messages"), "write a `prompt`")
    if answer is None:
        return both[0][:shared], []
    return both[0][:shared], both[COMPARED.index(answer) if answer in COMPARED else 0][shared:]


def _answer(record: Record, answer: str, where: str) -> list[dict[str, Any]]:
    value = record.get(answer)
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    return messages_of(value, at(where, f"`{answer}`"))


def _template(tokenizer: Tokenizer, where: str) -> ChatTemplate:
    if tokenizer.chat is None:
        raise DataError(
            at(where, "it is a conversation, but the model's tokenizer has no chat template"),
            "name one: tokenizer: {path: …, chat_template: FILE}; or write `prompt` and `completion` as text",
        )
    return tokenizer.chat


def encode_text(
    tokenizer: Tokenizer, record: Record, answer: str, where: str = "", folder: str = "", whole: bool = False
) -> list[int]:
    """The token ids of a prompt and an answer as a finished text; see `hookline.Encoder.encode_text`.

    folder: the folder of the tokenizer, if it is not the run's. whole: up to the end of what the template writes, or of what
    the tokenizer adds to plain text; else up to the token that ends the answer.
    """
    refuse_unread(record, where)
    chat = tokenizer.chat
    if is_chat(record):
        if chat is None and folder:
            raise DataError(
                at(where, f"it is a conversation, but the tokenizer in {folder} has no chat template"),
                "add the model's chat_template.jinja to that folder, or write `prompt` as text",
            )
        before = _parts(record, None, where)[0]
        chat = _template(tokenizer, where)
    else:
        prompt = text_of(record, "prompt", where)
        before = [{"role": "user", "content": prompt}]
    if chat is not None:
        options = {name: value for name, value in _options(record, where).items() if name in chat.options}
        messages = [*before, {"role": "assistant", "content": answer}]
        return chat.finished(messages, where or "the row", tokenizer.encode, whole, options)
    if not whole or tokenizer.separator is not None:
        first, last = tokenizer.pair(prompt, answer)
        return [*first, *last]
    return [*tokenizer.prefix, *tokenizer.encode(prompt + answer), *_after_text(tokenizer)]


def _after_text(tokenizer: Tokenizer) -> list[int]:
    """What a folder's tokenizer itself puts behind a text."""
    alone, with_all = (tokenizer.inner.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    first = next((i for i in range(len(with_all)) if with_all[i : i + len(alone)] == alone), len(with_all))
    return list(with_all[first + len(alone) :])


def encode_turn(
    tokenizer: Tokenizer,
    previous: Sequence[Mapping[str, Any]],
    message: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    record: Record | None = None,
    ended: bool = True,
    where: str = "the conversation",
) -> list[int]:
    """The token ids that one more turn adds after those of `previous`; see `hookline.Encoder.encode_turn`."""
    if not previous and isinstance(message, str):
        return tokenizer.encode(message)
    chat = _template(tokenizer, where)
    asked: Any = {"role": "user", "content": message} if isinstance(message, str) else message
    before = messages_of(list(previous), where)
    new = messages_of([asked] if isinstance(asked, Mapping) else list(asked), f"{where}, after message {len(before)}")
    if before[-1]["role"] != "assistant":
        raise DataError(f"{where} does not end with an assistant's message", "encode it as a prompt: ctx.encode")
    if any(one["role"] == "assistant" for one in new):
        raise DataError(
            f"{where}: a new message is an assistant's, whose tokens are drawn and not encoded",
            "give what the environment says: a tool's or a user's messages",
        )
    return chat.following([*before, *new], len(before) - 1, where, _options(record or {}, where), ended)


def read_turn(
    tokenizer: Tokenizer, text: str, *, tools: Sequence[Mapping[str, Any]] = (), record: Record | None = None
) -> tuple[dict[str, Any], list[str]]:
    """An answer as an assistant's message, and the calls that cannot be read; see `hookline.Encoder.read_turn`."""
    chat = tokenizer.chat
    if chat is None:
        return read(text)
    options = {name: value for name, value in _options(record or {}, "the conversation").items() if name in chat.options}
    message, unread = read(text, chat.replies, chat.opening(options) if chat.replies else "", tools)
    templates = chat.text + chat.for_tools
    if "tool_calls" in message and "tool_calls" not in templates:
        message["content"] = text  # the template reads the content alone
    elif "reasoning_content" in message and "reasoning_content" not in templates:
        message["content"] = thought_of(text) + message["content"]
    return message, unread


def _options(record: Record, where: str) -> dict[str, Any]:
    """What a record passes to the template."""
    given = record.get("chat_template_kwargs") or {}
    if not isinstance(given, Mapping):
        raise DataError(at(where, "`chat_template_kwargs` is not an object"), "write {name: value}")
    return {**given, **({"tools": record["tools"]} if record.get("tools") else {})}


def refuse_unread(record: Record, where: str = "", answer: str | None = None) -> None:
    """Refuse a record with fields that plain text cannot represent, instead of ignoring these fields."""
    plain = () if is_chat(record, answer) else ("tools",)
    unread = next((name for name in (*NOT_READ, *plain) if record.get(name)), None)
    if unread:
        raise DataError(
            at(where, f"'{unread}' cannot be encoded: rows are text"),
            "leave the field out, or write the prompt as messages",
        )
