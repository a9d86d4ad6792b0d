"""The same history gives every store the same answers and the same content, and the log makes its tables anew."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_program import CANDIDATES

import hookline
from databases import create_database, needs_postgres
from hookline import Comment, Comparison, DataError, Item, Skip, Store

PEOPLE = st.sampled_from(["ann", "bob", "cem"])
NUMBERS = st.integers(0, 4)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(NUMBERS, max_size=3), st.integers(1, 2), st.sampled_from([0.0, 1.0])),
        st.tuples(st.just("lease"), PEOPLE, st.sampled_from([5.0, 50.0]), st.lists(NUMBERS, max_size=3)),
        st.tuples(st.just("leased"), PEOPLE),
        st.tuples(st.just("say"), PEOPLE, NUMBERS, st.sampled_from(["answer", "skip", "comment"]), st.integers(0, 2)),
        st.tuples(st.just("forget"), PEOPLE),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 10.0])),
        st.tuples(st.just("open")),
    ),
    max_size=30,
)
ANSWERS: dict[str, Any] = {"answer": Comparison(better=0), "skip": Skip(), "comment": Comment(text="hm")}


class Clock:
    now = 1e9

    def time(self) -> float:
        return self.now


def item(number: int, overlap: int = 1, priority: float = 0.0) -> Item:
    return Item(id=str(number), prompt=f"question {number}", candidates=CANDIDATES, overlap=overlap, priority=priority)


def done(store: Store, clock: Clock, step: tuple[Any, ...]) -> Any:
    """What a store says to a step; a refusal without the store's own name."""
    what, *given = step
    try:
        if what == "put":
            return store.put([item(number, given[1], given[2]) for number in given[0]])
        if what == "lease":
            return store.lease(given[0], seconds=given[1], beside=[str(number) for number in given[2]])
        if what == "leased":
            return store.leased(given[0])
        if what == "say":
            who, number, kind, version = given
            return store.append([item(number).event(ANSWERS[kind], who, id=f"{who}/{number}/{version}")])
        if what == "forget":
            return store.forget(given[0])
    except DataError as err:
        return err.message.partition(": ")[2] or err.message.rpartition(" has ")[2]
    if what == "open":
        store.close()
        store.open(create=False)
    return None


def rows(store: Any) -> list[tuple[Any, ...]]:
    """The tables, with names in place of random numbers."""
    with store._reading() as tables:
        names = {who: one.name for who, one in tables.annotators().items()}
        return sorted(tuple(names.get(part, part) for part in row) for row in tables.rows())


@contextmanager
def opened(urls: list[str]) -> Iterator[list[Store]]:
    with ExitStack() as stack:
        yield [stack.enter_context(hookline.store(url)) for url in urls]


def compare(urls: list[str], steps: list[tuple[Any, ...]]) -> None:
    clock = Clock()
    with mock.patch("hookline_plugins.stores.ledger.time", SimpleNamespace(time=clock.time)), opened(urls) as stores:
        for step in steps:
            clock.now += step[1] if step[0] == "wait" else 0.001
            said = [done(store, clock, step) for store in stores]
            assert all(one == said[0] for one in said), (step, said)
        for store in stores:
            found = list(store.events())
            assert found == list(stores[0].events())
            assert list(store.items()) == list(stores[0].items())
            assert store.verify().counts == store.counts() == stores[0].counts()
            assert rows(store) == rows(stores[0])


@given(STEPS)
def test_two_stores_agree_about_any_history(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        compare([f"{folder}/a.jsonl", f"sqlite:///{folder}/a.db"], steps)


@needs_postgres
@pytest.mark.slow(60)
@settings(max_examples=30)
@given(steps=STEPS)
def test_postgresql_agrees_about_any_history(steps: list[tuple[Any, ...]], server: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = f"history_{Path(folder).name.lower().replace('-', '_')}"
        compare([f"{folder}/a.jsonl", create_database(server, name)], steps)


@given(STEPS)
@settings(max_examples=10)
def test_the_log_makes_the_tables_anew(steps: list[tuple[Any, ...]]) -> None:
    """Whatever was done, a copy of the log has equal tables, and so has a copy that began in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        urls = [f"{folder}/a.jsonl", f"sqlite:///{folder}/b.db"]
        clock = Clock()
        with (
            mock.patch("hookline_plugins.stores.ledger.time", SimpleNamespace(time=clock.time)),
            opened(urls) as (one, two),
        ):
            for number, step in enumerate(steps):
                clock.now += 1
                done(one, clock, step)
                if number == len(steps) // 2:
                    one.copy_to(two)
            one.copy_to(two)
            assert two.verify() == one.verify()
            assert rows(two) == rows(one)
            assert list(two.events()) == list(one.events())
