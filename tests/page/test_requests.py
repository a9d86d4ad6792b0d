"""Requests of many annotators in one transaction: each is stored as if it were alone, and told so only when it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Served, item

from hookline import Comparison, DataError, Store
from hookline_plugins.stores.sql import Rows

Begin = Callable[..., Served]


def test_an_answer_whose_turn_could_not_be_written_is_not_acknowledged_and_can_be_sent_again(
    served: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = served([item("a", "x", "y")])
    client = page.come_in("ann")
    body = {
        "id": "answer-0001",
        "handle": client.get("/question").json()["question"]["handle"],
        "answer": {"better": 0},
    }

    def full(rows: Rows) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Rows, "finish", full)
        assert client.post("/answer", json=body).status_code == 503
    assert not list(page.store.events())
    assert client.get("/answered").json()["answers"] == []
    assert client.post("/answer", json=body).status_code == 200
    assert [event.annotator for event in page.store.events()] == ["ann"]


def test_annotators_at_once_get_items_of_their_own_and_every_acknowledged_answer_is_stored(served: Begin) -> None:
    page = served([item(f"i{n}", "x", "y") for n in range(40)])
    clients = [page.come_in(f"ann{n}") for n in range(8)]

    def work(number: int) -> int:
        client = clients[number]
        for n in range(5):
            handle = client.get("/question").json()["question"]["handle"]
            body = {"id": f"answer-{number}-{n}", "handle": handle, "answer": {"better": 7 if n == 2 else 0}}
            if n == 2:  # one that is wrong among the others
                assert client.post("/answer", json=body).status_code == 422
                body["answer"] = {"better": 0}
            assert client.post("/answer", json=body).status_code == 200
        return 5

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(work, range(8))) == 40
    events = list(page.store.events())
    assert len({event.item for event in events}) == len(events) == 40
    page.store.verify()


def test_the_reply_to_an_answer_has_the_question_after_those_at_hand(served: Begin) -> None:
    page = served([item(f"i{n}", "x", "y") for n in range(4)])
    client = page.come_in("ann")
    first = client.get("/question").json()["question"]["handle"]
    second = client.get(f"/question?beside={first}").json()["question"]["handle"]
    body = {"id": "answer-0001", "handle": first, "answer": {"better": 0}, "beside": [second]}
    third = client.post("/answer", json=body).json()["question"]["handle"]
    assert len({first, second, third}) == 3
    assert client.post("/answer", json=body).json()["question"]["handle"] == third, "sent again, the same"
    assert [one.id for one in page.store.leased("ann")] == ["i1", "i2"]
    body = {"id": "answer-0002", "handle": second, "answer": {"better": 0}, "beside": [third] * 8}
    assert client.post("/answer", json=body).json()["question"] is None, "too many; the answer is stored all the same"
    assert "question" not in client.post("/answer", json={**body, "beside": "all"}).json()
    assert [event.item for event in page.store.events()] == ["i0", "i1"]


@pytest.mark.parametrize("url", ["sqlite:///PATH/a.db", "PATH/a.jsonl"])
def test_a_call_that_is_refused_undoes_its_own_part_alone(url: str, served: Begin, tmp_path: Path) -> None:
    store: Store = served([item("a", "x", "y")], url=url.replace("PATH", str(tmp_path))).store
    asked = next(store.items())
    good, other = (asked.event(Comparison(better=n), f"ann{n}", id=f"e{n}") for n in range(2))

    def partly() -> None:
        store.append([other.model_copy(update={"id": "new", "item": "b"}), other])  # the second has no place left

    found = store.together([lambda: store.append([good]), partly, lambda: store.counts().annotators])
    assert found[0] == [good]
    assert isinstance(found[1], DataError)
    assert [event.id for event in store.events()] == ["e0"]
    store.verify()
