"""What a cell of a text table means. It depends on the column's name and the cell alone, never on other rows."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

__all__ = ["Unreadable", "cell_of", "reader_of"]

TEXTS = {
    *("prompt", "completion", "chosen", "rejected", "text", "instruction", "input", "output", "query", "question"),
    *("response", "answer", "system"),
}
"""Columns of text: a JSON list in one of them is text too, unless it is a conversation."""
TALKS = {"messages", "conversations", "tools"}
"""Columns that hold JSON in every row."""
JUDGED = re.compile(r"(^|[^a-z])(label|score|reward|margin|weight|rating)s?([^a-z]|$)", re.IGNORECASE)
"""The names of columns whose cells may be numbers or truth values."""
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)
PYTHON = re.compile(r"\s*\[?\s*\{\s*'")
"""How a list or dict of Python begins; JSON has double quotes."""
DIGITS = 40


ELSEWHERE = "name a .jsonl or .parquet file, or rename the column"


class Unreadable(ValueError):
    """A cell that cannot be what its column needs, or a value that no cell can be. The first argument says why, the second what to do."""


def reader_of(column: str) -> Callable[[str], Any]:
    """A function from a cell to its value; None means that the row has no such value."""
    if JUDGED.search(column):
        return _judged
    if column.lower() in TALKS:
        return _talk
    return _text if column.lower() in TEXTS else _free


def cell_of(value: Any, read: Callable[[str], Any]) -> str:
    """The cell that is read as a value. Raises Unreadable if there is none."""
    cell = "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    try:
        found = read(cell)
    except Unreadable:
        found = None
    same = isinstance(found, str) if isinstance(value, str) else json.dumps(found) == json.dumps(value)
    if same and found == value:
        return cell
    if value is None:
        raise Unreadable("is missing, and would be read as an empty text", "give it a text, or name a .jsonl file")
    shown = cell if len(cell) <= 40 else f"{cell[:39]}…"
    if isinstance(value, str):
        kind = "nothing" if found is None else "JSON" if isinstance(found, list | dict) else "a number or a truth value"
        raise Unreadable(f"holds the text {shown!r}, which would be read as {kind}", ELSEWHERE)
    raise Unreadable(f"holds {shown}, which would be read as text", ELSEWHERE)


def _judged(cell: str) -> Any:
    """A number, true, false, nothing, or whatever a free cell is."""
    plain = cell.strip()
    if plain.lower() in ("true", "false"):
        return plain.lower() == "true"
    if (found := NUMBER.fullmatch(plain)) and len(plain) <= DIGITS:
        value = float(plain) if found[2] or found[3] else int(plain)
        return value if math.isfinite(value) else cell
    return _free(cell) if plain else None


def _talk(cell: str) -> Any:
    if not cell.strip():
        return None
    try:
        return _json(cell)
    except (ValueError, RecursionError) as err:
        _refuse_python(cell)
        raise Unreadable(f"is not JSON: {err}", "write the cell with json.dumps") from None


def _text(cell: str) -> Any:
    value = _free(cell)
    if isinstance(value, dict):  # one message, or the `input` of OpenAI's comparisons
        value = [value] if _is_message(value) else value.get("messages")
    messages = isinstance(value, list) and value and all(map(_is_message, value))
    return _free(cell) if messages else cell


def _is_message(item: object) -> bool:
    return isinstance(item, dict) and ({"role", "content"} <= item.keys() or {"from", "value"} <= item.keys())


def _free(cell: str) -> Any:
    """A JSON list or object as what it is; anything else is text."""
    if not cell.lstrip().startswith(("[", "{")):
        return cell
    try:
        value = _json(cell)
    except (ValueError, RecursionError):
        _refuse_python(cell)
        return cell
    return value


def _refuse_python(cell: str) -> None:
    """Raise Unreadable for messages that were written by Python's `str`, as pandas' `to_csv` does."""
    if PYTHON.match(cell) and re.search(r"'(role|from)'\s*:", cell):
        raise Unreadable("holds a list of Python, not JSON", "write the cell with json.dumps")


def _json(cell: str) -> Any:
    value = json.loads(cell, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    if re.search(r"\\u[dD][89a-fA-F]", cell):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character raises ValueError
    return value


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        raise ValueError("a key appears twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value
