"""Tools that a policy calls: their schemas, and the messages that answer the calls of a reply."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from hookline import DataError, Encoder, ExperimentError, Record

__all__ = ["answers", "conversation", "schema_of"]


def schema_of(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """The JSON schema of a function, from its type hints and its docstring in Google's style, as transformers reads them.

    where: the function's file and name, for messages. Raises ExperimentError for a function that does not describe itself.
    """
    from transformers.utils import get_json_schema

    try:
        found: dict[str, Any] = copy.deepcopy(get_json_schema(function))
    except Exception as err:  # its own errors, and those of what it looks at
        why = " ".join(str(err).split())[:200] or type(err).__name__
        raise ExperimentError(
            f"{where} cannot be a tool: {why}",
            "give every parameter a type and a line under `Args:` in the docstring",
        ) from None
    return found


async def answers(
    ctx: Encoder, reply: str, tools: Sequence[Mapping[str, Any]], call: Callable[[str, dict[str, Any]], Awaitable[str]]
) -> list[dict[str, Any]]:
    """One message for each call of a reply, in the order of the calls; empty for a reply that calls nothing.

    The calls of one reply are made one after the other. A call of an unknown tool, and one that cannot be read, is answered with
    a sentence for the policy.
    """
    message, unread = ctx.read_turn(reply, tools=tools)
    known = [str(tool["function"]["name"]) for tool in tools]
    found = []
    for one in message.get("tool_calls", ()):
        name, arguments = one["function"]["name"], dict(one["function"]["arguments"])
        said = (
            await call(name, arguments)
            if name in known
            else f"Error: no tool is called '{name[:60]}'; there are: {', '.join(known)}"
        )
        found.append(
            {"role": "tool", "name": name, "content": said, **({"tool_call_id": one["id"]} if "id" in one else {})}
        )
    found += [
        {"role": "tool", "name": "", "content": f"Error: the call cannot be read: {text[:200]}"} for text in unread
    ]
    return found


def conversation(record: Record, who: str) -> list[dict[str, Any]]:
    """The messages that a row begins with: its `prompt`, as messages or as a user's text, or its `messages` before the answer."""
    prompt = record.get("prompt", record.get("messages"))
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    found = [dict(message) for message in prompt or ()]
    while found and found[-1].get("role") == "assistant":
        found.pop()
    if not found:
        raise DataError(
            f"{who} begins on a row without a `prompt`; it has: {', '.join(record) or 'nothing'}",
            "add a column `prompt`",
        )
    return found
