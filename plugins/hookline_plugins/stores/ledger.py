"""What the built-in stores have in common: every change is an entry of the log, and the tables are made from entries."""

from __future__ import annotations

import json
import re
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

from pydantic import Field

import hookline
from hookline import DataError, Event, Item, Store, Verified
from hookline_plugins.stores.log import START, Annotator, Entry, forget_keys, plain, verified
from hookline_plugins.stores.scrubbing import KINDS, Kind, scrubbed_event, scrubbed_item
from hookline_plugins.stores.tables import LEASED, Memory, Tables

T = TypeVar("T")
ThingT = TypeVar("ThingT", Item, Event)
MOST = 256
"""Calls that are committed together."""
BATCH = 500
"""Entries that are read at a time."""


class LedgerConfig(hookline.Config):
    """Options of the built-in stores."""

    url: str = Field(min_length=1)
    """Where the store is, e.g. `sqlite:///answers.db`, `postgresql://user@host/database` or `answers.jsonl`."""
    scrub: tuple[Kind, ...] = KINDS
    """What is replaced by its name, e.g. `[email]`, before a text is stored; empty: nothing is."""


class Ledger(Store[LedgerConfig]):
    """A store with a log. A subclass says where log and tables are, and what a transaction is."""

    def __init__(self, config: LedgerConfig) -> None:
        super().__init__(config)
        self._queue: deque[_Call] = deque()
        self._turn = threading.Lock()
        self._led = False
        """Whether some thread commits for all who wait."""
        self._shared = threading.local()
        """`tables`: those of the transaction in which this thread makes several calls; `error`: what has broken it."""

    @property
    def where(self) -> str:
        """How messages name the store."""
        return self.config.url

    @abstractmethod
    def _writing(self) -> AbstractContextManager[Tables]:
        """The tables in a transaction that excludes other writers, also of other processes, and is durable when it ends."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Tables]:
        """The tables as they are at one moment."""

    # -- what people and pages do

    def put(self, items: Iterable[Item]) -> list[Item]:
        given = [_as_stored(item, scrubbed_item, self.config.scrub) for item in items]

        def job(tables: Tables) -> list[Item]:
            return [item for item, content in given if self._put(tables, item.id, content)]

        return self._do(job) if given else []

    def _put(self, tables: Tables, item: str, content: Mapping[str, Any]) -> bool:
        there = tables.item(item)
        if there:
            if self._content(tables, there[0]) != content:
                raise DataError(
                    f"{self.where} has another item '{item}'", "give the changed item another id, or leave `id` out"
                )
            return False
        self._log(tables, "item", None, content)
        return True

    def lease(self, annotator: str, *, seconds: float = 900.0, beside: Collection[str] = ()) -> Item | None:
        self._named(annotator)
        if not 0 < seconds < 1e9:
            raise DataError(f"a lease of {seconds:g} seconds is not possible", "give a positive number of seconds")

        def job(tables: Tables) -> Item | None:
            now = time.time()
            known = tables.annotator(annotator)
            who = known.who if known else ""
            ours = tables.leased(who, now) if known else []
            item = next((one for one in ours if one not in beside), None) or tables.next(who, now, beside)
            there = tables.item(item) if item is not None else None
            if there is None:
                return None
            self._log(tables, "lease", self._enrolled(tables, annotator), {"item": item, "until": now + seconds})
            return self._item(tables, there[0])

        return self._do(job)

    def leased(self, annotator: str) -> list[Item]:
        with self._reading() as tables:
            known = tables.annotator(annotator)
            there = [tables.item(item) for item in tables.leased(known.who, time.time())] if known else []
            return [self._item(tables, one[0]) for one in there if one]

    def append(self, events: Iterable[Event]) -> list[Event]:
        given = [_as_stored(event, scrubbed_event, self.config.scrub) for event in events]
        for event, _ in given:
            self._named(event.annotator)

        def job(tables: Tables) -> list[Event]:
            return [event for event, content in given if self._append(tables, event, content)]

        return self._do(job) if given else []

    def _append(self, tables: Tables, event: Event, content: Mapping[str, Any]) -> bool:
        there = tables.event(event.id)
        if there:
            if self._content(tables, there) != content:
                raise DataError(
                    f"{self.where} has another event '{event.id}', and events do not change",
                    "give the new event another id, and name the old one in `supersedes`",
                )
            return False
        annotator = self._enrolled(tables, event.annotator)
        self._check_place(tables, event, annotator.who)
        self._log(tables, "event", annotator, content)
        return True

    def _check_place(self, tables: Tables, event: Event, who: str) -> None:
        """Refuse an answer where others have taken all places of the item."""
        item = tables.item(event.item)
        if item is None or event.decides or event.answer.kind in ("skip", "comment"):
            return
        held, now = tables.held(event.item), time.time()
        if event.role == "model" and who not in held:
            return
        if who in held and held[who].counts(now):
            return
        if sum(one.counts(now) for one in held.values()) >= item[1]:
            late = "the lease ended" if who in held and held[who].state == LEASED else "there is no lease"
            raise DataError(
                f"{self.where}: '{event.annotator}' answers item '{event.item}', but {late}, and others have it now",
                "take the next item: lease(annotator)",
            )

    # -- what is read

    def items(self) -> Iterator[Item]:
        for entry, content in self._contents("item", None):
            yield Item.read(content, f"{self.where} entry {entry.seq}")

    def events(self, *, annotator: str | None = None) -> Iterator[Event]:
        with self._reading() as tables:
            known = tables.annotator(annotator) if annotator is not None else None
        if annotator is None or known:
            for entry, content in self._contents("event", known.who if known else None):
                yield Event.read(content, f"{self.where} entry {entry.seq}")

    def _contents(self, kind: str, who: str | None) -> Iterator[tuple[Entry, dict[str, Any]]]:
        """Entries of a kind with their content. Each batch is a transaction of its own, so that no reader is in the way."""
        after = 0
        while True:
            with self._reading() as tables:
                entries, people = tables.indexed(kind, who, after, BATCH), tables.annotators()
            for entry in entries:
                content = self._opened(entry, people)
                if content is not None:
                    yield entry, content
            if not entries:
                return
            after = entries[-1].seq

    def counts(self) -> hookline.Counts:
        with self._reading() as tables:
            return tables.counts()

    # -- what an owner does

    def forget(self, annotator: str) -> int:
        def job(tables: Tables) -> int:
            known = tables.annotator(annotator)
            if known is None:
                raise DataError(f"{self.where} has nothing of '{annotator}'", "check the name")
            count = tables.counts().events
            self._log(tables, "forget", known, {})
            forget_keys()
            return count - tables.counts().events

        return self._do(job)

    def verify(self) -> Verified:
        made, unreadable, seq, head = Memory(), 0, 0, START
        with self._reading() as tables:
            people = tables.annotators()
            for entry, content in contents(_whole(tables), people, self.where):
                unreadable += content is None
                made.index(entry, content)
                seq, head = entry.seq, entry.hash
            if tables.head() != (seq, head):
                raise DataError(f"{self.where}: the newest entries are missing", "restore a backup")
            if made.digest() != tables.digest():
                wrong = next(a or b for a, b in zip([*made.rows(), None], [*tables.rows(), None]) if a != b)
                raise DataError(
                    f"{self.where}: the tables are not what the log says, first at {wrong}",
                    "make them anew from the log: hookline store copy STORE NEW",
                )
            return Verified(tables.head()[0], head, tables.counts(), unreadable)

    def copy_to(self, target: Store) -> int:
        if not isinstance(target, Ledger):
            return super().copy_to(target)
        copied = 0
        with target._reading() as tables:
            seq, head = tables.head()
        with self._reading() as tables:
            if seq > tables.head()[0] or (seq and tables.entry(seq).hash != head):
                raise DataError(f"{target.where} has entries that {self.where} does not have", "copy into a new store")
        while batch := self._batch(seq):
            with self._reading() as tables:
                people = tables.annotators()
            target._do(lambda tables, batch=batch, people=people: replay(tables, batch, people, target.where))  # type: ignore[misc]
            seq = batch[-1].seq
            copied += sum(entry.kind in ("item", "event") for entry in batch)
        return copied

    def _batch(self, after: int) -> list[Entry]:
        with self._reading() as tables:
            return tables.log(after, BATCH)

    # -- entries

    def _log(self, tables: Tables, kind: str, annotator: Annotator | None, content: Mapping[str, Any]) -> None:
        """Write one entry, and what it changes."""
        body = plain(content) if annotator is None else annotator.seal(content) if content else ""
        who = annotator.who if annotator else ""
        entry = Entry.after(*tables.head(), kind, who, round(time.time(), 3), body)
        tables.write([entry])
        tables.index(entry, content)

    def _content(self, tables: Tables, seq: int) -> dict[str, Any]:
        entry = tables.entry(seq)
        people = {} if entry.kind == "item" else tables.annotators()
        return cast("dict[str, Any]", self._opened(entry, people))

    def _item(self, tables: Tables, seq: int) -> Item:
        return Item.read(self._content(tables, seq), f"{self.where} entry {seq}")

    def _opened(self, entry: Entry, people: Mapping[str, Annotator]) -> dict[str, Any] | None:
        """The content of an entry; None if its annotator was forgotten."""
        return opened(entry, people, self.where)

    @staticmethod
    def _enrolled(tables: Tables, name: str) -> Annotator:
        known = tables.annotator(name)
        if known is None:
            known = Annotator.new(name)
            tables.enrol(known)
        return known

    def _named(self, annotator: str) -> None:
        """Refuse a name that no annotator may have."""
        if not 0 < len(annotator) <= 200 or not annotator.isprintable():
            raise DataError(
                f"'{annotator[:60]}' cannot be an annotator's name", "use 1 to 200 characters that can be printed"
            )
        if re.search(r"\S@\S+\.\S", annotator):
            raise DataError(
                f"the annotator '{annotator}' has the form of an e-mail address", "use a pseudonym: the name is stored"
            )

    # -- many callers, one commit

    def together(self, calls: Sequence[Callable[[], T]]) -> list[T | Exception]:
        def job(tables: Tables) -> list[T | Exception]:
            self._shared.tables, self._shared.error = tables, None
            try:
                results = super(Ledger, self).together(calls)
            finally:
                self._shared.tables = None
            if self._shared.error is not None:
                raise self._shared.error
            return results

        return self._do(job)

    def _do(self, job: Callable[[Tables], T]) -> T:
        """Run a job in a transaction, together with what other threads ask for meanwhile; all wait for the same commit."""
        shared: Tables | None = getattr(self._shared, "tables", None)
        if shared is not None:
            try:
                with shared.savepoint():
                    return job(shared)
            except DataError:
                raise
            except BaseException as err:
                self._shared.error = err
                raise
        call = _Call(job)
        with self._turn:
            self._queue.append(call)
            call.leads, self._led = not self._led, True
        try:
            if not call.leads:
                call.woken.wait()
            if call.leads:
                with self._turn:
                    calls = [self._queue.popleft() for _ in range(min(MOST, len(self._queue)))]
                self._commit(calls)
        finally:
            with self._turn:
                if call in self._queue:  # an interrupt came while it waited
                    self._queue.remove(call)
                if call.leads:
                    self._led = bool(self._queue)
                    for following in list(self._queue)[:1]:
                        following.leads = True
                        following.woken.set()
        if call.error is not None:
            raise call.error
        return cast("T", call.result)

    def _commit(self, calls: Sequence[_Call]) -> None:
        try:
            with self._writing() as tables:
                for call in calls:
                    try:
                        with tables.savepoint():
                            call.result = call.job(tables)
                    except DataError as err:
                        call.error = err
        except BaseException as err:
            for call in calls:
                call.error = call.error or err
            if not isinstance(err, Exception):
                raise
        finally:
            for call in calls:
                call.woken.set()


def _as_stored(
    thing: ThingT, scrubbed: Callable[[ThingT, Sequence[Kind]], tuple[ThingT, dict[str, Any]]], kinds: Sequence[Kind]
) -> tuple[ThingT, dict[str, Any]]:
    """An item or event after scrubbing, and as JSON. Raises DataError that names it for a value that JSON does not have."""
    try:
        found, written = scrubbed(thing, kinds)
        plain(written)
    except (ValueError, TypeError, RecursionError) as err:
        raise DataError(
            f"{type(thing).__name__.lower()} '{thing.id}' cannot be stored: {' '.join(str(err).split())}",
            "JSON has text, finite numbers, lists and objects",
        ) from None
    return found, written


def _whole(tables: Tables) -> Iterator[Entry]:
    """The whole log."""
    after = 0
    while entries := tables.log(after, BATCH):
        yield from entries
        after = entries[-1].seq


class _Call:
    """What a thread asks for, and what came of it."""

    def __init__(self, job: Callable[[Tables], Any]) -> None:
        self.job = job
        self.result: Any = None
        self.error: BaseException | None = None
        self.leads = False
        """Whether its thread commits for all who wait."""
        self.woken = threading.Event()
        """Set when the call is done, or when its thread is to lead."""


def opened(entry: Entry, people: Mapping[str, Annotator], where: str) -> dict[str, Any] | None:
    """The content of an entry; None if its annotator was forgotten."""
    if entry.kind == "item":
        return cast("dict[str, Any]", json.loads(entry.body))
    if entry.kind == "forget":
        return {}
    return people[entry.who].unseal(entry, where) if entry.who in people else None


def contents(
    entries: Iterable[Entry], people: Mapping[str, Annotator], where: str
) -> Iterator[tuple[Entry, dict[str, Any] | None]]:
    """A whole log, verified, with what `opened` gives. Raises DataError for a key that is missing and was not destroyed by `forget`."""
    unread: set[str] = set()
    for entry in verified(entries, where):
        content = opened(entry, people, where)
        if entry.kind == "forget":
            unread.discard(entry.who)
        elif content is None:
            unread.add(entry.who)
        yield entry, content
    if unread:
        raise DataError(
            f"{where} lacks the keys of {len(unread)} annotators who were not forgotten", "restore a backup"
        )


def replay(tables: Tables, entries: Sequence[Entry], people: Mapping[str, Annotator], where: str) -> None:
    """Write entries of another log, and make the tables from them."""
    list(verified(entries, where, *tables.head()))
    known = tables.annotators()
    tables.write(entries)
    for (
        entry
    ) in entries:  # who was forgotten and comes back has the same name, so each is enrolled when it is their turn
        if entry.who in people and entry.who not in known:
            known[entry.who] = people[entry.who]
            tables.enrol(people[entry.who])
        tables.index(entry, opened(entry, known, where))
