"""What a policy answered, as an assistant's message: its text, its thoughts, and the tools it calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["read", "thought_of"]

CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
"""A call as Hermes and Qwen write it."""
THOUGHT = re.compile(r"\A(?:\s*<think>)?(.*?)</think>\s*", re.DOTALL)


def read(
    text: str, template: Mapping[str, Any] | None = None, opening: str = "", tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[dict[str, Any], list[str]]:
    """An answer as a message, and the texts of calls that cannot be read, which stay in its content.

    template: the folder's `response_template`. opening: what the chat template wrote before the answer. tools: by their schemas
    arguments get their types.
    """
    if template is None:
        return _hermes(text)
    from transformers.utils.chat_parsing import parse_response

    try:
        found = parse_response(text, dict(template), prefix=opening, tools=[dict(tool) for tool in tools])
    except Exception:  # its parsers raise what JSON and regular expressions raise
        return {"role": "assistant", "content": text}, [text]
    calls = [call for call in found.get("tool_calls") or () if _is_call(call)]
    unread = [json.dumps(call, default=str) for call in found.get("tool_calls") or () if not _is_call(call)]
    thought = found.get("thinking") or found.get("reasoning_content") or found.get("reasoning")
    return _message(str(found.get("content") or ""), thought, calls), unread


def thought_of(text: str) -> str:
    """The thought with which an answer begins, with its tags; empty if there is none."""
    thought = THOUGHT.match(text)
    return thought[0] if thought else ""


def _hermes(text: str) -> tuple[dict[str, Any], list[str]]:
    thought = THOUGHT.match(text)
    said = text[thought.end() :] if thought else text
    calls, unread, left, at = [], [], "", 0
    for match in CALL.finditer(said):
        call = _call(match[1])
        if call is None:
            unread.append(match[0])
            continue
        calls.append(call)
        left, at = left + said[at : match.start()], match.end()
    return _message((left + said[at:]).strip() if calls else said, thought and thought[1].strip(), calls), unread


def _call(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
        arguments = found.get("arguments", found.get("parameters", {}))
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        call = {"type": "function", "function": {"name": found["name"], "arguments": arguments}}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return call if _is_call(call) else None


def _is_call(call: Any) -> bool:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return False
    return isinstance(function.get("name"), str) and isinstance(function.get("arguments"), Mapping)


def _message(content: str, thought: Any, calls: Sequence[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = str(thought)
    if calls:
        message["tool_calls"] = list(calls)
    return message
