"""Stores under a kill, a full disk, two writers, a copy and a migration that end in the middle: what was acknowledged is there once."""

from __future__ import annotations

import random
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from store_program import CANDIDATES, FURTHER, numbered

import hookline
from databases import needs_postgres
from hookline import Item
from warm import Warm

PROGRAM = Path(__file__).with_name("store_program.py")


def written_until(warm: Warm, url: str, numbers: range, kill_after: int) -> list[int]:
    """Send numbers to a writer, kill it when it has acknowledged some, and return what it acknowledged."""
    child = warm.start(PROGRAM, "write", url)
    acknowledged: list[int] = []

    def send() -> None:
        try:
            child.stdin.write("".join(f"{number}\n" for number in numbers))
            child.stdin.close()
        except BrokenPipeError:
            pass

    sender = threading.Thread(target=send)
    sender.start()
    for line in child.stdout:
        if line.endswith("\n"):
            acknowledged.append(int(line))
        if len(acknowledged) == kill_after:
            child.kill()
    sender.join()
    child.wait()
    child.close()
    return acknowledged


def check_killed(warm: Warm, url: str, kills: int, answers: int) -> None:
    rng, acknowledged = random.Random(url[-6:]), []
    for round in range(kills):
        numbers = range(round * answers, (round + 1) * answers)
        got = written_until(warm, url, numbers, rng.randrange(1, answers))
        acknowledged += got
        assert got, "the writer ended before it was killed"
        with hookline.store(url, create=False) as store:
            found = Counter(event.id for event in store.events())
            assert not [number for number in acknowledged if found[str(number)] != 1]
            assert store.verify().counts.events == len(found)
            # a client that got no reply sends everything again
            again = store.append([numbered(number) for number in numbers])
            assert {event.id for event in again} == {str(number) for number in numbers} - found.keys()
        acknowledged = list(range((round + 1) * answers))


def test_what_a_killed_writer_acknowledged_is_there_once(warm: Warm, url: str) -> None:
    check_killed(warm, url, kills=1, answers=60)


@pytest.mark.slow(100)
def test_what_a_writer_acknowledged_is_there_once_after_25_kills(warm: Warm, url: str) -> None:
    check_killed(warm, url, kills=25, answers=500)


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_full_disk_is_told_and_nothing_of_it_is_stored(warm: Warm, place: Callable[[str], str], kind: str) -> None:
    said = warm.run(PROGRAM, "full", place(kind), check=True).stdout
    assert re.search(r"cannot be written: .*; nothing of this was stored → free some space, then repeat it", said), said
    assert "acknowledged on a full disk" not in said
    assert "True readable" in said
    assert re.search(r"True recovered [1-9]", said)


def appended_until_full(store: hookline.Store) -> tuple[int, str]:
    """How many events were acknowledged before the disk was full, and what was said then."""
    for number in range(10_000):
        try:
            store.append([numbered(number)])
        except hookline.ServiceError as err:
            return number, str(err)
    raise AssertionError("the disk was never full")


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A file system of 600 kilobytes, where the system lets us mount one."""

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(tmp_path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if not shutil.which("mount") or not mount("size=600k"):
        pytest.skip("no file system can be mounted here")
    try:
        for url in (f"{tmp_path}/a.jsonl", f"sqlite:///{tmp_path}/b.db"):
            mount("remount,size=600k")
            with hookline.store(url) as store:
                done, told = appended_until_full(store)
                assert "is full; nothing of this was stored → free some space" in told
                assert {event.id for event in store.events()} == set(map(str, range(done)))
                mount("remount,size=9m")
                store.append([numbered(done)])
                assert store.verify().counts.events == done + 1
            for path in tmp_path.iterdir():
                path.unlink()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=needs_postgres)])
def test_two_writers_give_every_item_to_as_many_as_it_asks(warm: Warm, place: Callable[[str], str], kind: str) -> None:
    url = place(kind)
    with hookline.store(url) as store:
        store.put([Item(prompt=f"question {i}", candidates=CANDIDATES, overlap=2) for i in range(30)])
        names = ("ann", "bob", "cem")
        children = [warm.start(PROGRAM, "work", url, name) for name in names]
        done = [child.communicate()[0].splitlines() for child in children]
        assert [len(set(items)) for items in done] == [len(items) for items in done]
        assert Counter(item for items in done for item in items) == {item.id: 2 for item in store.items()}
        assert store.verify().counts == hookline.Counts(
            items=30, complete=30, events=60, annotators=sum(map(bool, done))
        )


def check_copied(warm: Warm, url: str, other: str, kills: int, pause: float) -> None:
    """Copy with a program that is killed again and again: the same content, and the same hash of it."""
    rng = random.Random(7)
    for _ in range(kills):
        child = warm.start(PROGRAM, "copy", url, other)
        timer = threading.Timer(rng.uniform(0.1, pause), child.kill)
        timer.start()
        child.wait()
        timer.cancel()
        child.close()
    warm.run(PROGRAM, "copy", url, other, check=True)
    with hookline.store(url, create=False) as store, hookline.store(other, create=False) as copy:
        assert copy.verify() == store.verify()
        assert all(one == two for one, two in zip(store.events(), copy.events(), strict=True))
        assert store.copy_to(copy) == 0
        store.append([numbered(10**6)])
        store.forget("a3")
        assert store.copy_to(copy) == 1
        assert copy.verify() == store.verify()
        assert not list(copy.events(annotator="a3"))
        copy.append([numbered(10**6 + 1)])
        with pytest.raises(hookline.DataError, match=r"has entries that .* does not have → copy into a new store"):
            store.copy_to(copy)


@needs_postgres
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("jsonl", marks=pytest.mark.slow)])
def test_a_copy_to_postgresql_that_was_killed_goes_on(warm: Warm, place: Callable[[str], str], kind: str) -> None:
    url = place(kind)
    with hookline.store(url) as store:
        store.put([Item(prompt=f"question {i}", candidates=CANDIDATES) for i in range(50)])
        store.append([numbered(number) for number in range(700)])
        store.lease("bob")
    check_copied(warm, url, place("postgresql"), kills=1, pause=0.8)


@needs_postgres
@pytest.mark.slow(240)
def test_a_copy_of_100_000_events_to_postgresql_that_was_killed_goes_on(
    warm: Warm, place: Callable[[str], str]
) -> None:
    url = place("sqlite")
    with hookline.store(url) as store:
        for start in range(0, 100_000, 1000):
            store.append([numbered(number) for number in range(start, start + 1000)])
    check_copied(warm, url, place("postgresql"), kills=4, pause=15.0)


@pytest.mark.parametrize("at", [2, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 4, 5))])
def test_a_migration_that_was_killed_is_done_once(warm: Warm, place: Callable[[str], str], at: int) -> None:
    assert at <= len(FURTHER) + 1, "the number of the version is one more statement"
    url = place("sqlite")
    with hookline.store(url) as store:
        store.put([Item(prompt=f"question {i}", candidates=CANDIDATES) for i in range(3)])
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert warm.run(PROGRAM, "migrate", url, str(at)).returncode == -signal.SIGKILL
    assert connection.execute("SELECT version FROM hookline_store").fetchone() == (1,)
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        connection.execute("SELECT note FROM items")
    for _ in range(2):
        assert warm.run(PROGRAM, "migrate", url, "99", check=True).stdout == "3\n"
        assert connection.execute("SELECT note FROM items").fetchall() == [("new",)] * 3
    connection.close()
    with pytest.raises(hookline.DataError, match="has version 2, this Hookline knows 1 → upgrade hookline"):
        hookline.store(url)
