"""Laws for stores: what was acknowledged is there, once, and nobody gets an item that is not free."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hookline.contract.feedback import Candidate, Comparison, Event, Skip
from hookline.contract.store import Item, Store
from hookline.errors import DataError, cause
from hookline.registry.construct import construct
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

THREADS = 8
_numbers = itertools.count()


def new() -> str:
    """A word that no other item or annotator has, so that all laws can use one store."""
    return uuid.uuid4().hex


def url_of(subject: Subject) -> str:
    """The store that the laws write into: the option `url`, or a file with an ending that the class knows."""
    if url := subject.options.get("url"):
        return str(url)
    if not subject.cls.suffixes:  # type: ignore[attr-defined]
        raise NotApplicable(
            "the laws write into the store that the option `url` names; give one, e.g. url=SCHEME://PLACE"
        )
    return str(subject.folder / f"laws{subject.cls.suffixes[0]}")  # type: ignore[attr-defined]


@contextmanager
def opened(subject: Subject, url: str = "", create: bool = True) -> Iterator[Store]:
    options = {**subject.options, "url": url or url_of(subject)}
    store = construct(subject.cls, subject.cls.Config.model_validate(options), str(subject.offer))
    assert isinstance(store, Store)
    store.instance = subject.offer.name
    try:
        store.open(create=create)
        yield store
    finally:
        store.close()


def some(count: int, **more: Any) -> list[Item]:
    """New items, which are given out before older ones."""
    candidates = (Candidate(text="ünïcödé 🙂\x00\ud800"), Candidate(text="second"))
    places = [time.time() + next(_numbers) for _ in range(count)]
    return [Item(prompt=f"question {new()}", candidates=candidates, priority=place, **more) for place in places]


def said(item: Item, annotator: str, better: Any = 0, **more: Any) -> Event:
    return item.event(Comparison(better=better), annotator, id=new(), **more)


def refused(what: str, call: Any, *given: Any) -> None:
    try:
        call(*given)
    except DataError:
        return
    except Exception as err:
        raise Broken(f"{what} raises {cause(err)} instead of a DataError") from None
    raise Broken(f"{what} is not refused")


@law("store", alone=True)
def acknowledged(subject: Subject) -> str | None:
    """What was put and appended is there after the store was opened again, equal and in order."""
    items = some(3)
    events = [said(item, f"annotator {i}") for i, item in enumerate(items)]
    with opened(subject) as store:
        before = len(list(store.events()))
        if store.put(items) != items or store.append(events) != events:
            raise Broken("put and append do not return what is new, in the order in which it was given")
    with opened(subject, create=False) as store:
        found = list(store.events())
        if found[before:] != events:
            raise Broken(
                f"{len(found) - before} events are there after opening the store again, of {len(events)}, or they differ"
            )
        if list(store.items())[-3:] != items:
            raise Broken("the items differ after opening the store again")
        if list(store.events(annotator="annotator 1"))[-1:] != [events[1]]:
            raise Broken("events(annotator=…) does not return the events of this annotator")
        store.verify()
    return None


@law("store", alone=True)
def once(subject: Subject) -> str | None:
    """The same item or event again changes nothing; one with other content is refused, with everything beside it."""
    [item], [other] = some(1), some(1)
    event = said(item, "same")
    with opened(subject) as store:
        store.put([item, item])
        store.append([event])
        if store.put([item]) or store.append([event, event]):
            raise Broken("an item or event that is there already is returned as new")
        changed = event.model_copy(update={"answer": Comparison(better=1)})
        before = store.counts()
        refused("an event with the id of another", store.append, [said(other, "beside"), changed])
        refused("an item with the id of another", store.put, [other, item.model_copy(update={"overlap": 7})])
        if store.counts() != before:
            raise Broken("a part of what was refused is stored")
    return None


@law("store", alone=True)
def overlap(subject: Subject) -> str | None:
    """Of annotators who ask at the same time, exactly `overlap` get an item, and an item is answered as often."""
    items = some(4, overlap=3)
    mine = {item.id for item in items}
    taken: list[tuple[str, str]] = []

    def work(store: Store, annotator: str) -> None:
        while (item := store.lease(annotator)) is not None and item.id in mine:
            taken.append((annotator, item.id))
            store.append([said(item, annotator)])

    with opened(subject) as store:
        store.put(items)
        names = [new() for _ in range(THREADS)]
        threads = [threading.Thread(target=work, args=(store, name)) for name in names]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        counted = [event.item for event in store.events() if event.item in mine]
    if len(set(taken)) < len(taken):
        raise Broken("an annotator got an item again after answering it")
    if len(taken) != 12 or any(counted.count(item) != 3 for item in mine):
        raise Broken(
            f"{len(taken)} leases and {len(counted)} answers for 4 items with an overlap of 3; 12 are expected"
        )
    return f"{THREADS} threads"


@law("store", alone=True)
def leases(subject: Subject) -> str | None:
    """A lease keeps its item from others until it ends; a late answer is refused if another annotator has the item now."""
    first, second, third = (new() for _ in range(3))
    [item] = some(1)
    with opened(subject) as store:
        store.put([item])
        if store.lease(first, seconds=60) != item or store.lease(first, seconds=0.2) != item:
            raise Broken("an annotator who asks again does not get the same item again")
        if (other := store.lease(second)) is not None and other.id == item.id:
            raise Broken("two annotators have an item whose overlap is 1")
        refused("an answer without a lease to an item that another has", store.append, [said(item, third)])
        deadline = time.monotonic() + 10
        while (given := store.lease(third)) is None or given.id != item.id:
            if time.monotonic() > deadline:
                raise Broken("a lease of 0.2 seconds does not end")
            time.sleep(0.05)
        refused("a late answer to an item that another has now", store.append, [said(item, first)])
        store.append([item.event(Skip(), third, id=new())])
        if (given := store.lease(first)) is None or given.id != item.id:
            raise Broken("an item that was skipped is not given to another annotator")
        if (given := store.lease(third)) is not None and given.id == item.id:
            raise Broken("an annotator gets an item again that they skipped")
    return None


@law("store", alone=True)
def beside(subject: Subject) -> str | None:
    """An annotator who has items at hand gets others beside them, each of which is theirs alone; all are found again."""
    first, second = new(), new()
    items = some(3)
    mine = sorted(items, key=lambda item: -item.priority)
    with opened(subject) as store:
        store.put(items)
        given: list[Item] = []
        for item in mine:
            found = store.lease(first, beside=[one.id for one in given])
            if found != item:
                raise Broken("an annotator who has items at hand does not get the next one beside them")
            given.append(item)
        if store.lease(first) != mine[0] or store.lease(first, beside=[mine[0].id]) != mine[1]:
            raise Broken(
                "an annotator who asks again does not get the first of their items that is not named in `beside`"
            )
        if (other := store.lease(second)) is not None and other in mine:
            raise Broken("an item that an annotator has beside others is given to somebody else")
        store.append([said(mine[1], first)])
        if store.leased(first)[:2] != [mine[0], mine[2]] or any(item in mine for item in store.leased(second)):
            raise Broken("leased(annotator) does not return the items that the annotator has")
    with opened(subject, create=False) as store:
        if store.leased(first)[:2] != [mine[0], mine[2]]:
            raise Broken("leased(annotator) differs after opening the store again")
        if store.leased(new()):
            raise Broken("somebody who never came has items")
    return None


@law("store", alone=True)
def forgotten(subject: Subject) -> str | None:
    """Nothing of a forgotten annotator is left, their items wait again, and the store can be verified."""
    name, other = new(), new()
    [item] = some(1)
    with opened(subject) as store:
        store.put([item])
        store.append([said(item, name)])
        if store.forget(name) != 1:
            raise Broken("forget does not return the number of events that were removed")
        refused("an annotator who is not there", store.forget, name)
    with opened(subject, create=False) as store:
        if list(store.events(annotator=name)) or any(event.annotator == name for event in store.events()):
            raise Broken("events of a forgotten annotator are there after opening the store again")
        store.verify()
        if (given := store.lease(other)) is None or given.id != item.id:
            raise Broken("the item of a forgotten annotator does not wait for another")
    return None


@law("store", alone=True)
def backed_up(subject: Subject) -> str | None:
    """A backup is a store of its own with the same events; nothing that exists is overwritten."""
    path = subject.folder / f"backup-{new()}{next(iter(subject.cls.suffixes), '.db')}"  # type: ignore[attr-defined]
    with opened(subject) as store:
        store.append([said(some(1)[0], "anybody")])
        store.backup(path)
        refused("a backup over a file that exists", store.backup, path)
        before = list(store.events())
    if not Path(path).exists():
        raise Broken(f"there is no {path.name} after a backup")
    if subject.cls.suffixes:  # type: ignore[attr-defined]
        with opened(subject, str(path), create=False) as copy:
            if list(copy.events()) != before:
                raise Broken("the backup holds other events")
    return None
