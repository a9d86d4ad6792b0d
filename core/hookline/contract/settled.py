"""Which events count: not what was replaced, and where somebody decided, the decision alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookline.contract.feedback import Event

__all__ = ["newest", "question", "settled", "settled_rows"]


def newest(events: Iterable[Event]) -> list[Event]:
    """The events, each id once, without those that another one supersedes."""
    by_id = {event.id: event for event in events}
    gone = {event.supersedes for event in by_id.values()}
    return [event for event in by_id.values() if event.id not in gone]


def question(event: Event) -> tuple[str, str, int | None]:
    """What an event answers: the item, the kind of answer, and the candidate if the answer is about one."""
    return event.item, event.answer.kind, getattr(event.answer, "of", None)


def settled(events: Iterable[Event]) -> list[Event]:
    """The newest events, in which a decision is the only answer to its question; of several decisions, the last."""
    found = newest(events)
    decisions = {question(event): event.id for event in found if event.decides}
    return [event for event in found if decisions.get(question(event), event.id) == event.id]


def settled_rows(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The same for rows: the numbers, from 0, of those that count. Rows that are not events all count."""
    gone = {record["supersedes"] for record in records if record.get("supersedes")}
    kept = [i for i, record in enumerate(records) if record.get("id") not in gone]
    if not any(records[i].get("decides") for i in kept):
        return kept
    events = {
        i: Event.read({key: value for key, value in records[i].items() if value is not None}, f"row {i + 1}")
        for i in kept
        if records[i].get("answer") and records[i].get("candidates")
    }
    decisions = {question(event): i for i, event in events.items() if event.decides}
    return [i for i in kept if i not in events or decisions.get(question(events[i]), i) == i]
