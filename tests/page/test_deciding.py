"""A coordinator decides what annotators answered differently: by keys, with their names, and the decision is what counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from browsing import NEEDS, Browser
from serving import Served, item

import hookline
from hookline import Candidate, Comparison, Correction, Event, Ranking, Rating, Skip, Span, Spans, Thumb
from hookline_plugins.page.decisions import cases_of

Begin = Callable[..., Served]
PAIR = (Candidate(text="one"), Candidate(text="two"), Candidate(text="three"))


def event(who: str, answer: Any, **more: Any) -> Event:
    return Event(**{"prompt": "q", "candidates": PAIR, "annotator": who, "answer": answer, **more})


def voted(page: Served, answers: dict[str, dict[str, Any]], name: str = "a", **more: Any) -> None:
    """Each annotator answers the item about its candidates, wherever their sides are."""
    for who, answer in answers.items():
        [one] = [one for one in page.store.items() if one.id == name]
        page.store.append([one.event(answer["said"], who, id=f"{who}/{name}", **more)])


def slider(mark: float) -> Rating:
    return Rating(marks={"overall": mark}, low=0, high=1, step=0)


@pytest.mark.parametrize(
    ("one", "two", "disputed"),
    [
        (Comparison(better=0), Comparison(better=1), True),
        (Comparison(better=0, strength=1), Comparison(better=0, strength=3), False),
        (Comparison(better="tie"), Comparison(better="both-bad"), True),
        (Rating(marks={"overall": 2}), Rating(marks={"overall": 3}), False),
        (Rating(marks={"a": 2, "b": 1}), Rating(marks={"a": 2, "b": 4}), True),
        (slider(0.5), slider(0.51), False),
        (slider(0.5), slider(0.6), False),
        (slider(0.1), slider(0.9), True),
        (Rating(of=0, marks={"overall": 1}), Rating(of=1, marks={"overall": 5}), False),
        (Ranking(order=((0,), (1, 2))), Ranking(order=((0,), (2,), (1,))), True),
        (Thumb(up=True), Thumb(up=False), True),
        (Correction(text="x"), Correction(text="y"), True),
        (Spans(spans=()), Spans(spans=(Span(start=0, end=1, label="wrong"),)), True),
        (Comparison(better=0), Skip(), False),
    ],
)
def test_what_counts_as_a_disagreement(one: Any, two: Any, disputed: bool) -> None:
    assert bool(cases_of([event("ann", one), event("bob", two)])) is disputed
    assert not cases_of([event("ann", one), event("ann", two, repeats="x")])
    assert not cases_of([event("ann", one, expected=one), event("bob", two, expected=one)]), "the answer is known"


def test_the_decision_is_what_is_exported_and_the_majority_is_not(
    served: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hookline_plugins.page.team.FRESH", 0.0)
    page = served([item("a", "x", "y", overlap=3), item("b", "x", "y", overlap=3)])
    for name, votes in (("a", (0, 0, 1)), ("b", (1, 1, 1))):
        voted(page, {f"ann{n}": {"said": Comparison(better=vote)} for n, vote in enumerate(votes)}, name)  # type: ignore[arg-type]
    boss = page.come_in("boss", "coordinator")
    [waiting] = boss.get("/team/figures").json()["adjudicate"]
    found = boss.get("/team/decide/question").json()
    case = found["question"]
    assert case["handle"] == waiting["handle"]
    assert found["progress"]["answers"] == 0
    assert [one["name"] for one in case["said"]] == ["ann0", "ann1", "ann2"]
    assert "secret" not in json.dumps(case), "the models stay unknown to coordinators, too"
    positions = [one["given"]["better"] for one in case["said"]]
    assert positions[0] == positions[1] != positions[2]
    body = {"id": "decision-1", "handle": case["handle"], "answer": {"better": positions[2]}, "comment": "see page 3"}
    for _ in range(2):
        assert boss.post("/team/decide/answer", json=body).json() == {"id": "decision-1", "stored": True}
    decision = next(event for event in page.store.events() if event.decides)
    assert (decision.annotator, decision.answer, decision.item) == ("boss", Comparison(better=1), "a")
    assert page.store.counts().complete == 2
    pairs = [json.loads(line) for line in boss.get("/team/export/preferences.jsonl").text.splitlines()]
    assert [pair["chosen"] for pair in pairs] == ["y"] * 4, "one for the decided item, three for the other"
    assert boss.get("/team/figures").json()["adjudicate"] == []
    assert boss.get("/team/decide/question").json()["question"] is None
    rows = {one["name"]: one for one in boss.get("/team/figures").json()["annotators"]}
    assert rows["boss"]["answers"] == 0, "a decision is not one of their answers"
    assert rows["ann2"]["gold"][0] == 1.0
    assert rows["ann0"]["gold"][0] == 0.0
    # another coordinator saw it before that
    other = page.come_in("chief", "coordinator")
    late = {"id": "decision-2", "handle": case["handle"], "answer": {"better": positions[0]}}
    assert other.post("/team/decide/answer", json=late).status_code == 409
    again = other.get("/team/decide/question", params={"handle": case["handle"]}).json()["question"]
    assert again["comment"] == "see page 3"
    changed = {**late, "answer": {"better": "tie"}, "replaces": again["replaces"]}
    assert other.post("/team/decide/answer", json=changed).status_code == 200
    assert boss.get("/team/export/preferences.jsonl").text.count("\n") == 3, (
        "a decision that nothing is better trains nothing"
    )
    assert len(boss.get("/team/decide/answered").json()["answers"]) == 1


def test_those_with_the_least_agreement_come_first(served: Begin) -> None:
    votes: dict[str, tuple[Any, ...]] = {
        "two to one": tuple(Comparison(better=vote) for vote in (0, 0, 1)),
        "near": tuple(Rating(marks={"overall": mark}) for mark in (3, 3, 5)),
        "far": tuple(Rating(marks={"overall": mark}) for mark in (1, 5, 5)),
        "each another": tuple(Comparison(better=vote) for vote in (0, 1, "tie")),  # type: ignore[arg-type]
    }
    page = served([item(name, "x", "y", overlap=3, prompt=name) for name in votes])
    for name, answers in votes.items():
        voted(page, {f"ann{n}": {"said": answer} for n, answer in enumerate(answers)}, name)
    boss = page.come_in("boss", "coordinator")
    waiting = boss.get("/team/figures").json()["adjudicate"]
    assert [one["prompt"] for one in waiting] == ["far", "each another", "near", "two to one"]


def test_what_a_removed_person_said_is_not_shown_to_coordinators(served: Begin) -> None:
    page = served([item("a", "x", "y", overlap=3)])
    voted(page, {"ann": {"said": Comparison(better=0)}, "bob": {"said": Comparison(better=1)}})
    boss = page.come_in("boss", "coordinator")

    def shown() -> list[str]:
        return [one["name"] for one in boss.get("/team/decide/question").json()["question"]["said"]]

    def figures() -> list[str]:
        return [one["name"] for one in boss.get("/team/figures").json()["annotators"] if one["answers"]]

    assert shown() == figures() == ["ann", "bob"]
    assert boss.post("/team/remove", json={"name": "ann", "forget": True}).json()["events"] == 1
    assert figures() == ["bob"]
    voted(page, {"cem": {"said": Comparison(better=0)}})  # the store has as many events as before
    assert shown() == ["bob", "cem"]
    with hookline.store(page.store.config.url) as elsewhere:  # as `hookline store forget` does
        elsewhere.forget("cem")
    voted(page, {"dan": {"said": Comparison(better=0)}})
    assert shown() == ["bob", "dan"]


def test_a_decision_keeps_what_an_answer_keeps_and_is_shown_without_reading_everything(
    served: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = {"kind": "comparison", "ties": False}
    page = served([item("a", "x", "y", overlap=2, extra={"ask": ask})])
    page.page.desk.guidelines = "abc123"
    voted(page, {"bob": {"said": Comparison(better=0)}, "cem": {"said": Comparison(better=1)}}, extra={"ask": ask})
    boss = page.come_in("boss", "coordinator")
    handle = boss.get("/team/decide/question").json()["question"]["handle"]
    monkeypatch.setattr(page.store, "events", lambda **_: pytest.fail("everything is read again"))
    body = {"id": "decision-1", "handle": handle, "answer": {"better": 0}, "comment": "why"}
    assert boss.post("/team/decide/answer", json=body).status_code == 200
    assert boss.get("/team/decide/question").json()["question"] is None
    again = boss.get("/team/decide/question", params={"handle": handle}).json()["question"]
    assert (again["given"]["better"], again["comment"]) == (0, "why")
    monkeypatch.undo()
    [decision] = [event for event in page.store.events() if event.decides]
    assert decision.extra == {"guidelines": "abc123", "ask": ask}


def test_a_decision_is_about_the_candidate_that_was_asked_about(served: Begin) -> None:
    page = served([item("a", "x", "y", overlap=2)])
    voted(page, {"bob": {"said": Thumb(of=1, up=True)}, "cem": {"said": Thumb(of=1, up=False)}})
    boss = page.come_in("boss", "coordinator")
    case = boss.get("/team/decide/question").json()["question"]
    asked = case["given"]["of"]
    for of, status in ((1 - asked, 422), (asked, 200)):
        body = {"id": f"decision-{of}", "handle": case["handle"], "answer": {"up": True, "of": of}}
        assert boss.post("/team/decide/answer", json=body).status_code == status


def test_only_coordinators_see_who_said_what(served: Begin) -> None:
    page = served([item("a", "x", "y", overlap=2)])
    voted(page, {"bob": {"said": Comparison(better=0)}, "cem": {"said": Comparison(better=1)}})
    client = page.come_in("ann")
    assert client.get("/team/decide/question").status_code == 403
    assert client.post("/team/decide/answer", json={}).status_code == 403
    assert "bob" not in client.get("/").text + client.get("/question").text


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"better": 2}, 422), ({"better": True}, 422), ({}, 422), ({"up": True}, 422), ({"skip": "later"}, 200)],
    ids=str,
)
def test_what_decides_nothing_is_not_stored(answer: dict[str, Any], status: int, served: Begin) -> None:
    page = served([item("a", "x", "y", overlap=2)])
    voted(page, {"bob": {"said": Comparison(better=0)}, "cem": {"said": Comparison(better=1)}})
    boss = page.come_in("boss", "coordinator")
    handle = boss.get("/team/decide/question").json()["question"]["handle"]
    body = {"id": "decision-1", "handle": handle, "answer": answer}
    assert boss.post("/team/decide/answer", json=body).status_code == status
    assert boss.post("/team/decide/answer", json={**body, "handle": "0" * 24}).status_code == 404
    assert not any(event.decides for event in page.store.events())
    assert (boss.get("/team/decide/question").json()["question"] is None) is (status == 200), "a skip is for later"
    assert len(boss.get("/team/figures").json()["adjudicate"]) == 1


class TestInChromium:
    pytestmark = NEEDS

    def test_a_coordinator_decides_by_keys(self, browser: Browser, served: Begin) -> None:
        kinds: dict[str, tuple[Any, Any, tuple[str, ...], dict[str, Any]]] = {
            "compare": (Comparison(better=0), Comparison(better="tie"), ("x", "y"), {}),
            "rate": (Rating(marks={"overall": 1}), Rating(marks={"overall": 5}), ("x",), {}),
            "correct": (Correction(text="the cat"), Correction(text="a cat"), ("teh cat",), {"kind": "correction"}),
            "mark": (
                Spans(spans=()),
                Spans(spans=(Span(start=0, end=3, label="wrong"),)),
                ("one two",),
                {"kind": "spans"},
            ),
        }
        page = served(
            [
                item(name, *texts, overlap=2, extra={"ask": ask} if ask else {})
                for name, (_, _, texts, ask) in kinds.items()
            ]
        )
        for name, (one, two, _, _) in kinds.items():
            voted(page, {"ann": {"said": one}, "bob": {"said": two}}, name)
        browser.come_in(page, "boss", "coordinator")
        browser.open(page.url + "/team")
        browser.until(lambda: len(browser.all("#adjudicate a")) == 4)
        browser.looks_right("light", 1440)
        browser.one("#decide").click()
        browser.ready()
        pressed = {"comparison": ("1",), "rating": ("3",), "correction": (), "spans": ("ARROW_RIGHT", "1")}
        words = {"comparison": "is better", "rating": "ann: 1", "correction": "bob:", "spans": "Nothing is marked"}
        for left in range(4, 0, -1):
            browser.until(lambda left=left: f"{left} open" in browser.text("#progress"))  # type: ignore[misc]
            [kind] = [
                kind
                for kind, title in (("comparison", "Which"), ("rating", "How good"), ("correction", "Correct"), ("spans", "Mark"))
                if browser.text("#asked").startswith(title)
            ]  # fmt: skip
            assert words[kind] in browser.text("#told-list")
            browser.looks_right("dark", 1440)
            if kind == "correction":
                browser.driver.execute_script("document.getElementById('correction').focus()")
                browser.keys("END", "!", "ESCAPE")
            else:
                browser.keys(*pressed[kind])
            assert browser.submit(page).decides
        browser.until(lambda: "nothing to decide" in browser.text("#asked"))
        browser.keys("e")
        browser.until(lambda: len(browser.all("#answered button")) == 4)
        browser.all("#answered button")[0].click()
        browser.until(lambda: browser.text("#editing"))
        decisions = [event for event in page.store.events() if event.decides]
        assert {event.annotator for event in decisions} == {"boss"}
        assert {event.answer.kind for event in decisions} == set(pressed)
        assert [line for line in browser.driver.get_log("browser") if line["level"] == "SEVERE"] == []

    def test_annotators_and_questions_are_found_by_typing(self, browser: Browser, served: Begin) -> None:
        page = served([item(name, "x", "y", overlap=2, prompt=f"about {name}") for name in ("apples", "pears")])
        for name in ("apples", "pears"):
            voted(page, {"ann": {"said": Comparison(better=0)}, "bob": {"said": Comparison(better=1)}}, name)
        browser.come_in(page, "boss", "coordinator")
        browser.open(page.url + "/team")
        browser.until(lambda: len(browser.all("#people tr")) == 3)
        browser.one("#find").click()
        browser.keys("bob")
        browser.until(lambda: browser.text("#found") == "1 of 3 annotators" and len(browser.all("#people tr")) == 1)
        assert len(browser.all("#adjudicate li")) == 2, "who answered"
        for _ in "bob":
            browser.keys("BACKSPACE")
        browser.keys("pears")
        browser.until(lambda: browser.text("#adjudicate") == "about pears (2)")
        browser.looks_right("light", 1440)
