"""What annotators are asked and what their answers become: blinded, shuffled, idempotent, and the same after a restart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import SECRET, item

import hookline
from hookline import Comparison, Correction, DataError, Event, Item, Ranking, Rating, Skip, Spans, Store, Thumb
from hookline_plugins.asking import Question, question_of
from hookline_plugins.page.desk import Desk, Wrong
from hookline_plugins.page.questions import answer_of, given_of, order_of, shown
from hookline_plugins.page.rendering import Media


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with hookline.store(str(tmp_path / "answers.jsonl")) as made:
        yield made


Do = Callable[..., dict[str, Any]]


def number(n: int) -> str:
    return f"answer-{n:04}"


def say(desk: Desk, who: str, answer: dict[str, Any], n: int = 0, **more: Any) -> dict[str, Any]:
    """Take the next question and answer it."""
    asked = desk.next(who)
    assert asked is not None
    return desk.answer(who, {"id": number(n), "handle": asked["handle"], "answer": answer, **more})


def test_sides_are_shuffled_fairly_and_always_the_same_way() -> None:
    first = [order_of(SECRET, f"item {n}", "ann", 2) for n in range(4000)]
    assert abs(sum(order == (1, 0) for order in first) - 2000) < 4 * 31.6, "four standard deviations"
    assert first == [order_of(SECRET, f"item {n}", "ann", 2) for n in range(4000)]
    other = [order_of(SECRET, f"item {n}", "bob", 2) for n in range(4000)]
    assert abs(sum(a == b for a, b in zip(first, other)) - 2000) < 4 * 31.6, "annotators have orders of their own"
    of_three = [order_of(SECRET, f"item {n}", "ann", 3) for n in range(6000)]
    assert all(abs(of_three.count(one) - 1000) < 4 * 28.9 for one in set(of_three))
    assert len(set(of_three)) == 6


@given(
    order=st.permutations(range(4)),
    answer=st.one_of(
        st.builds(Ranking, order=st.permutations(range(4)).map(lambda p: ((p[0],), tuple(sorted(p[1:3]))))),
        st.builds(Rating, of=st.integers(0, 3), marks=st.fixed_dictionaries({"overall": st.integers(1, 5).map(float)})),
        st.builds(Thumb, of=st.integers(0, 3), up=st.booleans()),
        st.builds(Correction, of=st.integers(0, 3), text=st.text()),
        st.builds(Skip, reason=st.text(max_size=20)),
    ),
)
def test_positions_lead_back_to_the_same_candidates(order: list[int], answer: Any) -> None:
    asked = Question(kind=None if answer.kind == "skip" else answer.kind)
    assert answer_of(asked, order, json.loads(json.dumps(given_of(answer, order)))) == answer


@pytest.mark.parametrize("better", [0, 1, "tie", "both-bad"])
def test_a_comparison_is_of_candidates_not_of_sides(better: Any) -> None:
    answer = Comparison(better=better, strength=2 if isinstance(better, int) else None)
    for order in ((0, 1), (1, 0)):
        assert answer_of(Question(kind="comparison", strength=True), order, given_of(answer, order)) == answer


def test_a_browser_never_learns_who_wrote_what() -> None:
    kinds: dict[Any, int] = {"comparison": 2, "rating": 1, "ranking": 3, "correction": 1, "thumb": 1, "spans": 1}
    for kind, count in kinds.items():
        one = item("named-after-secret-model-0", *["text"] * count, expected=None, record={"model": "secret-model-1"})
        seen = json.dumps(shown(one, question_of(one, Question(kind=kind)), tuple(range(count)), Media()))
        assert "secret" not in seen


def test_an_answer_is_stored_once_however_often_it_is_sent(store: Store) -> None:
    store.put([item("a", "x", "y"), item("b", "x", "y")])
    desk = Desk(store, SECRET)
    asked = desk.next("ann")
    assert asked is not None
    assert desk.next("ann") == asked, "a reload shows the same question"
    body = {
        "id": number(1),
        "handle": asked["handle"],
        "answer": {"better": 0},
        "comment": "so so",
        "times": {"active": 2.5},
    }
    for _ in range(3):
        assert desk.answer("ann", body) == {"id": number(1), "stored": True}
    again = Desk(store, SECRET)  # the server was restarted before its reply arrived
    assert again.answer("ann", body)["stored"]
    events = list(store.events())
    assert [event.answer.kind for event in events] == ["comparison", "comment"]
    assert events[0].seconds == 2.5
    order = order_of(SECRET, "a", "ann", 2)
    assert events[0].answer == Comparison(better=order[0])  # type: ignore[arg-type]
    assert events[0].shown == order
    with pytest.raises(Wrong) as caught:
        desk.answer("ann", {**body, "answer": {"better": 1}})
    assert caught.value.args[1] == 409


def test_two_tabs_answer_once_and_an_earlier_answer_is_changed_by_a_new_event(store: Store) -> None:
    store.put([item("a", "x", "y")])
    desk = Desk(store, SECRET)
    asked = desk.next("ann")
    assert asked is not None
    desk.answer("ann", {"id": number(1), "handle": asked["handle"], "answer": {"better": 0}})
    with pytest.raises(Wrong, match="in another tab") as caught:
        desk.answer("ann", {"id": number(2), "handle": asked["handle"], "answer": {"better": 1}})
    assert caught.value.args[1] == 409
    for again in (desk, Desk(store, SECRET)):
        before = again.earlier("ann", again.answered("ann")[0]["handle"])
        assert before is not None
        assert before["given"] == {"better": 0, "strength": None}
    desk.answer(
        "ann",
        {"id": number(3), "handle": before["handle"], "answer": {"better": "tie"}, "replaces": before["replaces"]},
    )
    newest = list(store.events())[-1]
    assert newest.answer == Comparison(better="tie")
    assert newest.supersedes == f"ann/{number(1)}"
    assert desk.progress("ann")["answers"] == 1
    assert desk.next("ann") is None
    with pytest.raises(Wrong):
        desk.answer(
            "ann",
            {"id": number(4), "handle": before["handle"], "answer": {"better": 0}, "replaces": before["replaces"]},
        )


def test_nobody_answers_what_they_were_not_given(store: Store) -> None:
    store.put([item("a", "x", "y"), item("b", "x", "y")])
    desk = Desk(store, SECRET)
    theirs = desk.next("ann")
    assert theirs is not None
    for handle in (theirs["handle"], "0" * 24, None, 7):
        with pytest.raises(Wrong) as caught:
            desk.answer("bob", {"id": number(1), "handle": handle, "answer": {"better": 0}})
        assert caught.value.args[1] == 404
    assert not list(store.events())


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("comparison", {}, "None"),
        ("comparison", {"better": 2}, "candidate 2"),
        ("comparison", {"better": True}, "candidate True"),
        ("comparison", {"better": "best"}, "'best'"),
        ("rating", {"marks": {"overall": 6}}, "not on the scale"),
        ("rating", {"marks": {"overall": "5x"}}, "overall"),
        ("rating", {"marks": {}}, "must have a mark for overall"),
        ("rating", {"of": 1, "marks": {"overall": 3}}, "candidate 1"),
        ("ranking", {"order": [[0], [0]]}, "each candidate has one place"),
        ("ranking", {"order": "ab"}, "a list of lists"),
        ("ranking", {"order": []}, "order"),
        ("correction", {"text": "text 0"}, "changes nothing"),
        ("correction", {"text": None}, "text"),
        ("correction", {"text": "\ud800"}, "surrogates"),
        ("thumb", {"up": None}, "up"),
        ("spans", {"spans": [{"start": 0, "end": 99, "label": "wrong"}]}, "beyond the 6 code points"),
        ("spans", {"spans": [{"start": 2, "end": 1, "label": "wrong"}]}, "begins at 2"),
        ("spans", {"spans": [{"start": 0, "end": 1, "label": "fine"}]}, "one of wrong, good"),
        ("spans", {}, "no spans"),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_and_says_why(kind: Any, answer: dict[str, Any], words: str, store: Store) -> None:
    count = {"comparison": 2, "ranking": 3}.get(kind, 1)
    store.put([item("a", *[f"text {n}" for n in range(count)])])
    desk = Desk(store, SECRET, Question(kind=kind))
    with pytest.raises(Wrong) as caught:
        say(desk, "ann", answer)
    assert caught.value.args[1] == 422
    assert words in str(caught.value.args[0])
    assert not list(store.events())


@pytest.mark.parametrize(
    "body",
    [{"id": "short"}, {"id": 7}, {"id": "../../etc/passwd"}, {"answer": 3}, {"comment": 3}, {"times": []}, {"times": {"active": -1}},
     {"times": {"active": "x"}}, {"comment": "x" * 100_001}],
    ids=str,
)  # fmt: skip
def test_bodies_of_other_shapes_are_refused(body: dict[str, Any], store: Store) -> None:
    store.put([item("a", "x", "y")])
    desk = Desk(store, SECRET)
    asked = desk.next("ann")
    assert asked is not None
    with pytest.raises(Wrong) as caught:
        desk.answer("ann", {"id": number(1), "handle": asked["handle"], "answer": {"better": 0}, **body})
    assert caught.value.args[1] == 422


def test_several_questions_at_once_up_to_a_limit_and_also_after_a_restart(store: Store) -> None:
    store.put([item(f"i{n}", "x", "y") for n in range(12)])
    desk, handles = Desk(store, SECRET), list[str]()
    while len(handles) < 8:
        asked = desk.next("ann", handles)
        assert asked is not None
        handles.append(asked["handle"])
    assert len(set(handles)) == 8
    assert [one.id for one in store.leased("ann")] == [f"i{n}" for n in range(8)]
    with pytest.raises(Wrong, match="at most 8 questions") as caught:
        desk.next("ann", handles)
    assert caught.value.args[1] == 409
    assert desk.next("ann") == desk.next("ann"), "without others, the first one that is open"
    assert desk.next("ann", handles[:3]) == desk.next("ann", handles[:3]) != desk.next("ann", handles[:4])
    desk = Desk(store, SECRET)
    assert desk.next("ann", handles[:7])["handle"] == handles[7]  # type: ignore[index]
    for n in (5, 0, 7):  # in any order
        desk.answer("ann", {"id": number(n), "handle": handles[n], "answer": {"better": 0}})
    assert [event.item for event in store.events()] == ["i5", "i0", "i7"]
    assert store.lease("bob").id == "i8"  # type: ignore[union-attr]
    assert desk.next("ann", ["0" * 24, handles[1]])["handle"] == handles[2], "one that nobody knows is no question"  # type: ignore[index]


def test_an_item_that_comes_again_comes_once_at_a_time(store: Store) -> None:
    store.put([item(f"i{n}", "x", "y") for n in range(9)])
    desk = Desk(store, SECRET, repeat_every=2)
    for n in range(4):
        say(desk, "ann", {"better": 0}, n)
    again = desk.next("ann")
    assert again is not None
    beside = desk.next("ann", [again["handle"]])
    assert beside is not None
    assert beside["handle"] != again["handle"]
    desk.answer("ann", {"id": number(20), "handle": beside["handle"], "answer": {"better": 0}})
    desk.answer("ann", {"id": number(21), "handle": again["handle"], "answer": {"better": 0}})
    assert [event.repeats is not None for event in store.events()][-2:] == [False, True]


def test_known_items_look_like_others_and_reach_everybody(store: Store) -> None:
    store.put(
        [item("gold", "good", "bad", expected={"kind": "comparison", "better": 0}, overlap=1000), item("a", "x", "y")]
    )
    desk = Desk(store, SECRET)
    for who in ("ann", "bob", "cat"):
        asked = desk.next(who)
        assert asked is not None
        assert "expected" not in json.dumps(asked)
        assert asked.keys() == shown(
            item("a", "x", "y"), question_of(item("a", "x", "y"), Question()), (0, 1), Media()
        ).keys() | {"handle"}
        say(desk, who, {"better": 0})
    assert {event.annotator for event in store.events() if event.expected} == {"ann", "bob", "cat"}


def test_an_item_comes_again_after_a_while_and_its_answer_says_so(store: Store) -> None:
    store.put([item(f"i{n}", "x", "y") for n in range(8)])
    desk = Desk(store, SECRET, repeat_every=3)
    n = 0
    while desk.next("ann") is not None and n < 30:
        say(desk, "ann", {"better": n % 2}, n)
        n += 1
        desk = Desk(store, SECRET, repeat_every=3) if n == 7 else desk
    repeats = [event for event in store.events() if event.repeats]
    firsts = {event.id: event for event in store.events() if not event.repeats}
    assert len(repeats) == 1
    assert firsts[str(repeats[0].repeats)].item == repeats[0].item == "i0"
    assert store.counts().complete == 8
    assert hookline.annotators(store.events()).annotators[0].repeats.value in (0.0, 1.0)


def test_positions_of_spans_are_code_points_of_the_text(store: Store) -> None:
    text = "a 👩🏽‍🔬 \r\n\x00b"
    store.put([item("a", text)])
    desk = Desk(store, SECRET, Question(kind="spans"))
    asked = desk.next("ann")
    assert asked is not None
    assert len(asked["candidates"][0]["text"]) == len(text)
    say(desk, "ann", {"spans": [{"start": len(text) - 1, "end": len(text), "label": "wrong"}]})
    [event] = store.events()
    assert isinstance(event.answer, Spans)
    [span] = event.answer.spans
    assert text[span.start : span.end] == "b"


def test_a_correction_keeps_the_kind_of_line_ends(store: Store) -> None:
    store.put([item("a", "one\r\ntwo\r\n")])
    desk = Desk(store, SECRET, Question(kind="correction"))
    with pytest.raises(Wrong, match="changes nothing"):
        say(desk, "ann", {"text": "one\ntwo\n"})
    say(desk, "ann", {"text": "one\n2\n"})
    [event] = store.events()
    assert event.answer == Correction(text="one\r\n2\r\n")


def test_what_cannot_be_asked_is_skipped_with_a_reason(store: Store) -> None:
    store.put(
        [
            item("a", "x", extra={"ask": {"kind": "comparison"}}),
            item("b", "x", extra={"ask": {"colour": 1}}),
            item("both", "x", "y", extra={"ask": {"kind": "thumb"}}),
            item("c", "x"),
        ]
    )
    desk = Desk(store, SECRET)
    say(desk, "ann", {"marks": {"overall": 3}})
    events: list[Event] = list(store.events())
    assert [(event.item, event.answer.kind) for event in events] == [
        *((name, "skip") for name in ("a", "b", "both")),
        ("c", "rating"),
    ]


def test_an_item_may_say_what_is_asked_and_an_edit_asks_the_same(store: Store) -> None:
    ask = {"kind": "rating", "axes": ["helpful", "honest"], "low": 1, "high": 7, "text": "How?"}
    store.put([item("a", "x", extra={"ask": ask})])
    asked = Desk(store, SECRET).next("ann")
    assert asked is not None
    assert (asked["question"], asked["axes"], asked["scale"]) == ("How?", ["helpful", "honest"], [1, 7, 1])
    say(Desk(store, SECRET), "ann", {"marks": {"helpful": 7, "honest": 2}})
    desk = Desk(store, SECRET)
    again = desk.earlier("ann", desk.answered("ann")[0]["handle"])
    assert again is not None
    assert again["axes"] == ["helpful", "honest"]
    assert again["given"]["marks"] == {"helpful": 7, "honest": 2}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_rows_of_data_become_items(tmp_path: Path) -> None:
    from hookline_plugins.page.items import items_of

    rows = [
        {"prompt": "p", "candidates": ["x", {"text": "y", "by": "m"}], "topic": "t"},
        {"prompt": "p", "chosen": "x", "rejected": "y"},
        {"prompt": [{"role": "user", "content": "p"}], "chosen": [said("x")], "rejected": [said("y")]},
        {"prompt": "p", "completion": "x", "expected": {"kind": "thumb", "up": True}, "id": 7},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made: list[Item] = list(items_of(str(tmp_path / "rows.jsonl"), overlap=2))
    assert [[one.text for one in each.candidates] for each in made] == [["x", "y"]] * 3 + [["x"]]
    assert made[0].candidates[1].by is not None
    assert made[0].candidates[1].by.name == "m"
    assert made[0].record == {"topic": "t"}
    assert made[3].id == "7"
    assert made[3].expected == Thumb(up=True)
    assert {each.overlap for each in made} == {2}
    rows = [
        {"prompt": "p", "candidates": ["x", "y"], "id": 7, "expected": {"kind": "thumb", "up": True, "of": 1}},
        {"prompt": "p", "candidates": ["x", "y"], "ask": {"kind": "ranking"}},
        {"prompt": "p", "chosen": "x", "rejected": "y", "ask": {"kind": "rating"}},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = list(items_of(str(tmp_path / "rows.jsonl"), "thumb"))
    assert [[one.text for one in each.candidates] for each in made] == [["x"], ["y"], ["x", "y"], ["x"], ["y"]]
    assert [each.id for each in made][:2] == ["7/1", "7/2"]
    assert [each.expected for each in made][:2] == [None, Thumb(up=True)]
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p", "completion": 3}\n')
    with pytest.raises(DataError, match="row 1, answer 1 must be a text"):
        list(items_of(str(tmp_path / "rows.jsonl")))
    (tmp_path / "rows.jsonl").write_text('{"prompt": "p"}\n')
    with pytest.raises(DataError, match="row 1 has no answers to judge"):
        list(items_of(str(tmp_path / "rows.jsonl")))


def test_the_page_of_the_docs_says_what_the_command_has() -> None:
    """Every option and file that docs/collect.md names exists, and its row of an item is one."""
    import re

    from hookline_plugins.commands.annotate import Annotate
    from hookline_plugins.commands.collect import Collect
    from hookline_plugins.page.exports import FORMS

    page = (Path(__file__).resolve().parents[2] / "docs/collect.md").read_text(encoding="utf-8")
    page = re.sub(r"`hookline (?!collect|annotate)[^`]*`", "", page)  # the options of other commands
    both = (*Collect.Config.model_fields, *Annotate.Config.model_fields)
    options = {name.replace("_", "-") for name in both}
    assert set(re.findall(r"--([a-z][a-z-]*)", page)) <= options
    assert set(re.findall(r"\| `(\w+\.\w+)` \|", page)) == set(FORMS)
    ask = json.loads(re.search(r'"ask": (\{.*?\})', page)[1])  # type: ignore[index]
    assert Question.model_validate(ask).axes == ("helpful", "honest")
    event = json.loads(re.search(r'^\{"events": .*$', page, re.MULTILINE)[0])["events"][0]  # type: ignore[index]
    assert Event.read(event, "the example").answer == Thumb(up=True)
    known = json.loads(re.search(r'\{"kind": "comparison", "better": 0\}', page)[0])  # type: ignore[index]
    assert item("a", "x", "y", expected=known).expected == Comparison(better=0)
