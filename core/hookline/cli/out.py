"""The output of commands: text and tables for people, or one JSON value under `--json`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hookline.errors import PluginError, shorten

__all__ = ["Printer", "as_json"]


class Printer:
    """`hookline.contract.command.Out` on standard output.

    who: the command that prints, for the message about a value that JSON cannot represent.
    """

    def __init__(self, json: bool = False, who: str = "the command") -> None:
        self.json = json
        self.values = 0
        """How often `value` was called."""
        self._who, self._file = who, sys.stdout

    def text(self, text: str) -> None:
        if not self.json:
            print(text, file=self._file, flush=True)

    def unread(self) -> bool:
        """Whether the reader of the output, such as `| head`, has stopped reading."""
        try:
            print(end="", file=self._file, flush=True)
        except BrokenPipeError:
            return True
        return False

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        names = list(columns) or list(dict.fromkeys(key for row in rows for key in row))
        cells = [[_cell(row.get(name)) for name in names] for row in rows]
        widths = [
            max(len(name), *(len(line[i]) for line in cells)) if cells else len(name) for i, name in enumerate(names)
        ]
        right = [
            any(_is_number(row.get(name)) for row in rows)
            and all(_is_number(row.get(name)) for row in rows if row.get(name) is not None)
            for name in names
        ]
        for line in (names, *cells):
            shown = (cell.rjust(width) if left else cell.ljust(width) for cell, width, left in zip(line, widths, right))
            self.text("   ".join(shown).rstrip())

    def value(self, value: Any) -> None:
        self.values += 1
        if self.json and self.values == 1:
            if odd := _odd(value):
                hint = "give text, finite numbers, true, false, null, and lists and mappings of these"
                raise PluginError(f"{self._who} gave {odd} under --json, which is not a JSON value", hint)
            print(as_json(value), file=self._file, flush=True)


def as_json(value: Any) -> str:
    """A value as JSON text, in the form that every command prints."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def _odd(value: Any, at: str = "", depth: int = 0) -> str:
    """The first part of a value that JSON cannot represent, and its place; empty if there is none."""
    where = f" at {at}" if at else ""
    if value is None or isinstance(value, str | int):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value}{where}"
    if not isinstance(value, dict | list | tuple) or depth > 100:
        return f"{shorten(repr(value))}{where}"
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(value, dict) and not isinstance(key, str | int):
            return f"the key {shorten(repr(key))}{where}"
        if odd := _odd(item, f"{at}.{key}" if at else str(key), depth + 1):
            return odd
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
