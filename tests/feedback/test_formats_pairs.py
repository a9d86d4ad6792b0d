"""Datasets of two answers, of summaries, of token ids and of attacks: read as events, written again, their traps read right."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import Comparison, Correction, DataError, Ranking, Rating, Skip
from judged_rows import NAME, TEXT, again, events, form, some, turns, written

FEW = {"min_size": 1, "max_size": 4}
PLACE = st.integers(0, 1)


def same(name: str, *rows: dict[str, Any]) -> None:
    assert again(name, *rows) == list(rows)


@given(st.lists(st.fixed_dictionaries(
    {"history": TEXT, "human_ref_A": TEXT, "human_ref_B": TEXT, "labels": PLACE, "score_A": st.integers(), "score_ratio": st.floats(1, 9)}
), **FEW))  # fmt: skip
def test_shp_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    same("shp", *rows)


def test_the_label_one_of_shp_is_the_first_answer() -> None:
    row = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 5, "score_B": 2}
    [event] = events("shp", row)
    assert event.answer == Comparison(better=0)
    assert event.record == {"score_A": 5, "score_B": 2}
    with pytest.raises(DataError, match="'labels' is 2, not 0 or 1"):
        events("shp", {**row, "labels": 2})


@given(st.lists(st.fixed_dictionaries(
    {"prompt": TEXT, "response_0": TEXT, "response_1": TEXT, "better_response_id": PLACE},
    optional={"safer_response_id": PLACE, "is_response_0_safe": st.booleans(), "is_response_1_safe": st.booleans(), "prompt_source": NAME},
), **FEW, unique_by=lambda row: (row["prompt"], row["response_0"], row["response_1"])))  # fmt: skip
def test_pku_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    same("pku-saferlhf", *rows)


def test_both_preferences_of_pku_are_kept_apart() -> None:
    row = {"prompt": "p", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1,
           "is_response_0_safe": False, "is_response_1_safe": True}  # fmt: skip
    found = [(one.extra["question"], one.answer) for one in events("pku-saferlhf", row)]
    assert found == [
        ("better", Comparison(better=0)),
        ("safer", Comparison(better=1)),
        ("safe", Rating(of=0, marks={"safe": 0.0}, low=0, high=1)),
        ("safe", Rating(of=1, marks={"safe": 1.0}, low=0, high=1)),
    ]
    [event] = events(
        "pku-saferlhf", {**row, "better_response_id": None, "is_response_0_safe": None, "is_response_1_safe": None}
    )
    assert event.extra == {"question": "safer"}


@given(st.lists(st.tuples(TEXT, TEXT, TEXT), **FEW))
def test_rlhf_v_is_the_same_after_reading_and_writing(found: list[tuple[str, str, str]]) -> None:
    texts = [json.dumps(dict(zip(("question", "chosen", "rejected"), one)), ensure_ascii=False) for one in found]
    same("rlhf-v", *({"image": f"{i}.png", "text": text, "idx": i} for i, text in enumerate(texts)))


def test_rlhf_v_is_a_correction_whose_changes_are_the_segments() -> None:
    text = json.dumps({"question": "What?", "chosen": "a red bus", "rejected": "a blue bus"})
    [event] = events("rlhf-v", {"image": "bus.png", "text": text})
    assert isinstance(event.answer, Correction)
    changed = event.answer.changes(event.candidates[0].text)
    assert changed
    assert all(2 <= start <= end <= 6 for start, end, _ in changed)
    assert not form("rlhf-v").fits({"image": "bus.png", "text": "plain text"})


# -- HH-RLHF


DIALOGUE = st.lists(TEXT, min_size=1, max_size=3).map(
    lambda said: "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))
)


@given(st.lists(st.tuples(DIALOGUE, TEXT, TEXT), **FEW))
def test_hh_is_the_same_after_reading_and_writing(found: list[tuple[str, str, str]]) -> None:
    same(
        "hh",
        *(
            {"chosen": f"{asked}\n\nAssistant:{one}", "rejected": f"{asked}\n\nAssistant:{two}"}
            for asked, one, two in found
        ),
    )


def test_hh_is_split_at_the_last_assistant_before_which_both_are_equal() -> None:
    asked = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Tell me\n\nAssistant:"
    [event] = events("hh", {"chosen": f"{asked} The sea", "rejected": f"{asked} The seal"})
    assert event.prompt == asked
    assert [one.text for one in event.candidates] == [" The sea", " The seal"]
    longer = "\n\nHuman: Hi\n\nAssistant: A\n\nHuman: B\n\nAssistant: C", "\n\nHuman: Hi\n\nAssistant: D"
    [event] = events("hh", dict(zip(("chosen", "rejected"), longer)))
    assert event.prompt == "\n\nHuman: Hi\n\nAssistant:"
    [apart] = events("hh", {"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Ho"})
    assert apart.prompt == ""
    [empty] = events("hh", {"chosen": f"{asked} yes", "rejected": asked})
    assert empty.candidates[1].text == ""
    same(
        "hh",
        {"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "\n\nHuman: Ho"},
        {"chosen": f"{asked} yes", "rejected": asked},
    )


def test_messages_are_written_as_a_dialogue() -> None:
    row = {"context": turns("Hi", "Hello", "Go on"), "response1": "a", "response2": "b", "overall_preference": 1}
    [dialogue] = written("hh", events("helpsteer3", row))
    assert dialogue["chosen"] == "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Go on\n\nAssistant: b"
    tied = {**row, "overall_preference": 0}
    with pytest.raises(DataError, match="one of two dialogues is better in this format, and this is 'tie'"):
        written("hh", events("helpsteer3", tied))


# -- RewardBench


@given(st.lists(st.fixed_dictionaries(
    {"prompt": TEXT, "chosen": TEXT, "rejected": TEXT, "chosen_model": NAME, "rejected_model": NAME, "subset": NAME, "id": st.integers(0)}
), **FEW))  # fmt: skip
def test_rewardbench_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    same("rewardbench", *rows)


@given(st.lists(st.tuples(TEXT, st.lists(TEXT, **FEW), st.lists(TEXT, **FEW), NAME), **FEW))
def test_rewardbench_2_is_the_same_after_reading_and_writing(found: list[Any]) -> None:
    same("rewardbench2", *(
        {"prompt": asked, "chosen": right, "rejected": wrong, "num_correct": len(right), "total_completions": len(right) + len(wrong),
         "subset": subset} for asked, right, wrong, subset in found
    ))  # fmt: skip


def test_several_right_answers_are_as_good_as_one_another() -> None:
    row = {
        "prompt": "p",
        "chosen": ["1", "one"],
        "rejected": ["2"],
        "num_correct": 2,
        "total_completions": 3,
        "subset": "Ties",
    }
    assert events("rewardbench2", row)[0].answer == Ranking(order=((0, 1), (2,)))
    with pytest.raises(DataError, match="it has 2 right of 3 answers, and its columns say other numbers"):
        events("rewardbench2", {**row, "num_correct": 1})


# -- summaries


@st.composite
def summaries(draw: st.DrawFn) -> dict[str, Any]:
    source = draw(st.sampled_from(["post", "article"]))
    said = st.fixed_dictionaries({"text": TEXT.map(" {}".format), "policy": NAME, "note": st.none() | TEXT})
    return {
        "info": {"id": draw(NAME), source: draw(TEXT), **draw(some(title=TEXT, subreddit=NAME))},
        "summaries": [draw(said), draw(said)],
        "choice": draw(PLACE),
        "worker": draw(NAME),
        "batch": draw(NAME),
        "split": "train",
        "extra": {"confidence": draw(st.integers(1, 9))},
    }


@given(st.lists(summaries(), **FEW), st.data())
def test_summaries_are_the_same_after_reading_and_writing(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    same("summary-comparisons", *rows)
    marks = st.none() | st.integers(1, 7)
    for row in rows:
        axes = {axis: data.draw(marks) for axis in ("overall", "accuracy", "coverage", "coherence")}
        [row["summary"], _] = row.pop("summaries")
        row.pop("choice")
        row["summary"]["axes"] = {**axes, "compatible": data.draw(st.none() | st.booleans())}
    same("summary-axes", *rows)


def test_a_summary_keeps_the_space_that_it_begins_with_and_null_marks_are_missing() -> None:
    row = {
        "info": {"article": "News."},
        "summaries": [{"text": " One.", "policy": "sup4"}, {"text": " Two."}],
        "choice": 1,
        "worker": "w",
    }
    [event] = events("summary-comparisons", row)
    assert (event.prompt, event.candidates[0].text, event.annotator) == ("News.", " One.", "w")
    axes = {"overall": 5, "accuracy": None, "compatible": True}
    [event] = events("summary-axes", {"info": {"post": "P"}, "summary": {"text": " S", "axes": axes}, "worker": "w"})
    assert event.answer == Rating(marks={"overall": 5.0}, low=1, high=7)
    axes = dict.fromkeys(axes)
    [event] = events("summary-axes", {"info": {"post": "P"}, "summary": {"text": " S", "axes": axes}, "worker": "w"})
    assert event.answer == Skip(reason="no axis is rated")


# -- token ids and attacks

IDS = st.lists(st.integers(0, 50256), max_size=4).flatmap(
    lambda ids: st.integers(0, 3).map(lambda n: [*ids, *[50259] * n])
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {**dict.fromkeys(("query", "sample0", "sample1", "sample2", "sample3"), IDS), "best": st.integers(0, 3)}
        ),
        **FEW,
    )
)
def test_continuations_are_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    same("lm-human-preferences", *rows)


def test_padding_is_no_part_of_a_continuation() -> None:
    row = {"query": [1, 2, 50259], "sample0": [3, 50259, 50259], **{f"sample{i}": [i] for i in (1, 2, 3)}, "best": 2}
    [event] = events("lm-human-preferences", row)
    assert event.prompt_ids == (1, 2)
    assert event.candidates[0].token_ids == (3,)
    assert event.answer == Ranking(order=((2,), (0, 1, 3)))


@given(st.lists(st.tuples(DIALOGUE, TEXT, st.integers(0, 4), st.floats(-9, 9)), **FEW))
def test_attacks_are_the_same_after_reading_and_writing(found: list[Any]) -> None:
    same("red-team", *(
        {"transcript": f"{asked}\n\nAssistant:{said}", "rating": rating, "min_harmlessness_score_transcript": score, "model_type": "rlhf"}
        for asked, said, rating, score in found
    ))  # fmt: skip
