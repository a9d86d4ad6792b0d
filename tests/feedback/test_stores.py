"""Stores: what is promised of each holds for all, and a random history gives all of them the same content."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hookline
from hookline import Candidate, Comment, Comparison, DataError, Event, Item, ServiceError, Skip, Store

CANDIDATES = (Candidate(text="one"), Candidate(text="two"))


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with hookline.store(url) as opened:
        yield opened


def items(count: int, **more: Any) -> list[Item]:
    return [Item(prompt=f"question {i}", candidates=CANDIDATES, **more) for i in range(count)]


def said(item: Item, annotator: str, better: Any = 0, **more: Any) -> Event:
    return item.event(Comparison(better=better), annotator, id=f"{annotator}/{item.prompt}", **more)


def work(store: Store, annotator: str) -> list[str]:
    """Answer everything that is given out; returns the items."""
    done = []
    while (item := store.lease(annotator)) is not None:
        store.append([said(item, annotator)])
        done.append(item.id)
    return done


def test_an_item_is_read_as_it_was_written() -> None:
    [item] = items(1, overlap=2, expected=Comparison(better=1), record={"answer": 4}, priority=1.5)
    assert Item.read(json.loads(json.dumps(item.written())), "row 1") == item
    event = item.event(Comparison(better=1), "ann", seconds=2.0)
    assert (event.item, event.expected, event.record, event.seconds) == (item.id, item.expected, {"answer": 4}, 2.0)
    assert Event(prompt=item.prompt, candidates=CANDIDATES, answer=Skip(), annotator="a").item == item.id
    with pytest.raises(DataError, match=r"row 1: overlap: .*greater than or equal to 1"):
        Item.read({**item.written(), "overlap": 0}, "row 1")


def test_items_are_given_out_by_priority_and_in_order_and_each_as_often_as_it_asks(store: Store) -> None:
    low, high = items(3, overlap=2), [Item(prompt="first", candidates=CANDIDATES, priority=1.0)]
    store.put(low)
    store.put(high)
    assert work(store, "ann") == [item.id for item in (*high, *low)]
    assert work(store, "bob") == [item.id for item in low]
    assert work(store, "cem") == []
    assert store.counts() == hookline.Counts(items=4, complete=4, events=7, annotators=2)
    assert [event.annotator for event in store.events()] == ["ann"] * 4 + ["bob"] * 3
    assert list(store.events(annotator="bob")) == [said(item, "bob") for item in low]
    assert list(store.events(annotator="nobody")) == []
    assert store.verify().counts == store.counts()


def test_skips_and_comments_are_not_answers(store: Store) -> None:
    [item] = items(1)
    store.put([item])
    store.append([item.event(Comment(text="hm"), "cem", id="c")])
    assert store.lease("ann") == item
    store.append([item.event(Skip(reason="bored"), "ann", id="s")])
    assert store.lease("ann") is None, "a skip is final for the annotator"
    assert store.lease("cem") == item, "a comment is not"
    store.append([said(item, "cem")])
    assert store.counts().complete == 1
    # changing one's mind, and marks for a second candidate, need no lease
    store.append([item.event(Comparison(better=1), "cem", id="again", supersedes="cem/question 0")])
    with pytest.raises(DataError, match=r"'ann' answers item .* but there is no lease, and others have it now"):
        store.append([item.event(Comparison(better=1), "ann", id="late", supersedes="s")])


def test_a_decision_needs_no_place_and_takes_none(store: Store) -> None:
    [item, other] = items(2)
    store.put([item, other])
    assert store.lease("ann") == item
    decision = item.event(Comparison(better=1), "boss", id="d", decides=True)
    assert store.append([decision]) == [decision]
    assert store.append([decision]) == []
    assert store.counts().complete == 0
    store.append([said(item, "ann")])
    store.append([item.event(Comparison(better=0), "boss", id="d2", supersedes="d", decides=True)])
    assert store.counts().complete == 1
    assert store.lease("boss") == other
    assert store.verify().counts == store.counts()


def test_a_late_answer_counts_where_the_place_is_still_free(store: Store) -> None:
    [item] = items(1)
    store.put([item])
    assert store.lease("ann", seconds=0.01)
    time.sleep(0.02)
    store.append([said(item, "ann")])
    assert store.lease("bob") is None


def test_a_lease_ends_by_time_and_then_the_item_is_another_annotators(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1e9
    monkeypatch.setattr("hookline_plugins.stores.ledger.time", SimpleNamespace(time=lambda: now))
    [item] = items(1)
    store.put([item])
    assert store.lease("ann", seconds=100) == item
    now += 60
    assert store.lease("bob") is None
    assert store.lease("ann", seconds=100) == item, "for 100 seconds from now"
    now += 99
    assert store.lease("bob") is None
    now += 2
    assert store.lease("bob", seconds=100) == item
    assert store.lease("ann") is None
    with pytest.raises(DataError, match=r"'ann' answers item .* but the lease ended, and others have it now"):
        store.append([said(item, "ann")])
    assert store.append([said(item, "bob")])
    assert store.lease("ann") is None
    assert store.verify().counts.complete == 1


def test_an_annotator_may_have_several_items_and_each_lease_ends_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1e9
    monkeypatch.setattr("hookline_plugins.stores.ledger.time", SimpleNamespace(time=lambda: now))
    one, two, three = items(3)
    store.put([one, two, three])
    assert store.lease("ann", seconds=100) == one
    assert store.lease("ann", seconds=50, beside=[one.id]) == two
    assert store.lease("ann", seconds=50, beside=[one.id]) == two, "asking again gives the same one"
    assert store.leased("ann") == [one, two]
    assert store.lease("bob", seconds=10) == three
    assert store.lease("ann", beside=[one.id, two.id]) is None
    now += 60
    assert store.lease("bob", seconds=100) == two, "its lease ended; the other one goes on"
    assert store.lease("ann", beside=[one.id]) == three
    assert store.leased("ann") == [one, three]
    with pytest.raises(DataError, match="but the lease ended, and others have it now"):
        store.append([said(two, "ann")])
    store.append([said(one, "ann"), said(three, "ann")])
    assert store.leased("ann") == []
    assert store.leased("nobody") == []
    assert store.lease("ann", beside=[one.id]) is None


def test_events_of_items_that_were_never_put_are_kept(store: Store) -> None:
    [item] = items(1)
    store.append([said(item, "ann"), said(item, "bob")])
    store.put([item])
    assert store.lease("cem") is None, "it has been answered often enough"
    assert store.counts() == hookline.Counts(items=1, complete=1, events=2, annotators=2)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ann@example.org", "has the form of an e-mail address"),
        ("a\nb", "cannot be an annotator's name"),
        ("", "cannot be an annotator's name"),
    ],
)
def test_a_name_that_is_not_a_pseudonym_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with hookline.store(str(tmp_path / "a.jsonl")) as store, pytest.raises(DataError, match=words):
        store.lease(name)


def test_an_sqlite_store_survives_a_power_failure_and_is_its_owners(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    for _ in range(2):  # when it is made, and later
        with hookline.store(f"sqlite:///{path}") as store, store._open.connect() as connection:  # type: ignore[attr-defined]
            ask = connection.exec_driver_sql
            assert [ask(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")] == ["wal", 2]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_forgotten_is_in_no_file_any_more(store: Store, url: str, tmp_path: Path) -> None:
    secret = "the-word-that-only-ann-knows"
    one, two = items(2)
    store.put([one, two])
    store.append([one.event(Comment(text=secret), "ann", id="a"), said(two, "ann"), said(one, "bob")])
    head, before = store.verify().head, store.counts()
    assert store.forget("ann") == 2
    after = store.verify()
    assert (after.head != head, after.unreadable, after.counts.events) == (True, 2, 1)
    assert [event.annotator for event in store.events()] == ["bob"]
    assert store.lease("cem") == two, "the item waits again"
    store.append([said(two, "cem")])
    assert store.counts().events == 2 == before.events - 1
    assert store.counts().newest > before.newest, "counts tell it from what was there before"
    store.forget("cem")
    with pytest.raises(DataError, match="has nothing of 'ann'"):
        store.forget("ann")
    for path in tmp_path.rglob("*"):
        assert secret.encode() not in path.read_bytes()
        assert b"ann" not in path.read_bytes().replace(b"annotator", b""), path


def test_a_key_is_in_no_file_after_its_annotator_was_forgotten(tmp_path: Path) -> None:
    for name in ("sqlite:///" + str(tmp_path / "a.db"), str(tmp_path / "a.jsonl")):
        with hookline.store(name) as store:
            store.append([said(item, "ann") for item in items(3)])
            with store._reading() as tables:  # type: ignore[attr-defined]
                key = tables.annotator("ann").key.encode()
            assert any(key in path.read_bytes() for path in tmp_path.iterdir())
            store.forget("ann")
            assert not any(key in path.read_bytes() for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_change_is_found(kind: str, place: Callable[[str], str]) -> None:
    """A body, a missing entry, the order, the tables: what a person with an editor could do."""
    url = place(kind)
    with hookline.store(url) as store:
        store.put(items(2))
        store.append([said(item, "ann") for item in items(2)])
    path = Path(url.removeprefix("sqlite:///"))
    whole = path.read_bytes()
    if kind == "jsonl":
        lines = whole.splitlines(keepends=True)
        changes = {
            "entry 2 was changed": [lines[0], lines[1].replace(b"question 1", b"question 7"), *lines[2:]],
            "entry 2 is missing": [lines[0], *lines[2:]],
            "entry 1 is missing": [lines[1], lines[0], *lines[2:]],
            "line 3 is not an entry of a store": [*lines[:2], b'{"seq": 3}\n'],
        }
        for words, changed in changes.items():
            path.write_bytes(b"".join(changed))
            with pytest.raises(DataError, match=words):
                hookline.store(url)
        return
    for words, statement in {
        "entry 2 was changed": "UPDATE log SET body = replace(body, 'question', 'quastion') WHERE seq = 2",
        "entry 2 is missing": "DELETE FROM log WHERE seq = 2",
        "the newest entries are missing": "DELETE FROM log WHERE seq = 4",
        "the tables are not what the log says, first at .'event'": "DELETE FROM events WHERE seq = 4",
        "cannot be decrypted with its annotator's key": f"UPDATE annotators SET key = '{'A' * 43}='",
    }.items():
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
        with hookline.store(url) as store, pytest.raises(DataError, match=words):
            store.verify()
        path.write_bytes(whole)


def test_a_line_that_a_kill_cut_off_was_never_acknowledged(tmp_path: Path) -> None:
    url = str(tmp_path / "a.jsonl")
    with hookline.store(url) as store:
        store.put(items(2))
    whole = Path(url).read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]) + 1, len(whole), 29):
        Path(url).write_bytes(whole[:cut])
        with hookline.store(url) as store:
            assert store.verify().entries == 1
            assert store.put(items(2)) == items(2)[1:]


def test_a_file_of_something_else_is_not_touched(tmp_path: Path) -> None:
    text = tmp_path / "events.jsonl"
    text.write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match="line 1 is not an entry of a store"):
        hookline.store(str(text))
    assert text.read_text() == '{"prompt": "p"}\n'
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = other.read_bytes()
    with pytest.raises(DataError, match="is not a store of Hookline"):
        hookline.store(f"sqlite:///{other}")
    assert other.read_bytes() == before
    (tmp_path / "text.db").write_text("not a database at all, " * 100)
    with pytest.raises(DataError, match="is not an SQLite database"):
        hookline.store(f"sqlite:///{tmp_path}/text.db")


def test_what_a_name_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, words in {
        "answers.csv": r"answers.csv is not the name of a store → known are \.jsonl, sqlite://…, postgresql://…",
        "mysql://host/db": "is not the name of a store",
        "sqlite://": "names no file",
        "sqlite:///none/answers.db": "there is no folder none",
    }.items():
        with pytest.raises(DataError, match=words):
            hookline.store(name)
    for name in ("answers.jsonl", "sqlite:///answers.db"):
        with pytest.raises(DataError, match="there is no store answers"):
            hookline.store(name, create=False)
        with pytest.raises(DataError, match="has no option 'scrap'; did you mean 'scrub'"):
            hookline.store(name, scrap=())
        assert not os.listdir()
    with pytest.raises(ServiceError, match=r"postgresql.*hookline:\*\*\*@"):
        hookline.store("postgresql://hookline:secret@127.0.0.1:1/none")


def test_one_file_of_json_lines_has_one_process_and_a_database_has_many(tmp_path: Path) -> None:
    with hookline.store(str(tmp_path / "a.jsonl")), pytest.raises(ServiceError, match="in use by another process"):
        hookline.store(str(tmp_path / "a.jsonl"))
    with hookline.store(f"sqlite:///{tmp_path}/a.db") as one, hookline.store(f"sqlite:///{tmp_path}/a.db") as two:
        given = items(20, overlap=2)
        one.put(given)
        found: dict[str, list[str]] = {}

        def take(store: Store, name: str) -> None:
            found[name] = work(store, name)

        threads = [threading.Thread(target=take, args=(store, name)) for store, name in
                   ((one, "a"), (two, "b"), (one, "c"), (two, "d"))]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(map(len, found.values())) == 40
        assert one.verify() == two.verify()


def test_a_file_that_only_looks_cut_off_is_not_touched(tmp_path: Path) -> None:
    for text in ('{"prompt": "p"}', "hello", '{"se'):
        path = tmp_path / "notes.jsonl"
        path.write_text(text)
        if text == '{"se':
            hookline.store(str(path)).close()
            assert path.read_text() == "", "the beginning of an entry"
        else:
            with pytest.raises(DataError, match="line 1 is not an entry of a store"):
                hookline.store(str(path))
            assert path.read_text() == text


@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_a_key_that_is_missing_is_not_somebody_who_was_forgotten(kind: str, place: Callable[[str], str]) -> None:
    url = place(kind)
    with hookline.store(url) as store:
        store.append([said(item, who) for item in items(2) for who in ("ann", "bob")])
        store.forget("bob")
    if kind == "jsonl":
        Path(url + ".keys").write_text("")
    else:
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute("DELETE FROM annotators")
        connection.close()
    with (
        pytest.raises(DataError, match="lacks the keys of 1 annotators who were not forgotten"),
        hookline.store(url) as store,
    ):
        store.verify()


def test_a_kill_between_forgetting_and_the_file_of_keys_leaves_no_key(tmp_path: Path) -> None:
    url = str(tmp_path / "a.jsonl")
    with hookline.store(url) as store:
        store.append([said(item, who) for item in items(1) for who in ("ann", "bob")])
        keys = Path(url + ".keys").read_bytes()
        store.forget("ann")
    Path(url + ".keys").write_bytes(keys)
    with hookline.store(url) as store:
        assert [event.annotator for event in store.events()] == ["bob"]
        assert store.verify().unreadable == 1
    assert Path(url + ".keys").read_text().count("\n") == 1


def test_a_failure_is_told_to_all_who_waited_and_the_next_calls_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hookline.store(f"sqlite:///{tmp_path}/a.db") as store:
        item, told = items(1)[0], []
        begun, go = threading.Event(), threading.Event()
        writing = type(store)._writing  # type: ignore[attr-defined]

        def fails(self: Any) -> Any:
            begun.set()
            go.wait()
            raise ServiceError("the disk is gone")

        def append(number: int) -> None:
            try:
                store.append([item.event(Comment(text="x"), "ann", id=str(number))])
            except ServiceError as err:
                told.append(str(err))

        monkeypatch.setattr(type(store), "_writing", fails)
        threads = [threading.Thread(target=append, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        begun.wait()
        time.sleep(0.05)
        monkeypatch.setattr(type(store), "_writing", lambda self: (go.set(), writing(self))[1])
        go.set()
        for thread in threads:
            thread.join()
        assert told.count("the disk is gone") == len(told) < 6
        assert len(list(store.events())) == 6 - len(told)
        store.append([item.event(Comment(text="x"), "ann", id=str(number)) for number in range(6)])
        assert store.verify().counts.events == 6


def test_what_json_does_not_have_is_refused_and_nothing_else_is(store: Store) -> None:
    [item] = items(1)
    endless: list[Any] = []
    endless.append(endless)
    for value in (b"\xff", object(), endless):
        with pytest.raises(DataError, match="event 'ann/question 0' cannot be stored: "):
            store.append([said(item, "bob"), said(item, "ann", extra={"x": value})])
        with pytest.raises(DataError, match=r"item '.*' cannot be stored: "):
            store.put([item.model_copy(update={"extra": {"x": value}})])
    assert store.counts() == hookline.Counts(items=0, complete=0, events=0, annotators=0)
    ugly = said(item, "ann", extra={"x": ["\0\ud800\u202e", 10**30, -0.0, None, True, {"": {}}]})
    assert store.append([ugly]) == [ugly]
    assert list(store.events()) == [ugly]
    assert store.append([ugly]) == []


def test_a_copy_without_a_common_log_has_the_same_items_and_events(place: Callable[[str], str]) -> None:
    """What `copy_to` does between stores of different authors."""
    with hookline.store(place("jsonl")) as one, hookline.store(place("sqlite")) as two:
        one.put(items(3, overlap=2))
        work(one, "ann")
        work(one, "bob")
        assert Store.copy_to(one, two) == 9
        assert Store.copy_to(one, two) == 0
        assert list(two.items()) == list(one.items())
        assert list(two.events()) == list(one.events())
        assert two.counts() == one.counts()


def test_a_backup_while_others_write_is_what_was_there_at_one_moment(store: Store, url: str, tmp_path: Path) -> None:
    one = items(1)[0]
    go, stop = threading.Event(), threading.Event()

    def write() -> None:
        for number in range(5000):
            store.append([one.event(Comment(text="x"), "ann", id=str(number))])
            go.set()
            if stop.is_set():
                return

    writer = threading.Thread(target=write)
    writer.start()
    go.wait()
    jsonl = url.endswith(".jsonl")
    path = tmp_path / ("backup.jsonl" if jsonl else "backup.db")
    try:
        store.backup(path)
    finally:
        stop.set()
        writer.join()
    with hookline.store(str(path) if jsonl else f"sqlite:///{path}", create=False) as backup:
        found, all_of_them = list(backup.events()), list(store.events())
        assert found == all_of_them[: len(found)]
        assert 0 < backup.verify().counts.events == len(found) <= len(all_of_them)
        store.copy_to(backup)
        assert backup.verify() == store.verify(), "a backup is where a copy can go on"


def test_who_comes_back_after_being_forgotten_is_somebody_new(place: Callable[[str], str]) -> None:
    for kinds in (("jsonl", "sqlite"), ("sqlite", "jsonl")):
        with hookline.store(place(kinds[0])) as one, hookline.store(place(kinds[1])) as two:
            one.put(items(2))
            work(one, "ann")
            one.copy_to(two)
            one.forget("ann")
            assert work(one, "ann") == [item.id for item in items(2)]
            one.copy_to(two)
            assert two.verify() == one.verify()
            assert (two.counts().events, two.verify().unreadable) == (2, 4)


def test_several_processes_may_make_the_same_file(tmp_path: Path) -> None:
    url, errors = f"sqlite:///{tmp_path}/a.db", []

    def make() -> None:
        try:
            with hookline.store(url) as store:
                store.put(items(2))
        except Exception as err:
            errors.append(err)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with hookline.store(url) as store:
        assert store.verify().counts.items == 2
