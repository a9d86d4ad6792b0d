"""What a coordinator takes away: every event, or a table that a spreadsheet may open without running what a model wrote."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hookline import DataError, Event, as_row, newest, settled

__all__ = ["FORMS", "Form", "neutral"]

RISKY = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets take for a formula (OWASP)."""


@dataclass(frozen=True)
class Form:
    """One file to download."""

    media_type: str
    write: Callable[[Iterable[Event]], bytes]


def neutral(cell: Any) -> str:
    """A cell that is text in every spreadsheet: what would be a formula begins with an apostrophe."""
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.lstrip(" \n").startswith(RISKY) else text


def _events(events: Iterable[Event]) -> bytes:
    return "".join(json.dumps(event.written(), ensure_ascii=False) + "\n" for event in events).encode()


def _pairs(events: Iterable[Event]) -> bytes:
    """Rows with prompt, chosen and rejected, as preference trainers read them: one per answer that prefers one of two texts. Of a
    decided item, the decision alone."""
    lines = []
    for event in settled(events):
        try:
            row = as_row(event, event.id)
        except DataError:  # a tie, a mark, a skip
            continue
        if "chosen" in row:
            lines.append(json.dumps({**row, "annotator": event.annotator}, ensure_ascii=False) + "\n")
    return "".join(lines).encode()


def _table(events: Iterable[Event]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["item", "annotator", "kind", "answer", "seconds", "prompt", "candidates", "decides"])
    for event in newest(events):
        said = event.answer.model_dump(mode="json", exclude={"kind"})
        prompt = event.prompt if isinstance(event.prompt, str) else json.dumps(event.prompt, ensure_ascii=False)
        cells = [
            event.item,
            event.annotator,
            event.answer.kind,
            json.dumps(said, ensure_ascii=False),
            event.seconds,
            prompt,
        ]
        writer.writerow(
            [
                *map(neutral, cells),
                neutral(json.dumps([one.text for one in event.candidates], ensure_ascii=False)),
                "yes" if event.decides else "",
            ]
        )
    return out.getvalue().encode("utf-8-sig")


FORMS: dict[str, Form] = {
    "events.jsonl": Form("application/x-ndjson", _events),
    "preferences.jsonl": Form("application/x-ndjson", _pairs),
    "answers.csv": Form("text/csv; charset=utf-8", _table),
}
