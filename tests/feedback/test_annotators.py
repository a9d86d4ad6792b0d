"""Whom to trust: exact agreement, planted annotators found, and laws that hold for any answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hookline
from hookline import Candidate, Comment, Comparison, DataError, Event, Skip
from hookline.cli import main
from mixed_judgements import mixed

FOUR = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
THREE = """
. . . . . 3 4 1 2 1 1 3 3 . 3
1 . 2 1 3 3 4 3 . . . . . . .
. . 2 1 3 4 4 . 2 1 1 3 3 . 4
"""


def numbers(text: str) -> Any:
    return np.array([[math.nan if x == "." else float(x) for x in line.split()] for line in text.strip().splitlines()])


@pytest.mark.parametrize(
    ("text", "level", "alpha"),
    [
        (FOUR, "nominal", 0.743421),
        (FOUR, "ordinal", 0.815388),
        (FOUR, "interval", 0.849107),
        (FOUR, "ratio", 0.797403),
        (THREE, "nominal", 0.691358),
        (THREE, "interval", 0.810845),
    ],
    ids=["4-nominal", "4-ordinal", "4-interval", "4-ratio", "3-nominal", "3-interval"],
)
def test_alpha_is_that_of_the_literature(text: str, level: Any, alpha: float) -> None:
    found = hookline.krippendorff(numbers(text), level)
    assert found.value == pytest.approx(alpha, abs=1e-6)
    assert found.low < alpha < found.high <= 1


@given(st.randoms(use_true_random=False), st.sampled_from(["nominal", "ordinal", "interval", "ratio"]))
@settings(max_examples=25, deadline=None)
def test_alpha_does_not_depend_on_the_order_of_annotators_and_units(random: Any, level: Any) -> None:
    values = numbers(FOUR)
    rows, columns = list(range(len(values))), list(range(values.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    found = hookline.krippendorff(values[rows][:, columns], level).value
    assert found == pytest.approx(hookline.krippendorff(values, level).value, abs=1e-12)


def test_names_may_be_any_codes_and_differences_any_unit() -> None:
    values = numbers(FOUR)
    codes = np.array([math.nan, 7.0, -3.0, 100.0, 0.5, 2.0])
    named = np.where(np.isnan(values), math.nan, codes[np.nan_to_num(values).astype(int)])
    assert hookline.krippendorff(named, "nominal").value == pytest.approx(0.743421, abs=1e-6)
    assert hookline.krippendorff(values * 9 - 4, "interval").value == pytest.approx(0.849107, abs=1e-6)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([[1.0, 2.0, 3.0]], "no unit has two answers"),
        ([[2.0, 2.0], [2.0, 2.0]], "all answers are the same"),
        ([[1.0, math.nan], [math.nan, 2.0]], "no unit has two answers"),
    ],
)
def test_alpha_that_is_not_defined_says_why(values: Any, why: str) -> None:
    found = hookline.krippendorff(values, "nominal")
    assert math.isnan(found.value)
    assert why in found.reason
    with pytest.raises(DataError, match="infinite"):
        hookline.krippendorff([[math.inf], [1.0]], "interval")


def planted(seed: int, units: int = 2000) -> tuple[Any, Any, Any, Any]:
    """Four annotators who are right with these probabilities, each answering two thirds of the units."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, units)
    who, unit = np.nonzero(rng.random((4, units)) < 2 / 3)
    right = rng.random(len(who)) < np.array([0.95, 0.85, 0.75, 0.5])[who]
    return who, unit, np.where(right, truth[unit], 1 - truth[unit]), truth


@pytest.mark.parametrize("how", ["majority", "dawid_skene", "one_coin", "glad"])
def test_a_planted_clicker_is_last_and_labels_are_found(how: str) -> None:
    who, unit, label, truth = planted(0)
    found = getattr(hookline, how)(who, unit, label, annotators=4, units=len(truth), labels=2)
    assert int(found.reliability_K.argmin()) == 3
    odds_K = np.log([19, 0.85 / 0.15, 3, 1])
    best = np.bincount(unit, odds_K[who] * (2 * label - 1), len(truth)) > 0  # with the reliabilities known
    right = (found.posterior_UC.argmax(1) == truth).mean()
    assert right >= (best == truth).mean() - (0.1 if how == "majority" else 0.03)  # a vote counts guesses as much
    if how in ("dawid_skene", "one_coin"):
        assert found.reliability_K == pytest.approx([0.95, 0.85, 0.75, 0.5], abs=0.08)


