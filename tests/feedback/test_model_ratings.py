"""Which of two models is better, from what was said about their answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Candidate, Comparison, DataError, Event, Producer
from hookline.cli import main


def talked(turn: int, better: Any, one: str = "a", two: str = "b", weights: str = "", **more: Any) -> Event:
    """A judgement of two models' replies; four turns are a conversation."""
    texts = (
        Candidate(text=f"x{turn}", by=Producer(name=one, weights=weights)),
        Candidate(text="y", by=Producer(name=two)),
    )
    extra = {"chat": {"session": f"s{turn // 4}", "turn": turn % 4}}
    said = Comparison(better=better)
    return Event(
        **{"prompt": f"q{turn}", "candidates": texts, "answer": said, "annotator": "ann", "extra": extra, **more}
    )


def test_the_better_model_is_found_with_an_interval_over_conversations() -> None:
    draw = random.Random(1)
    events = [talked(n, int(draw.random() > 0.75)) for n in range(400)]
    found = hookline.model_ratings(events)
    assert found.names == ("a", "b")
    share = sum(event.answer.better == 0 for event in events) / 400  # type: ignore[union-attr]
    gap = found.strength["a"].value - found.strength["b"].value
    assert 1 / (1 + pow(2.718281828, -gap)) == pytest.approx(share, abs=1e-4)
    assert found.strength["a"].low > 0
    # the turns of a conversation that agree with one another tell less than as many conversations
    alike = [talked(n, int(n // 4 % 4 == 0)) for n in range(400)]
    apart = [event.model_copy(update={"extra": {}}) for event in alike]
    wide, narrow = (hookline.model_ratings(each).strength["a"] for each in (alike, apart))
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_a_decision_counts_alone_and_bad_answers_do_not() -> None:
    events = [talked(n, n % 2) for n in range(8)]
    lost = [talked(8, 1, id="first"), talked(8, 1, annotator="bob")]
    decided = talked(8, 0, annotator="boss", id="d", decides=True)
    assert hookline.model_ratings([*events, *lost]).names[0] == "b"
    assert hookline.model_ratings([*events, *lost, decided]).names[0] == "a"
    with pytest.raises(DataError, match="no answer compares candidates of two models"):
        hookline.model_ratings([talked(0, "both-bad"), talked(1, 0, "a", "a")])


def test_a_model_that_was_trained_further_is_another() -> None:
    events = [talked(n, n % 2, weights="old" if n < 4 else "new") for n in range(8)]
    assert set(hookline.model_ratings(events).names) == {"a old", "a new", "b"}


def test_the_command_prints_it_for_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with hookline.store(url) as store:
        store.append([talked(n, int(n % 4 == 0), id=f"e{n}") for n in range(40)])
    assert main(["feedback", url]) == 0
    text = capsys.readouterr().out
    assert "a is preferred to b in 75 %" in text.replace("75%", "75 %")
    assert main(["feedback", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["names"] == ["a", "b"]
