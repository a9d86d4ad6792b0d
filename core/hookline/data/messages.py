"""Conversations as rows write them, in one form: `role` and `content`, arguments of calls as objects, texts in parts as such."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hookline.errors import DataError

__all__ = ["Message", "is_learned", "messages_of", "named", "prompt_messages", "speaker", "texts_of", "with_texts"]

Message = Mapping[str, Any]
SENDERS = {
    "human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "function_call": "assistant", "system": "system", "tool": "tool", "observation": "tool", "function_response": "tool",
}  # fmt: skip
"""ShareGPT's names of roles."""
THOUGHTS = ("reasoning_content", "thinking", "reasoning")
"""The names of what an assistant thinks; templates read one of the first two."""
MEDIA = ("image", "audio", "video", "file")


def speaker(message: Any) -> str | None:
    """Who speaks in a message, `role` or ShareGPT's `from`, as a role; None where no text says so."""
    who = message.get("role", message.get("from")) if isinstance(message, Mapping) else None
    return SENDERS.get(who, who) if isinstance(who, str) else None


def named(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with `role` and `content`, where it has ShareGPT's `from` and `value`."""
    own = dict(message)
    if "from" in own and "value" in own:
        sender, said = own.pop("from"), own.pop("value")
        own = {"role": SENDERS.get(sender, sender) if isinstance(sender, str) else sender, "content": said, **own}
    return own


def messages_of(value: Any, where: str) -> list[dict[str, Any]]:
    """A conversation with the keys `role` and `content`; keys without a value are dropped, arguments of calls are dicts.

    Raises DataError for a value that is not a conversation.
    """
    if not isinstance(value, list) or not value:
        raise DataError(f"{where} is not a conversation", "write a list of messages with `role` and `content`")
    found = []
    for turn, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise DataError(f"{where}, message {turn + 1} is not an object", "write {role: …, content: …}")
        own = named(_without_none(message))
        if not isinstance(own.get("role"), str):
            raise DataError(
                f"{where}, message {turn + 1} has no text as `role`; it has: {', '.join(map(str, message)) or 'nothing'}",
                "name who speaks: system, user, assistant or tool",
            )
        if not {"content", "tool_calls", "reasoning_content", "reasoning", "thinking"} & own.keys():
            raise DataError(f"{where}, message {turn + 1} of '{own['role']}' has no `content`", "write its text")
        if "content" in own:
            own["content"] = _content(own["content"], own["role"], f"{where}, message {turn + 1}")
        thought = next((own[name] for name in THOUGHTS if name in own), None)
        if thought is not None:
            own = {"thinking": thought, **own, "reasoning_content": thought}
        calls = own.get("tool_calls") or ()
        if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
            raise DataError(f"{where}, message {turn + 1}: `tool_calls` is not a list of objects", "write one per call")
        for call in calls:
            function = call.get("function", call)
            if not isinstance(function, dict):
                raise DataError(
                    f"{where}, message {turn + 1}: the function of a call is not an object",
                    "write {name: …, arguments: …}",
                )
            if isinstance(function.get("arguments"), str):
                try:
                    function["arguments"] = json.loads(function["arguments"])
                except ValueError:
                    continue  # a template that reads text gets it
        found.append(own)
    return found


def prompt_messages(record: Mapping[str, Any], where: str = "the row") -> list[dict[str, Any]] | None:
    """The conversation that a row asks about: its `prompt`, or its `messages` without the answer at their end.

    None for a row whose prompt is text. Raises DataError for messages that are none.
    """
    asked = record.get("prompt")
    if asked is not None:
        return messages_of(asked, f"{where}, `prompt`") if isinstance(asked, list) else None
    whole = next((name for name in ("messages", "conversations") if record.get(name)), None)
    if whole is None:
        return None
    found = messages_of(record[whole], f"{where}, `{whole}`")
    while found and found[-1]["role"] == "assistant":
        found.pop()
    return found


def _without_none(value: Any) -> Any:
    """A copy without the keys whose value is None, which columnar formats add to every row; lists keep their items."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _content(content: Any, role: str, where: str) -> Any:
    """A message's content; text in parts as `{type: text, text: …}`. Raises DataError for parts of another kind."""
    if not isinstance(content, str | list | Mapping):
        raise DataError(f"{where}: `content` is {type(content).__name__}, not text", "write its text")
    if not isinstance(content, list):
        return content
    found = []
    for part in content:
        own: Mapping[str, Any] = {"text": part} if isinstance(part, str) else part if isinstance(part, Mapping) else {}
        kind = own.get("type", "text")
        if kind == "text" and isinstance(own.get("text"), str):
            found.append({"type": "text", "text": own["text"]})
        elif role == "tool" and not any(word in str(kind) for word in MEDIA):
            return content  # a result that is a list
        else:
            what = f"of type '{kind}'" if "type" in own and kind != "text" else "without text"
            raise DataError(
                f"{where} has a part {what}, and rows are text", "leave the row out, or write the part as text"
            )
    return found


def is_learned(message: Message) -> bool:
    """Whether an assistant's turn is learned: unless the row says `weight: 0` (OpenAI), `train: false` (axolotl)."""
    return message.get("weight") not in (0, False) and message.get("train") is not False


def texts_of(value: Any) -> Iterator[str]:
    """Every text within messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in texts_of(inner))
    elif isinstance(value, Sequence):
        yield from (text for inner in value for text in texts_of(inner))


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Messages with every text changed, except the names of roles."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: inner if key == "role" else with_texts(inner, change) for key, inner in value.items()}
    return [with_texts(inner, change) for inner in value] if isinstance(value, Sequence) else value