@pytest.mark.parametrize("how", ["majority", "dawid_skene", "one_coin", "glad"])
def test_other_names_of_labels_units_and_annotators_change_nothing(how: str) -> None:
    who, unit, label, truth = planted(1, 200)
    size: Any = {"annotators": 4, "units": len(truth), "labels": 2}
    one = getattr(hookline, how)(who, unit, label, **size)
    turned, moved = np.array([2, 0, 3, 1]), np.random.default_rng(0).permutation(len(truth))
    two = getattr(hookline, how)(turned[who], moved[unit], 1 - label, **size)
    assert two.reliability_K[turned] == pytest.approx(one.reliability_K, abs=1e-5)
    assert two.posterior_UC[moved][:, ::-1] == pytest.approx(one.posterior_UC, abs=1e-4)


def test_crowd_bt_finds_worths_and_an_adversary() -> None:
    rng = np.random.default_rng(3)
    worth, q = np.linspace(-3, 3, 12), np.array([0.97, 0.9, 0.5, 0.08])
    who = rng.integers(0, 4, 4000)
    one, two = np.array([rng.choice(12, 2, replace=False) for _ in who]).T
    says_one = rng.random(len(who)) < 1 / (1 + np.exp(worth[two] - worth[one]))
    says_one ^= rng.random(len(who)) > q[who]
    better, worse = np.where(says_one, one, two), np.where(says_one, two, one)
    found, reliability = hookline.crowd_bt(who, better, worse, annotators=4, things=12)
    assert reliability == pytest.approx(q, abs=0.06)
    assert np.corrcoef(found, worth)[0, 1] > 0.99


def test_the_report_says_whom_to_trust() -> None:
    found = hookline.annotators(mixed())
    verdicts = {one.name: one.verdict for one in found.annotators}
    assert found.trusted == [one.name for one in found.annotators[:3]]
    assert set(found.trusted) == {"ann", "bob", "cem"}
    assert verdicts["click"] == "random"
    assert verdicts["left"] == "always first"
    left = next(one for one in found.annotators if one.name == "left")
    assert left.position.low > 1
    assert all(one.position.low < 0 < one.position.high for one in found.annotators if one.name in found.trusted)
    assert set(found.agreement) == {"comparison", "ranking", "rating of overall", "thumb"}
    assert 0.7 < found.ceiling.accuracy < 0.95
    assert all(one.answers >= 2 for one in found.adjudicate)
    assert [one.probability for one in found.ask] == sorted(one.probability for one in found.ask)


def test_known_answers_and_repeats_are_counted_apart() -> None:
    pair = (Candidate(text="one"), Candidate(text="two"))
    events = []
    for i in range(12):
        base: Any = {"prompt": f"q{i}", "candidates": pair, "annotator": "ann", "expected": Comparison(better=0)}
        events.append(Event(**base, id=f"{i}", answer=Comparison(better=int(i >= 9))))
    events.append(Event(**base, id="again", repeats="11", answer=Comparison(better=1)))
    events.append(Event(**base, id="other", repeats="0", answer=Comparison(better=1)))
    events.append(Event(prompt="q", candidates=pair, annotator="ann", answer=Skip()))
    events.append(Event(**base, id="why", answer=Comment(text="hm")))
    events.append(Event(**{**base, "prompt": "q0"}, id="better", supersedes="0", answer=Comparison(better=0)))
    one = hookline.annotators(events).annotators[0]
    assert (one.answers, one.skips) == (14, 1)
    assert one.gold.value == pytest.approx(9 / 14)
    assert one.repeats.value == 0.5
    assert math.isnan(one.agreement.value)


def test_one_annotator_is_not_judged_and_the_notes_say_why() -> None:
    found = hookline.annotators([event for event in mixed() if event.annotator == "ann"])
    assert [one.verdict for one in found.annotators] == ["too few answers"]
    assert any("one annotator" in note for note in found.notes)
    assert math.isnan(found.ceiling.accuracy)
    assert hookline.annotators([]).annotators == []
    with pytest.raises(DataError, match="no event has an answer of kind 'thumb'"):
        hookline.agreement([], "thumb")


def test_a_fixed_order_is_noticed() -> None:
    pair = (Candidate(text="one"), Candidate(text="two"))
    events = [
        Event(prompt=f"q{i}", candidates=pair, annotator=who, shown=(0, 1), answer=Comparison(better=i % 2))
        for i in range(20)
        for who in "ab"
    ]
    found = hookline.annotators(events)
    assert any("same order" in note for note in found.notes)
    assert math.isnan(found.annotators[0].position.value)


def test_the_command_prints_and_writes_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(json.dumps(event.written()) for event in mixed(items=40)), encoding="utf-8")
    assert main(["feedback", str(path)]) == 0
    text = capsys.readouterr().out
    assert "left: always first" in text
    assert "ask next" in text
    assert main(["feedback", str(path), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert len(value["judgements"]["annotators"]) == 5
    path.write_text('{"prompt": "p", "text": "b"}\n', encoding="utf-8")
    assert main(["feedback", str(path)]) == 3
    assert "not a judgement of somebody" in capsys.readouterr().err
