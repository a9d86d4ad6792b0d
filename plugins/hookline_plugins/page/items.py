"""Rows of data as items to be judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

import hookline
from hookline import Candidate, DataError, Item
from hookline_plugins.asking import ABOUT_ONE

__all__ = ["items_of"]

TEXTS = ("candidates", "responses", "completions")
"""Columns with several answers to the prompt."""


def items_of(name: str, kind: str | None = None, *, overlap: int = 1, priority: float = 0.0) -> Iterator[Item]:
    """The items in data: a prompt with `candidates` (texts, or objects with `text` and `by`), with `chosen` and `rejected`, or with
    one `completion`. A column `expected` holds the right answer, and `ask` the question. Raises DataError for other rows.

    kind: what is asked where a row does not say it. A rating, a thumb and marked parts judge one text: a row with several is an
    item of each, and `expected` is about the one that its `of` names, the first by default."""
    for where, record in hookline.rows(name).placed():
        texts, known = _texts(record, where), record.get("expected")
        about: dict[str, Any] = {
            "prompt": record.get("prompt", record.get("messages", "")),
            "candidates": texts,
            "overlap": record.get("overlap", overlap),
            "priority": record.get("priority", priority),
            "expected": known,
            "record": {
                k: v
                for k, v in record.items()
                if k not in {*TEXTS, "chosen", "rejected", "completion", "prompt", "expected", "ask"}
            },
            "extra": {"ask": record["ask"]} if record.get("ask") else {},
        }
        if record.get("item") or record.get("id"):
            about["id"] = str(record.get("item") or record.get("id"))
        own = record.get("ask")
        if len(texts) == 1 or ((own.get("kind") if isinstance(own, Mapping) else None) or kind) not in ABOUT_ONE:
            yield Item.read({k: v for k, v in about.items() if v is not None}, where)
            continue
        for number, text in enumerate(texts):
            right = isinstance(known, Mapping) and known.get("of", 0) == number
            each = {**about, "candidates": [text], "expected": {**dict(known or {}), "of": 0} if right else None}
            if "id" in about:
                each["id"] = f"{about['id']}/{number + 1}"
            yield Item.read({k: v for k, v in each.items() if v is not None}, where)


def _texts(record: Mapping[str, Any], where: str) -> list[Candidate]:
    several = next((record[name] for name in TEXTS if record.get(name)), None)
    if several is not None:
        given: Sequence[Any] = several if isinstance(several, list) else [several]
    elif record.get("chosen") is not None and record.get("rejected") is not None:
        given = [record["chosen"], record["rejected"]]
    elif record.get("completion") is not None:
        given = [record["completion"]]
    else:
        raise DataError(
            f"{where} has no answers to judge", "give `candidates`, `chosen` and `rejected`, or `completion`"
        )
    return [_candidate(one, f"{where}, answer {number}") for number, one in enumerate(given, 1)]


def _candidate(given: Any, where: str) -> Candidate:
    try:
        if isinstance(given, Mapping) and "text" in given:
            return Candidate.of(given["text"], str(given.get("by") or given.get("model") or ""))
        return Candidate.of(given)
    except ValidationError:
        raise DataError(f"{where} must be a text, messages, or an object with `text`", "write the answer's text") from None
