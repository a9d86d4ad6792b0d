"""Which events count: not what was replaced, and where somebody decided, the decision alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookline.contract.feedback import Event

__all__ = ["newest", "settled", "settled_rows"]


def newest(events: Iterable[Event]) -> list[Event]:
    """The events, each id once, without those that another one supersedes."""
    by_id = {event.id: event for event in events}
    gone = {event.supersedes for event in by_id.values()}
    return [event for event in by_id.values() if event.id not in gone]


def settled(events: Iterable[Event]) -> list[Event]:
    """The newest events, in which a decision is the only answer to its question; of several decisions, the last."""
    found = newest(events)
    decisions = {event.question: event.id for event in found if event.decides}
    return [event for event in found if decisions.get(event.question, event.id) == event.id]


def settled_rows(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """The same for rows: the numbers, from 0, of those that count. Rows that are not events all count."""
    gone = {record["supersedes"] for record in records if record.get("supersedes")}
    said = {i for i, record in enumerate(records) if record.get("answer") and record.get("candidates")}
    last = {records[i].get("id") or i: i for i in sorted(said)}  # a row without an id has one of its own
    once = set(last.values())
    kept = [i for i, record in enumerate(records) if record.get("id") not in gone and (i in once or i not in said)]
    if not any(records[i].get("decides") for i in kept):
        return kept
    events = {
        i: Event.read({key: value for key, value in records[i].items() if value is not None}, f"row {i + 1}")
        for i in kept
        if i in said
    }
    decisions = {event.question: i for i, event in events.items() if event.decides}
    return [i for i in kept if i not in events or decisions.get(events[i].question, i) == i]
