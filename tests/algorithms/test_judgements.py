"""What rows of judgements say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from judged_events import EVENTS, event, experiment

import hookline
from hookline import DataError, ExperimentError
from hookline.testing import conformance, open_phase
from hookline_plugins.rollouts.events import token_places
from hookline_plugins.rollouts.judgements import Judgements

slow = pytest.mark.slow
test_judgements_keep_the_laws = slow(conformance(Judgements))


def rows_of(tmp_path: Path, events: list[dict[str, Any]], **rollout: Any) -> Any:
    """All rows, in the order of the events."""
    with open_phase(experiment(tmp_path / "events.jsonl", events, **rollout)) as loop:
        batch = loop.hooks.rollout(loop.ctx)
    place = {id_: i for i, id_ in enumerate(dict.fromkeys(json.dumps(one, sort_keys=True) for one in events))}
    order = sorted(range(len(batch)), key=lambda row: place[json.dumps(batch.records[row], sort_keys=True)])
    return batch.rows(order)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return rows_of(tmp_path_factory.mktemp("said"), EVENTS)


def test_every_kind_becomes_rows_with_what_was_said(said: Any) -> None:
    x = {name: column.tolist() for name, column in said.extra.items() if name.endswith("_B")}
    assert x["kind_B"] == [0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 3, 3, 3, 4, 4, 5]
    assert x["outcome_B"] == [1, 1, 2, 2, 3, 3] + [-1] * 10
    assert x["strength_B"][:4] == [3, 3, 0, 0]
    assert x["first_B"][:4] == [0, 1, 0, 0]
    nan = [math.nan]
    assert x["level_B"] == pytest.approx([0, 1, 0, 0, *nan * 2, 0, 0, 1, *nan * 4, 0, 1, *nan], nan_ok=True)
    assert x["mark:overall_B"] == pytest.approx([*nan * 9, 0.75, *nan * 6], nan_ok=True)
    assert x["levels_B"][9] == 5
    assert x["up_B"] == pytest.approx([*nan * 10, 1, 0, 1, *nan * 3], nan_ok=True)
    assert x["balance_B"][10:13] == [0.75, 1.5, 0.75]
    assert x["annotator_B"] == [0, 0, 1, 1, 1, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0]
    assert len(set(said.group_B.tolist())) == 10  # comment and skip say nothing about a reward


def test_spans_are_worth_what_a_hand_count_says(said: Any) -> None:
    row = 15  # one token per byte: a b c ␣ d e f and the end
    assert [said.decode([i]) for i in said.response_ids(row)[:7]] == list("abc def")
    assert said.extra["marked_BT"][row, :8].tolist() == [1, 1, 2, 1, 1, 0, 0, 0]
    assert said.extra["worth_BT"][row, :8].tolist() == [1, 1, -1, -2, -2, 0, 0, 0]
    assert int(said.extra["marked_BT"][:15].sum()) == 0


def spans(text: str, *places: tuple[int, int], **rest: Any) -> dict[str, Any]:
    said = [{"start": start, "end": end, "label": "wrong", "worth": 1.0} for start, end in places]
    return {**event({"kind": "spans", "of": 0, "spans": said}), "candidates": [{"text": text}], **rest}


def test_every_token_of_a_character_of_several_bytes_is_part_of_its_span(tmp_path: Path) -> None:
    text = "é😀 b😀"  # 2, 4, 1, 1 and 4 tokens of one byte, and the end
    rows = rows_of(tmp_path, [spans(text, (0, 1)), spans(text, (1, 3)), spans(text, (4, 5))], rows=3)
    assert [row[:13] for row in rows.extra["marked_BT"].tolist()] == [
        [1] * 2 + [0] * 11,
        [0] * 2 + [1] * 5 + [0] * 6,
        [0] * 8 + [1] * 4 + [0],
    ]


def test_spans_of_an_answer_that_was_cut_keep_their_places(tmp_path: Path) -> None:
    """Two tokens of prompt and six of the answer, the last of which is the first byte of a character."""
    rows = rows_of(tmp_path, [spans("abc d😀 efg", (2, 6), (8, 9))], overlong="truncate", longest=9, rows=1)
    ids = rows.response_ids(0)
    assert rows.decode(ids[:5]) == "abc d"
    assert rows.extra["marked_BT"][0, : len(ids)].tolist() == ([0, 0, 1, 1, 1] + [1] * 5)[: len(ids)]
    assert len(ids) < 12


def test_tokens_are_placed_in_time_proportional_to_their_number(tmp_path: Path) -> None:
    with open_phase(experiment(tmp_path / "events.jsonl", [EVENTS[9]], rows=1)) as loop:
        tokenizer = loop.ctx.tokenizer
        decoded: list[int] = []

        def decode(ids: Sequence[int], special: bool = False) -> str:
            decoded.append(len(ids))
            return tokenizer.decode(ids, special)

        text = "ab é😀 " * 200
        places = token_places(
            SimpleNamespace(tokenizer=SimpleNamespace(decode=decode)), tokenizer.answer(text), text, ""
        )
    assert places[-1] == (len(text), len(text))
    assert sum(decoded) < 10 * len(places)


def test_kinds_that_are_not_read_are_not_checked(tmp_path: Path) -> None:
    wrong = [
        event({"kind": "correction", "of": 0, "text": "abc def"}),
        event({"kind": "rating", "marks": {"a": 1, "b": 2}}),
    ]
    rows = rows_of(tmp_path, [*wrong, EVENTS[5]], kinds=["thumb"], rows=1)
    assert rows.extra["kind_B"].tolist() == [3]


def test_sampled_answers_are_cut_and_refused_like_written_ones(tmp_path: Path) -> None:
    sampled = event({"kind": "thumb", "of": 0, "up": True}, prompt_ids=[1, 1])
    sampled["candidates"] = [{"text": "", "token_ids": [1] * 9}]
    assert len(rows_of(tmp_path, [sampled], overlong="truncate", longest=8, rows=1).response_ids(0)) == 6
    with pytest.raises(DataError, match="row 1: its prompt and answer have 11 tokens, there is room for 8"):
        rows_of(tmp_path, [sampled], overlong="refuse", longest=8, rows=1)


def test_a_correction_marks_the_tokens_that_it_changed(said: Any) -> None:
    before, after = 13, 14
    assert said.response_text(before) == "abc def"
    assert said.response_text(after) == "abc dxf"
    assert said.extra["changed_BT"][before, :8].tolist() == [False] * 5 + [True] + [False] * 2
    assert said.extra["changed_BT"][after, :8].tolist() == [False] * 5 + [True] + [False] * 2
    assert not bool(said.extra["changed_BT"][:13].any())


def test_options_choose_what_is_read(tmp_path: Path) -> None:
    ranking = EVENTS[3]
    below = rows_of(tmp_path, [ranking], unranked="below")
    assert below.extra["level_B"].tolist() == [0, 0, 1, -1]
    best = rows_of(tmp_path, EVENTS[:9], answers="best", rows=5)
    assert [best.response_text(row) for row in range(len(best))] == ["abd def", "xyz", "abc def", "xyz", "abc dxf"]
    several = event({"kind": "rating", "of": 0, "marks": {"true": 5, "kind": 1}})
    other = event({"kind": "rating", "of": 0, "marks": {"short": 2}})
    found = rows_of(tmp_path, [several, other], axes=["true", "kind", "short"]).extra
    marks = [found[f"mark:{axis}_B"].tolist() for axis in ("kind", "short", "true")]
    assert marks == [pytest.approx(x, nan_ok=True) for x in ([0.0, math.nan], [math.nan, 0.25], [1.0, math.nan])]
    assert "mark:overall_B" not in rows_of(tmp_path, EVENTS[:3], kinds=["comparison"]).extra
    new = {**EVENTS[0], "id": "b", "supersedes": "a", "answer": {"kind": "comparison", "better": 0}}
    assert rows_of(tmp_path, [{**EVENTS[0], "id": "a"}, new], rows=1).extra["outcome_B"].tolist() == [0, 0]
    pair = {"prompt": "p ", "chosen": "xyz", "rejected": "abc"}
    assert rows_of(tmp_path, [pair]).extra["outcome_B"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("events", "rollout", "says"),
    [
        (
            [event({"kind": "correction", "of": 0, "text": "abc def"})],
            {},
            "row 1: the correction by 'ann' changes nothing",
        ),
        ([event({"kind": "rating", "marks": {"a": 1, "b": 2}})], {}, "row 1: .*axes a, b"),
        ([EVENTS[9]], {"worths": {}}, "row 1: .*'wrong' has no worth"),
        ([EVENTS[10]], {}, "0 of 1 judgements|left out"),
        (
            [event({"kind": "rating", "of": 0, "marks": {"true": 5, "kind": 1}})],
            {"axes": ["true", "kid"]},
            "no rating has the axis 'kid' → the axes of these ratings: true, kind",
        ),
        (EVENTS, {"axes": ["true"], "split": "train"}, "no rating has the axis 'true' → the axes of these ratings: overall"),
        (EVENTS, {"axes": ["true", "kind", "true"]}, "names the axis 'true' twice"),
        (
            [{"prompt": "p", "completion": "c"}],
            {},
            "row 1: it is not a judgement: it has the columns prompt, completion",
        ),
        (
            [{**EVENTS[9], "prompt_ids": [5], "candidates": [{"text": "abc def", "token_ids": [7, 8]}]}],
            {},
            "not its text",
        ),
    ],
)
def test_judgements_that_cannot_be_read_are_refused_by_a_sentence(
    tmp_path: Path, events: list[dict[str, Any]], rollout: dict[str, Any], says: str
) -> None:
    with pytest.raises((DataError, ExperimentError), match=says):
        rows_of(tmp_path, events, **rollout)


def test_annotators_are_left_out_by_name(tmp_path: Path) -> None:
    kept = rows_of(tmp_path, EVENTS, without=["bob", "cem"], rows=8)
    assert {record["annotator"] for record in kept.records} == {"ann"}
    with pytest.raises(
        DataError, match=r"'dan' is left out by `without`, but gave no answer → annotators: ann, bob, cem"
    ):
        rows_of(tmp_path, EVENTS, without=["dan"])


@pytest.mark.parametrize(("split", "shared"), [("train", False), ("all", True)])
def test_a_run_says_that_an_evaluation_reads_training_prompts_only_if_the_splits_do(
    tmp_path: Path, split: str, shared: bool
) -> None:
    events = [{**EVENTS[0], "prompt": f"p{i} "} for i in range(40)]
    made = experiment(tmp_path / "events.jsonl", events, {"use": "latent-reward"}, split=split, rows=4)
    [phase] = made["phases"]
    held = {**phase["rollout"], "split": "heldout"}
    phase |= {"steps": 1, "evaluate": [{"every": 1, "rows": 3, "rollout": held}]}
    notices = hookline.run(made, out=tmp_path / "run").notices
    assert any("of evaluation 'heldout' are also in the training data" in text for text in notices) is shared
    assert not any("on which the phase is trained" in text for text in notices)


def test_judgements_are_read_from_a_store(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/answers.db"
    with hookline.store(place) as store:
        store.append([hookline.Event.read(event, "row") for event in EVENTS[:4]])
    made = experiment(tmp_path / "events.jsonl", EVENTS)
    made["phases"][0]["rollout"] |= {"path": place, "rows": 4}
    with open_phase(made) as loop:
        batch = loop.hooks.rollout(loop.ctx)
    assert sorted(batch.extra["kind_B"].tolist()) == [0] * 6 + [1] * 3
