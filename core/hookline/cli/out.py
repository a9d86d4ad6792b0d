"""Where commands print: text and tables for people, or one JSON value under `--json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Printer", "as_json"]


class Printer:
    """`hookline.contract.command.Out` on standard output."""

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.values = 0
        """How often `value` was called."""

    def text(self, text: str) -> None:
        if not self.json:
            print(text, flush=True)

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
            print(as_json(value), flush=True)


def as_json(value: Any) -> str:
    """A JSON value as every command prints it."""
    return json.dumps(value, indent=1, ensure_ascii=False, default=str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
