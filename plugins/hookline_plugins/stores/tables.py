"""What a store knows beside its log: an index of items and events, and who has which item. The log makes it anew."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

from hookline import Counts
from hookline_plugins.stores.log import START, Annotator, Entry

LEASED, ANSWERED, SKIPPED = "leased", "answered", "skipped"


@dataclass(frozen=True)
class Held:
    """What an annotator has done with an item."""

    state: str
    """`leased`, `answered` or `skipped`."""
    until: float
    """When the lease ends, in seconds since 1970; 0 without one."""

    def counts(self, now: float) -> bool:
        """Whether it takes one of the item's places."""
        return self.state == ANSWERED or (self.state == LEASED and self.until > now)


class Tables(ABC):
    """The tables of a store within one transaction."""

    @abstractmethod
    def head(self) -> tuple[int, str]:
        """The number and hash of the newest entry; 0 and START if there is none."""

    @abstractmethod
    def write(self, entries: Sequence[Entry]) -> None:
        """Add entries to the log, each of which follows the one before."""

    @abstractmethod
    def entry(self, seq: int) -> Entry:
        """One entry of the log."""

    @abstractmethod
    def annotator(self, name: str) -> Annotator | None:
        """The annotator of a name."""

    @abstractmethod
    def annotators(self) -> dict[str, Annotator]:
        """All annotators who were not forgotten, by number."""

    @abstractmethod
    def enrol(self, annotator: Annotator) -> None:
        """Keep a new annotator's key."""

    @abstractmethod
    def item(self, item: str) -> tuple[int, int] | None:
        """The number of an item's entry, and its overlap."""

    @abstractmethod
    def event(self, event: str) -> int | None:
        """The number of an event's entry."""

    @abstractmethod
    def log(self, after: int, most: int) -> list[Entry]:
        """The next entries of the log."""

    @abstractmethod
    def indexed(self, kind: str, who: str | None, after: int, most: int) -> list[Entry]:
        """The next entries of items or events that the index has, of one annotator or of all."""

    @abstractmethod
    def held(self, item: str) -> dict[str, Held]:
        """What annotators have done with an item, by their numbers."""

    @abstractmethod
    def leased(self, who: str, now: float) -> list[str]:
        """The items for which an annotator has live leases, in the order in which items are given out."""

    @abstractmethod
    def next(self, who: str, now: float, beside: Collection[str] = ()) -> str | None:
        """The first item with a free place that the annotator did not answer and did not skip, and that is not among others."""

    @abstractmethod
    def add_item(self, item: str, seq: int, priority: float, overlap: int) -> None:
        """Index an item."""

    @abstractmethod
    def add_event(self, event: str, seq: int, who: str, item: str) -> None:
        """Index an event."""

    @abstractmethod
    def hold(self, item: str, who: str, held: Held) -> None:
        """Note what an annotator has done with an item."""

    @abstractmethod
    def remove(self, who: str) -> None:
        """Remove an annotator's key, events and items held."""

    @abstractmethod
    def counts(self) -> Counts:
        """How much there is."""

    @abstractmethod
    def rows(self) -> Iterator[tuple[Any, ...]]:
        """All rows of the index, sorted."""

    @abstractmethod
    def savepoint(self) -> AbstractContextManager[Any]:
        """A part of the transaction that is undone alone if it raises."""

    def index(self, entry: Entry, content: Mapping[str, Any] | None) -> None:
        """Note what an entry changes. content: its body; None if the annotator's key was destroyed."""
        if entry.kind == "forget":
            self.remove(entry.who)
        elif content is None:
            return
        elif entry.kind == "item":
            self.add_item(content["id"], entry.seq, content.get("priority", 0.0), content.get("overlap", 1))
        elif entry.kind == "lease":
            self.hold(content["item"], entry.who, Held(LEASED, content["until"]))
        else:
            self.add_event(content["id"], entry.seq, entry.who, content["item"])
            kind = content["answer"]["kind"]
            beside = content.get("role") == "model" and entry.who not in self.held(content["item"])
            if kind != "comment" and not content.get("decides") and not beside:
                self.hold(content["item"], entry.who, Held(SKIPPED if kind == "skip" else ANSWERED, 0.0))

    def digest(self) -> str:
        """A hash of all rows of the index: two stores with the same have the same tables."""
        sha = hashlib.sha256()
        for row in self.rows():
            sha.update(json.dumps(row).encode() + b"\n")
        return sha.hexdigest()


