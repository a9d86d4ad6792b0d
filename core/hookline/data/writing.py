"""Rows with Hookline's fields as rows that other tools read.

What Hookline reads, it writes: a row that was shaped gives the same prompt and answers when it is read again, except that
one message of the user, or one of the assistant, is the same as its text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline.batch.stages import Record
from hookline.data import shapes
from hookline.data.messages import named
from hookline.data.shapes import FIELDS, Shape
from hookline.errors import DataError, nearest, shorten

__all__ = ["SHAPES", "shaped"]

Row = dict[str, Any]
Turns = list[dict[str, Any]]
NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
"""ShareGPT's names of roles."""
TALK = ("prompt", "completion", "messages", "conversations")
PAIR = ("prompt", "chosen", "rejected", "conversations")
OPTIONAL = ("input", "history", "system")
"""Columns that some shapes read where a row has them."""


class Unshapable(ValueError):
    """A row that a shape cannot hold. The first argument says why, the second what to do; empty: the columns it has."""


def shaped(record: Record, shape: str, where: str = "") -> Row:
    """A row in a shape that other tools read, with all its other columns; `SHAPES` names the shapes.

    Columns from which the row's fields were made are left out where the shape would be read as two. Raises DataError for
    an unknown shape, and for a row that the shape cannot hold.
    """
    if shape not in SHAPES:
        raise DataError(
            f"rows cannot be written in the shape '{shorten(shape)}'{nearest(shape, SHAPES)}",
            f"shapes: {', '.join(SHAPES)}; of judgements: events, and the formats in docs/feedback.md",
        )
    make, uses = SHAPES[shape]
    given = {name: value for name, value in record.items() if value is not None}
    sources = [one for one in shapes.SHAPES.values() if _comes_from(given, one)]
    own = {name: value for name, value in given.items() if not _repeats(name, sources)}
    if "conversations" in own and not {"messages", "prompt", "chosen"} & own.keys():
        own["messages"] = own["conversations"]
    try:
        made = make(own, where)
        rest = {name: value for name, value in own.items() if name not in uses}
        for one in sources:
            columns = (*one.columns, *(OPTIONAL if one.columns.keys() & {"instruction", "query"} else ()))
            if made.keys() & columns or one.fits({**rest, **made}):
                rest = {name: value for name, value in rest.items() if name in FIELDS or name not in columns}
        taken = next((name for name in made if name in rest and rest[name] != made[name]), None)
        if taken is not None:
            raise Unshapable(f"it has another column '{taken}'", "write it in the shape trl or messages")
    except Unshapable as err:
        why, hint = (*err.args, "")[:2]
        subject = where or "the row"
        raise DataError(
            f"{subject} cannot be written in the shape '{shape}': {why}",
            hint or f"the row has: {', '.join(record) or 'nothing'}",
        ) from None
    return {**made, **rest}


def _comes_from(record: Row, shape: Shape) -> bool:
    """Whether a row's fields are what a shape makes from its other columns."""
    if not all(name in record and holds(record[name]) for name, holds in shape.columns.items()):
        return False
    try:
        made = shape.make(record)
    except (LookupError, TypeError, ValueError, AttributeError):
        return False
    return bool(made) and all(_same(value, record.get(name), name) for name, value in (made or {}).items())


def _same(one: Any, other: Any, field: str) -> bool:
    if field in ("label", "tools") or one is None or other is None:
        return one is not None and one == other
    role = "user" if field == "prompt" else "assistant"
    try:
        first, second = _turns(one, role, field), _turns(other, role, field)
    except Unshapable:
        return False
    return first in (second, second[1:] if second[0].get("role") == "system" else second)


def _repeats(name: str, sources: Sequence[Shape]) -> bool:
    """Whether a column is a conversation from which the row's fields were made."""
    return name in ("messages", "conversations") and any(name in one.columns for one in sources)


# -- what a row says


