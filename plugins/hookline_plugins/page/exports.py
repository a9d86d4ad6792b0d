"""What a coordinator takes away: every event, or a table that a spreadsheet may open without running what a model wrote."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hookline import Comparison, Event

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


def _newest(events: Iterable[Event]) -> list[Event]:
    found = list(events)
    gone = {event.supersedes for event in found}
    return [event for event in found if event.id not in gone]


def _pairs(events: Iterable[Event]) -> bytes:
    """Rows with prompt, chosen and rejected, as preference trainers read them: one per comparison that was decided."""
    lines = []
    for event in _newest(events):
        if isinstance(event.answer, Comparison) and isinstance(event.answer.better, int):
            chosen, rejected = event.candidates[event.answer.better], event.candidates[1 - event.answer.better]
            prompt = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
            texts: dict[str, Any] = {"chosen": chosen.text, "rejected": rejected.text}
            if not isinstance(prompt, str):
                texts = {name: [{"role": "assistant", "content": text}] for name, text in texts.items()}
            lines.append(
                json.dumps({"prompt": prompt, **texts, "annotator": event.annotator}, ensure_ascii=False) + "\n"
            )
    return "".join(lines).encode()


def _table(events: Iterable[Event]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["item", "annotator", "kind", "answer", "seconds", "prompt", "candidates"])
    for event in _newest(events):
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
            [*map(neutral, cells), neutral(json.dumps([one.text for one in event.candidates], ensure_ascii=False))]
        )
    return out.getvalue().encode("utf-8-sig")


FORMS: dict[str, Form] = {
    "events.jsonl": Form("application/x-ndjson", _events),
    "preferences.jsonl": Form("application/x-ndjson", _pairs),
    "answers.csv": Form("text/csv; charset=utf-8", _table),
}