class Memory(Tables):
    """Tables in memory, without a log."""

    def __init__(self) -> None:
        self._head = (0, START)
        self._people: dict[str, Annotator] = {}
        self._items: dict[str, tuple[int, float, int]] = {}
        self._events: dict[str, tuple[int, str, str]] = {}
        self._held: dict[str, dict[str, Held]] = {}
        self._waiting: list[tuple[float, int, str]] = []
        """Items without enough answers, the next one first."""
        self._undo: list[Callable[[], object]] = []
        """How to undo what the transaction has done, newest last."""

    def head(self) -> tuple[int, str]:
        return self._head

    def write(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            before = self._head
            self._undo.append(lambda before=before: setattr(self, "_head", before))  # type: ignore[misc]
            self._head = (entry.seq, entry.hash)

    def entry(self, seq: int) -> Entry:
        raise LookupError(seq)

    def annotator(self, name: str) -> Annotator | None:
        return next((one for one in self._people.values() if one.name == name), None)

    def annotators(self) -> dict[str, Annotator]:
        return dict(self._people)

    def enrol(self, annotator: Annotator) -> None:
        self._set(self._people, annotator.who, annotator)

    def item(self, item: str) -> tuple[int, int] | None:
        found = self._items.get(item)
        return (found[0], found[2]) if found else None

    def event(self, event: str) -> int | None:
        found = self._events.get(event)
        return found[0] if found else None

    def log(self, after: int, most: int) -> list[Entry]:
        return [self.entry(seq) for seq in range(after + 1, min(after + most, self._head[0]) + 1)]

    def indexed(self, kind: str, who: str | None, after: int, most: int) -> list[Entry]:
        index: Iterable[tuple[Any, ...]] = self._items.values() if kind == "item" else self._events.values()
        found = (row[0] for row in index if row[0] > after and (who is None or row[1] == who))
        return [self.entry(seq) for seq in nsmallest(most, found)]

    def held(self, item: str) -> dict[str, Held]:
        return self._held.get(item, {})

    def leased(self, who: str, now: float) -> list[str]:
        ours = ((item, held.get(who)) for item, held in self._held.items())
        found = [item for item, one in ours if one and one.state == LEASED and one.until > now]
        return sorted(found, key=self._place)

    def next(self, who: str, now: float, beside: Collection[str] = ()) -> str | None:
        for _, _, item in self._waiting:
            held = self.held(item)
            if item in beside or (who in held and held[who].state != LEASED):
                continue
            if sum(one.counts(now) for other, one in held.items() if other != who) < self._items[item][2]:
                return item
        return None

    def add_item(self, item: str, seq: int, priority: float, overlap: int) -> None:
        self._set(self._items, item, (seq, priority, overlap))
        self._settle(item)

    def add_event(self, event: str, seq: int, who: str, item: str) -> None:
        self._set(self._events, event, (seq, who, item))

    def hold(self, item: str, who: str, held: Held) -> None:
        self._set(self._held.setdefault(item, {}), who, held)
        self._settle(item)

    def remove(self, who: str) -> None:
        self._set(self._people, who, None)
        for event in [event for event, row in self._events.items() if row[1] == who]:
            self._set(self._events, event, None)
        for item in [item for item, held in self._held.items() if who in held]:
            self._set(self._held[item], who, None)
            self._settle(item)

    def counts(self) -> Counts:
        return Counts(
            items=len(self._items), complete=len(self._items) - len(self._waiting), events=len(self._events),
            annotators=len(self._people), newest=max((seq for seq, _, _ in self._events.values()), default=0),
        )  # fmt: skip

    def rows(self) -> Iterator[tuple[Any, ...]]:
        yield from sorted(("item", item, *row) for item, row in self._items.items())
        yield from sorted(("event", event, *row) for event, row in self._events.items())
        yield from sorted(
            ("held", item, who, one.state, one.until) for item, held in self._held.items() for who, one in held.items()
        )

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        done = len(self._undo)
        try:
            yield
        except BaseException:
            while len(self._undo) > done:
                self._undo.pop()()
            raise

    def _set(self, table: dict[str, Any], key: str, value: Any) -> None:
        """Set a row, or remove it where the value is None; undone with the transaction."""
        before = table.get(key)
        self._undo.append(lambda: _put(table, key, before))
        _put(table, key, value)

    def _place(self, item: str) -> tuple[float, int, str]:
        """Where an item is in the order in which items are given out."""
        seq, priority, _ = self._items[item]
        return -priority, seq, item

    def _settle(self, item: str) -> None:
        """Keep an item among those that wait, or not, as its answers say."""
        if item not in self._items:
            return
        place, overlap = self._place(item), self._items[item][2]
        at = bisect_left(self._waiting, place)
        there = self._waiting[at : at + 1] == [place]
        waits = sum(one.state == ANSWERED for one in self.held(item).values()) < overlap
        if waits and not there:
            self._waiting.insert(at, place)
            self._undo.append(lambda: self._waiting.remove(place))
        elif there and not waits:
            self._waiting.pop(at)
            self._undo.append(lambda: insort(self._waiting, place))


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