def _turns(value: Any, role: str, field: str) -> Turns:
    """Text or messages as messages with the keys `role` and `content`."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, Mapping) for item in items):
        raise Unshapable(f"its '{field}' is not text or messages")
    return [_turn(item, field) for item in items]


def _turn(item: Mapping[str, Any], field: str) -> dict[str, Any]:
    own = named({key: value for key, value in item.items() if value is not None})
    if not isinstance(own.get("role"), str):
        raise Unshapable(f"a message of its '{field}' has no 'role'")
    return own


def _asked_and_said(row: Row) -> tuple[Turns, Turns]:
    """The messages of the prompt, and those of the answer; none where the row has no answer."""
    if "prompt" in row:
        said = _turns(row["completion"], "assistant", "completion") if "completion" in row else []
        return _turns(row["prompt"], "user", "prompt"), said
    if "messages" not in row:
        raise Unshapable("it has no 'prompt' and no 'messages'")
    turns = _turns(row["messages"], "user", "messages")
    return (turns[:-1], turns[-1:]) if turns[-1]["role"] == "assistant" else (turns, [])


def _answered(row: Row) -> tuple[Turns, dict[str, Any]]:
    """The messages of the prompt, and the one message that answers it."""
    asked, said = _asked_and_said(row)
    if not said:
        raise Unshapable("it has no 'completion'")
    return asked, _only(said, "completion")


def _compared(row: Row) -> tuple[Turns, dict[str, Any], dict[str, Any]]:
    """The messages of the prompt, and the two messages that answer it."""
    lost = next((name for name in ("chosen", "rejected") if name not in row), None)
    if lost:
        raise Unshapable(f"it has no '{lost}'")
    chosen, rejected = (_turns(row[name], "assistant", name) for name in ("chosen", "rejected"))
    if "prompt" in row:
        asked = _turns(row["prompt"], "user", "prompt")
    else:
        most = min(len(chosen), len(rejected)) - 1
        count = next((at for at in range(most) if chosen[at] != rejected[at]), most)
        asked, chosen, rejected = chosen[:count], chosen[count:], rejected[count:]
    if not asked:
        raise Unshapable("it has no 'prompt', and its answers do not begin with the same messages")
    return asked, _only(chosen, "chosen"), _only(rejected, "rejected")


def _only(said: Turns, field: str) -> dict[str, Any]:
    """The one message of an answer."""
    if len(said) != 1 or said[0]["role"] != "assistant":
        who = f"{len(said)} messages" if len(said) != 1 else f"a message of '{said[0]['role']}'"
        raise Unshapable(f"its '{field}' is {who}, not one of the assistant", "write it in the shape trl or messages")
    return said[0]


def _content(turn: Mapping[str, Any], field: str) -> str:
    """The text of a message that has nothing else."""
    more = next((key for key in turn if key not in ("role", "content")), None)
    if more is not None or not isinstance(turn.get("content"), str):
        what = f"has '{more}'" if more else "has no text as 'content'"
        raise Unshapable(f"a message of its '{field}' {what}", "write it in the shape trl or messages")
    return str(turn["content"])


# -- the shapes


def _trl(row: Row, where: str) -> Row:
    names = [name for name in FIELDS if name in row]
    if not set(names) - {"label", "tools"}:
        raise Unshapable(f"it has none of {', '.join(FIELDS[:-2])}")
    spoken = [name for name in names if name not in ("text", "label", "tools")]
    if all(isinstance(row[name], str) for name in spoken):
        return {name: row[name] for name in names}
    turns = {name: _turns(row[name], "user" if name == "prompt" else "assistant", name) for name in spoken}
    return {name: turns.get(name, row[name]) for name in names}  # text and messages are not mixed


def _talk(row: Row) -> Turns:
    """The whole conversation."""
    asked, said = _asked_and_said(row)
    if not said and "chosen" in row:
        raise Unshapable(
            "it compares two answers", "shapes for comparisons: trl, openai-pairs, sharegpt-pairs, alpaca-pairs"
        )
    return [*asked, *said]


def _messages(row: Row, where: str) -> Row:
    return {"messages": _talk(row)}


def _sharegpt(row: Row, where: str) -> Row:
    return {"conversations": [_spoken(turn) for turn in _talk(row)]}


def _spoken(turn: Mapping[str, Any]) -> dict[str, str]:
    if turn["role"] not in NAMES:
        raise Unshapable(f"ShareGPT has no name for the role '{shorten(turn['role'])}'", f"roles: {', '.join(NAMES)}")
    return {"from": NAMES[turn["role"]], "value": _content(turn, "messages")}


def _sharegpt_pair(row: Row, where: str) -> Row:
    asked, chosen, rejected = _compared(row)
    spoken = {"chosen": _spoken(chosen), "rejected": _spoken(rejected)}
    return {"conversations": [_spoken(turn) for turn in asked], **spoken}


def _sharegpt_kto(row: Row, where: str) -> Row:
    asked, answer = _answered(row)
    label = row.get("label")
    if label not in (0, 1):
        what = "has no 'label'" if label is None else f"has the label {shorten(label)}"
        raise Unshapable(f"it {what}, and kto_tag is true or false")
    return {"conversations": [_spoken(turn) for turn in (*asked, answer)], "kto_tag": bool(label)}


def _alpaca(row: Row, where: str) -> Row:
    asked, answer = _answered(row)
    instruction, before = _instruction(asked)
    return {"instruction": instruction, "input": "", "output": _content(answer, "completion"), **before}


def _alpaca_pair(row: Row, where: str) -> Row:
    asked, chosen, rejected = _compared(row)
    instruction, before = _instruction(asked)
    answers = {"chosen": _content(chosen, "chosen"), "rejected": _content(rejected, "rejected")}
    return {"instruction": instruction, "input": "", **answers, **before}


def _instruction(asked: Turns) -> tuple[str, Row]:
    """The last question, and the columns `system` and `history` for what comes before it."""
    roles, texts = [turn["role"] for turn in asked], [_content(turn, "prompt") for turn in asked]
    before: Row = {}
    if roles[0] == "system":
        if not texts[0]:
            raise Unshapable("its system message is empty")
        before["system"] = texts[0]
        roles, texts = roles[1:], texts[1:]
    if roles != [("user", "assistant")[at % 2] for at in range(len(roles))] or len(roles) % 2 == 0:
        raise Unshapable(
            "its prompt is not messages of user and assistant in turn, the last of the user",
            "write it in the shape trl or messages",
        )
    if len(texts) > 1:
        before["history"] = [list(pair) for pair in zip(texts[:-1:2], texts[1::2])]
    return texts[-1], before


def _question_answer(row: Row, where: str) -> Row:
    asked, answer = _answered(row)
    if len(asked) != 1 or asked[0]["role"] != "user":
        raise Unshapable(f"its prompt is {len(asked)} messages, not one question", "write it in the shape messages")
    return {"question": _content(asked[0], "prompt"), "answer": _content(answer, "completion")}


def _openai_pair(row: Row, where: str) -> Row:
    asked, chosen, rejected = _compared(row)
    tools = row.get("tools", [])
    try:
        tools = json.loads(tools) if isinstance(tools, str) and tools else tools or []
    except ValueError:
        raise Unshapable("its 'tools' is text, but not JSON") from None
    given = {"messages": asked, "tools": tools, "parallel_tool_calls": True}
    return {"input": given, "preferred_output": [chosen], "non_preferred_output": [rejected]}


def _verl(row: Row, where: str) -> Row:
    asked, said = _asked_and_said(row)
    made: Row = {"data_source": row.get("data_source", _source(where)), "prompt": asked}
    if said:
        made["completion"] = row.get("completion", said)
    if "answer" in row and "reward_model" not in row:
        made["reward_model"] = {"style": "rule", "ground_truth": row["answer"]}
    return made


def _source(where: str) -> str:
    """The name of the data that a row is from: `maths` for `data/maths.jsonl row 3`."""
    name = where.rpartition(" row ")[0]
    return name if ":" in name else Path(name).name.split(".")[0] or "rows"


SHAPES: dict[str, tuple[Callable[[Row, str], Row], tuple[str, ...]]] = {
    "trl": (_trl, (*FIELDS, "conversations")),
    "messages": (_messages, TALK),
    "sharegpt": (_sharegpt, TALK),
    "alpaca": (_alpaca, TALK),
    "alpaca-pairs": (_alpaca_pair, PAIR),
    "question-answer": (_question_answer, TALK),
    "openai-pairs": (_openai_pair, (*PAIR, "tools")),
    "sharegpt-pairs": (_sharegpt_pair, PAIR),
    "sharegpt-kto": (_sharegpt_kto, (*TALK, "label")),
    "verl": (_verl, TALK),
}
"""A shape that can be written → a function from a row and its position, and the columns that the function uses up."""
