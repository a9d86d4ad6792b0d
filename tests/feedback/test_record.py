"""The record of feedback: events are read as they were written, and refuse what does not fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import (
    Candidate,
    Comment,
    Comparison,
    Correction,
    DataError,
    Event,
    Producer,
    Ranking,
    Rating,
    Skip,
    Span,
    Spans,
    Thumb,
)
from hookline.testing import open_phase

TEXT = st.text(max_size=20)
NUMBER = st.floats(-1e6, 1e6)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        text=TEXT,
        token_ids=st.none() | st.lists(st.integers(0, 99), min_size=1, max_size=4).map(tuple),
        gold=st.none() | NUMBER,
        by=st.none() | st.builds(Producer, name=TEXT, run=TEXT, phase=TEXT, step=st.none() | st.integers(0, 9)),
    ),
    min_size=2,
    max_size=5,
).map(tuple)


@st.composite
def answers(draw: st.DrawFn, candidates: tuple[Candidate, ...]) -> Any:
    of = st.integers(0, len(candidates) - 1)
    one = draw(of)
    length = len(candidates[one].text)
    span = st.builds(
        lambda s, n, label: Span(start=s, end=s + n, label=label),
        st.integers(0, 30),
        st.integers(1, 30),
        st.text("ab", min_size=1),
    )
    order = draw(st.permutations(range(len(candidates))))
    cut = draw(st.integers(1, len(order)))
    return draw(
        st.one_of(
            st.builds(
                Comparison, better=st.sampled_from([0, 1, "tie", "both-bad"]), strength=st.none() | st.integers(1, 3)
            ),
            st.just(Ranking(order=(tuple(order[:cut]), *((i,) for i in order[cut:])))),
            st.builds(
                Rating,
                of=st.just(one),
                marks=st.dictionaries(st.text("xyz", min_size=1), st.integers(1, 5).map(float), min_size=1),
            ),
            st.builds(Correction, of=st.just(one), text=TEXT),
            st.builds(Thumb, of=st.just(one), up=st.booleans()),
            st.builds(
                Spans, of=st.just(one), spans=st.lists(span.filter(lambda s: s.end <= length), max_size=2).map(tuple)
            )
            if length
            else st.just(Spans(of=one, spans=())),
            st.builds(Comment, of=st.none() | of, text=TEXT),
            st.builds(Skip, reason=TEXT),
        )
    )


@st.composite
def events(draw: st.DrawFn) -> Event:
    candidates = draw(CANDIDATES)
    return Event(
        prompt=draw(TEXT | st.just(({"role": "user", "content": "x"},))),
        candidates=candidates,
        answer=draw(answers(candidates)),
        expected=draw(st.none() | answers(candidates)),
        annotator=draw(st.text(min_size=1, max_size=9)),
        role=draw(st.sampled_from(["person", "model", "simulated"])),
        shown=draw(st.just(()) | st.permutations(range(len(candidates))).map(tuple)),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        record=draw(st.dictionaries(TEXT, TEXT | st.none() | st.integers(), max_size=2)),
    )


@given(events())
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    written = json.loads(json.dumps(event.written()))
    again = Event.read(written, "events.jsonl row 1")
    assert again == event
    assert again.id == event.id
    assert again.item == event.item
    assert again.written() == event.written()


def made(**more: Any) -> Event:
    values: dict[str, Any] = {
        "prompt": "p",
        "candidates": (Candidate(text="one"), Candidate(text="two")),
        "annotator": "ann",
    }
    return Event(**{**values, "answer": Comparison(better=0), **more})


def test_the_same_answer_has_the_same_id_and_another_answer_about_the_item_has_not() -> None:
    one, same, other = made(), made(), made(answer=Comparison(better=1))
    assert one.id == same.id != other.id
    assert one.item == other.item
    assert made(prompt="q").item != one.item


def test_levels_order_candidates() -> None:
    assert made().levels() == {0: 1, 1: 0}
    assert made(answer=Comparison(better="tie")).levels() == {0: 0, 1: 0}
    assert made(answer=Comparison(better="both-bad")).levels() is None
    assert made(answer=Ranking(order=((1,), (0,)))).levels() == {1: 1, 0: 0}
    assert made(answer=Ranking(order=((0, 1),))).levels() == {0: 0, 1: 0}
    assert made(answer=Correction(of=1, text="three")).levels() == {2: 1, 1: 0}
    assert made(answer=Thumb(up=True)).levels() is None


def test_a_correction_says_what_it_changed() -> None:
    assert Correction(text="the cat sat").changes("the bat sat!") == [(4, 5, "c"), (11, 12, "")]
    assert Correction(text="same").changes("same") == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"answer": {"kind": "star"}}, "is not an answer; its `kind` must be comparison"),
        ({"answer": 5}, "is not an answer"),
        ({"answer": {"kind": "comparison", "better": True}}, "is true; it must be 0, 1, tie or both-bad"),
        ({"answer": {"kind": "comparison", "better": 2}}, "better"),
        ({"answer": {"kind": "comparison", "better": 0, "strength": 4}}, "strength"),
        ({"candidates": [{"text": "a"}]}, "answers about candidate 1, counted from 0, and has 1"),
        ({"answer": {"kind": "ranking", "order": [[0], [2]]}}, "answers about candidate 2"),
        ({"answer": {"kind": "ranking", "order": [[0], [0, 1]]}}, "each candidate has one place"),
        ({"answer": {"kind": "ranking", "order": [[], [0]]}}, "no place is empty"),
        (
            {"answer": {"kind": "rating", "marks": {"overall": 9}}},
            "the mark 9 for 'overall', which is not on the scale 1 to 5",
        ),
        ({"answer": {"kind": "rating", "marks": {"overall": 2.5}}}, "in steps of 1"),
        ({"answer": {"kind": "rating", "marks": {"overall": "NaN"}}}, "a finite number"),
        ({"seconds": float("inf")}, "a finite number"),
        ({"answer": {"kind": "rating", "marks": {}}}, "marks"),
        ({"answer": {"kind": "rating", "marks": {"x": 0.1}, "low": 1, "high": 0, "step": 0}}, "a scale from 1 to 0"),
        (
            {"answer": {"kind": "spans", "of": 0, "spans": [{"start": 1, "end": 9, "label": "x"}]}},
            "beyond the 3 code points",
        ),
        (
            {"answer": {"kind": "spans", "of": 0, "spans": [{"start": 2, "end": 2, "label": "x"}]}},
            "begins at 2 and ends at 2",
        ),
        ({"shown": [0, 0]}, "is not an order of its 2 candidates"),
        ({"annotator": ""}, "annotator"),
        ({"seconds": -1}, "seconds"),
        ({"more": 1}, "more"),
        ({"schema": 2}, "schema"),
        ({"id": "a\nb"}, "cannot be printed"),
        (
            {"extra": {"scores": [1.0, {"x": float("nan")}]}},
            "extra: holds nan in scores.1.x, a number that JSON does not have",
        ),
        ({"record": {"length": float("-inf")}}, "record: holds -inf in length"),
        ({"prompt": [{"role": "user", "content": "hi", "weight": float("nan")}]}, "holds nan in 0.weight"),
        (
            {"candidates": [{"text": "abc", "messages": [{"n": float("inf")}]}, {"text": "b"}]},
            "candidates.0.messages: holds inf in 0.n",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(values: dict[str, Any], words: str) -> None:
    good = {**made().written(), "id": "", "item": ""}
    with pytest.raises(DataError) as caught:
        Event.read({**good, **values}, "labels.jsonl row 7")
    assert words in caught.value.message
    assert caught.value.message.startswith("labels.jsonl row 7: ")


def test_preferences_read_every_answer_that_orders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Comparisons, rankings with ties and corrections are learned; ties, ratings, skips and replaced answers are left out and counted."""
    three = tuple(Candidate(text=text) for text in ("red", "green", "blue"))
    wrong = made(annotator="b")
    every = [
        made(),
        made(prompt="q", candidates=three, answer=Ranking(order=((2,), (0, 1)))),
        made(prompt="r", answer=Correction(of=0, text="ones")),
        made(answer=Comparison(better="tie"), annotator="c"),
        made(answer=Rating(marks={"overall": 3}), annotator="c"),
        made(answer=Skip(reason="unclear"), annotator="d"),
        wrong,
        made(answer=Comparison(better=1), annotator="b", supersedes=wrong.id),
    ]
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event.written()) + "\n" for event in every))
    experiment = {
        "name": "lab",
        "tokenizer": {"train": "bpe", "on": "builtin:stdlib-docs", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "heads": 1, "context": 64},
        "phases": [
            {"name": "p", "model": {"head": "reward"}, "rollout": {"use": "preferences", "path": str(file), "rows": 4},
             "update": "bradley-terry", "steps": 1}
        ],
        "trackers": [],
    }  # fmt: skip
    with open_phase(experiment, tmp_path / "run") as loop:
        rollout = loop.hooks.rollout(loop.ctx)
    notices = capsys.readouterr().err
    text = {row: rollout.response_text(row) for row in range(len(rollout))}
    reward_B = rollout.extra["recorded_B"].tolist()
    groups: dict[int, list[tuple[str, float]]] = {}
    for row, group in enumerate(rollout.group_B.tolist()):
        groups.setdefault(group, []).append((text[row], reward_B[row]))
    assert sorted(map(sorted, groups.values())) == [
        [("blue", 1.0), ("green", 0.0), ("red", 0.0)],
        [("one", 0.0), ("ones", 1.0)],
        [("one", 0.0), ("two", 1.0)],
        [("one", 1.0), ("two", 0.0)],
    ]
    assert "3 of 8 judgements put no answer before another" in notices, notices
