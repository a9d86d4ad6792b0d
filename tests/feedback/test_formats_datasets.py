"""Published datasets of judgements become events that keep all of it, and the same rows again; their traps are read right."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import Comment, Comparison, DataError, Ranking, Rating
from judged_rows import NAME, TEXT, again, dialogue, events, form, some, turns, written

ONE_TO_FOUR = {"min_size": 1, "max_size": 4}


# -- battles


@st.composite
def battles(draw: st.DrawFn) -> dict[str, Any]:
    asked = draw(TEXT)
    return {
        "question_id": draw(NAME),
        "model_a": draw(NAME),
        "model_b": draw(NAME),
        "winner": draw(st.sampled_from(["model_a", "model_b", "tie", "tie (bothbad)"])),
        "judge": draw(NAME),
        "conversation_a": turns(asked, draw(TEXT), draw(TEXT), draw(TEXT)),
        "conversation_b": turns(asked, draw(TEXT)),
        "turn": draw(st.integers(1, 3)),
        "anony": draw(st.booleans()),
        **draw(some(language=NAME, tstamp=st.floats(0, 2e9), toxic_chat_tag=st.just({"roberta": {"flagged": False}}))),
    }


@given(st.lists(battles(), **ONE_TO_FOUR))
def test_arena_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("arena", *rows) == rows


@given(st.lists(battles(), **ONE_TO_FOUR), st.data())
def test_arena_of_2025_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    for number, row in enumerate(rows):
        for name in ("question_id", "judge", "anony", "turn", "tstamp"):
            row.pop(name, None)
        for name in ("conversation_a", "conversation_b"):
            for turn in row[name]:
                turn["content"] = [{"type": "text", "text": turn["content"]}]
                turn["content"] += data.draw(st.sampled_from([[], [{"type": "image", "image": "sea.png"}]]))
        row |= {
            "id": f"{number}",
            "evaluation_session_id": "s",
            "winner": row["winner"].replace("tie (bothbad)", "both_bad"),
        }
        row |= {"conv_metadata": {"header_count_a": {"h1": 1}}, "is_code": False, "evaluation_order": number}
    assert again("arena-140k", *rows) == rows


@given(st.lists(battles(), **ONE_TO_FOUR), st.data())
def test_mt_bench_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    for row in rows:
        for name in ("anony", "language", "tstamp", "toxic_chat_tag"):
            row.pop(name, None)
        row["conversation_b"] = row["conversation_b"] + turns(data.draw(TEXT), data.draw(TEXT))
        row |= {"question_id": data.draw(st.integers(81, 160)), "turn": data.draw(st.integers(1, 2))}
        row["judge"] = data.draw(NAME | st.just(["gpt-4", "pair-v2"]))
    assert again("mt-bench", *rows) == rows


def test_both_bad_is_no_tie_and_models_are_the_producers() -> None:
    row = {
        "question_id": "q", "model_a": "big", "model_b": "small", "winner": "tie (bothbad)", "judge": "j", "turn": 1,
        "anony": False, "conversation_a": turns("Hi", "no"), "conversation_b": turns("Hi", "never"), "tstamp": 1.5,
    }  # fmt: skip
    [event] = events("arena", row)
    assert event.answer == Comparison(better="both-bad")
    assert event.record["anony"] is False
    assert [one.by and one.by.name for one in event.candidates] == ["big", "small"]
    assert [one.text for one in event.candidates] == ["no", "never"]
    with pytest.raises(DataError, match="the winner is 'both_bad', not model_a, model_b, tie"):
        events("arena", {**row, "winner": "both_bad"})


def test_mt_bench_is_judged_by_turn() -> None:
    row = {
        "question_id": 81, "model_a": "big", "model_b": "small", "winner": "model_b", "judge": "expert_1", "turn": 1,
        "conversation_a": turns("Hi", "a1", "Go on", "a2"), "conversation_b": turns("Hi", "b1", "Go on", "b2"),
    }  # fmt: skip
    [first], [second] = events("mt-bench", row), events("mt-bench", {**row, "turn": 2})
    assert [one.text for one in first.candidates] == ["a1", "b1"]
    assert first.candidates[0].messages is None
    assert [len(one.messages or ()) for one in second.candidates] == [3, 3]
    assert first.item != second.item


# -- HelpSteer

MARKS = st.integers(0, 4)
AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


@given(st.lists(st.fixed_dictionaries({"prompt": st.sampled_from("ab"), "response": TEXT, **dict.fromkeys(AXES, MARKS)}),
                min_size=1, max_size=5))  # fmt: skip
def test_helpsteer2_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    def known(row: dict[str, Any]) -> Any:
        return sorted(row.items())

    assert sorted(map(known, again("helpsteer2", *rows))) == sorted(
        map(known, rows)
    )  # items that come twice are put together


def test_adjacent_rows_of_a_prompt_are_the_answers_of_one_item() -> None:
    rows = [{"prompt": prompt, "response": said, **dict.fromkeys(AXES, 3)} for prompt, said in ("p1", "p2", "q3")]
    found = events("helpsteer2", *rows)
    assert [one.answer.of for one in found] == [0, 1, 0]
    assert found[0].item == found[1].item != found[2].item
    assert found[0].answer == Rating(of=0, marks=dict.fromkeys(AXES, 3.0), low=0, high=4)


@st.composite
def preferences(draw: st.DrawFn) -> dict[str, Any]:
    alone = draw(
        st.lists(st.fixed_dictionaries({"score": st.integers(-3, 3), "reasoning": TEXT, "feedback1": TEXT}), max_size=3)
    )
    return {
        "context": dialogue(draw),
        "response1": draw(TEXT),
        "response2": draw(TEXT),
        "overall_preference": draw(st.integers(-3, 3)),
        "domain": draw(NAME),
        **({"individual_preference": alone} if alone else {}),
    }


def items(row: dict[str, Any]) -> Any:
    return str((row["context"], row["response1"], row["response2"]))


@given(st.lists(preferences(), **ONE_TO_FOUR, unique_by=items))
def test_helpsteer3_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("helpsteer3", *rows) == rows


@given(st.lists(preferences(), **ONE_TO_FOUR, unique_by=items), st.data())
def test_helpsteer3s_feedback_and_edits_are_the_same_after_reading_and_writing(
    rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    comments = st.lists(TEXT, min_size=1, max_size=3)
    talked = [
        {**{name: row[name] for name in ("context", "response1", "response2", "domain")},
         "feedback1": data.draw(comments), "feedback2": data.draw(comments)} for row in rows
    ]  # fmt: skip
    assert again("helpsteer3-feedback", *talked) == talked
    edited = [
        {"context": row["context"], "original_response": "a", "edited_response": row["response1"], "feedback": ["b"]}
        for row in rows
    ]
    assert again("helpsteer3-edit", *edited) == edited
    compared = [
        {
            "context": row["context"],
            "original_response": "a",
            "good_edited_response": row["response1"],
            "bad_edited_response": "b",
        }
        for row in rows
    ]
    assert again("helpsteer3-edit-quality", *compared) == compared
    strong = [
        {"prompt": "p", "response_1": row["response1"], "response_2": row["response2"], "preference_statement": None,
         "preference_strength": row["overall_preference"]} for row in rows
    ]  # fmt: skip
    assert again("helpsteer2-preference", *strong) == strong


@pytest.mark.parametrize(("score", "better", "strength"), [(-3, 0, 3), (-1, 0, 1), (0, "tie", None), (2, 1, 2)])
def test_helpsteer3_prefers_the_first_answer_below_zero(score: int, better: Any, strength: int | None) -> None:
    row = {"context": turns("q"), "response1": "a", "response2": "b", "overall_preference": score}
    [event] = events("helpsteer3", row)
    assert event.answer == Comparison(better=better, strength=strength)
    assert again("helpsteer3", row) == [row]


def test_three_annotators_of_helpsteer3_are_three_events_of_one_item() -> None:
    alone = [{"score": score, "reasoning": ""} for score in (-2, 0, 1)]
    row = {
        "context": turns("q"),
        "response1": "a",
        "response2": "b",
        "overall_preference": -1,
        "individual_preference": alone,
    }
    found = events("helpsteer3", row)
    assert [one.answer.better for one in found] == [0, "tie", 1]
    assert len({one.item for one in found}) == 1
    assert len({one.annotator for one in found}) == 3
    with pytest.raises(DataError, match="a preference is 7, not a whole number from -3 to 3"):
        events("helpsteer3", {**row, "individual_preference": [{"score": 7}]})


def test_feedback_is_about_its_answer() -> None:
    row = {
        "context": turns("q"),
        "response1": "a",
        "response2": "b",
        "feedback1": ["good"],
        "feedback2": ["bad", "worse"],
    }
    said = [one.answer for one in events("helpsteer3-feedback", row)]
    assert said == [Comment(of=0, text="good"), Comment(of=1, text="bad"), Comment(of=1, text="worse")]


# -- rated and ranked by a model

RATINGS = ("instruction_following", "honesty", "truthfulness", "helpfulness")


@st.composite
def completions(draw: st.DrawFn) -> dict[str, Any]:
    given = {
        axis: {"Rating": draw(st.sampled_from(["1", "2", "3", "4", "5", "N/A"])), "Rationale": draw(TEXT)}
        for axis in RATINGS
    }
    return {
        "model": draw(NAME),
        "principle": draw(NAME),
        "custom_system_prompt": draw(TEXT),
        "response": draw(TEXT),
        "annotations": given,
        "fine-grained_score": draw(st.floats(1, 5)),
        "overall_score": draw(st.floats(1, 9.5)),
        "critique": draw(TEXT),
    }


@given(
    st.lists(
        st.tuples(TEXT, st.lists(completions(), min_size=1, max_size=4)), **ONE_TO_FOUR, unique_by=lambda one: one[0]
    )
)
def test_ultrafeedback_is_the_same_after_reading_and_writing(found: list[Any]) -> None:
    rows = [
        {"source": "s", "instruction": asked, "models": [one["model"] for one in said], "completions": said}
        for asked, said in found
    ]
    assert again("ultrafeedback", *rows) == rows


@pytest.mark.parametrize(
    ("ratings", "overall"),
    [("1 2 2 1", 1.0), ("2 2 2 2", 1.0), ("3 3 4 3", None), ("4 4 4 4", None), ("5 4 5 5", 10.0)],
)
def test_a_score_of_ten_is_one_where_the_ratings_say_so(ratings: str, overall: float | None) -> None:
    marks = {axis: {"Rating": mark} for axis, mark in zip(RATINGS, ratings.split())}
    row = {"instruction": "q", "completions": [{"response": "a", "annotations": marks, "overall_score": 10}]}
    first, *more = events("ultrafeedback", row)
    assert first.answer == Rating(marks={axis: float(mark["Rating"]) for axis, mark in marks.items()}, low=1, high=5)
    assert [one.answer.marks["overall"] for one in more] == ([] if overall is None else [overall])
    assert (first.role, first.annotator) == ("model", "gpt-4")


@pytest.mark.parametrize("rating", ["10", "N/A", "", "1.5", None, 0])
def test_a_rating_beyond_the_scale_is_missing_and_not_guessed(rating: Any) -> None:
    marks = {"honesty": {"Rating": rating}, "helpfulness": {"Rating": "3"}}
    [event] = events("ultrafeedback", {"instruction": "q", "completions": [{"response": "a", "annotations": marks}]})
    assert event.answer == Rating(marks={"helpfulness": 3.0})


@st.composite
def ranked(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(2, 7))
    answers = [
        {"answer": draw(TEXT), "model": draw(NAME), "rank": draw(st.none() | st.integers(1, 7))} for _ in range(count)
    ]
    return {
        "prompt": f"\n\nHuman: {draw(TEXT)}\n\nAssistant: ",
        "answers": answers,
        "turns": 1,
        "num_responses": count,
        "source": draw(st.lists(NAME, max_size=2)),
        "good_natured": draw(st.booleans()),
    }


@given(st.lists(ranked().filter(lambda row: any(one["rank"] for one in row["answers"])), **ONE_TO_FOUR))
def test_nectar_is_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("nectar", *rows) == rows


def test_nectar_ranks_the_best_first_with_ties_and_without_those_that_have_no_rank() -> None:
    ranks = (3, 1, None, 1)
    answers = [{"answer": name, "model": name, "rank": rank} for name, rank in zip("abcd", ranks)]
    [event] = events("nectar", {"prompt": "\n\nHuman: q\n\nAssistant: ", "answers": answers})
    assert event.answer == Ranking(order=((1, 3), (0,)))
    better = event.model_copy(update={"answer": Comparison(better=1), "source": "people"})
    assert [one["rank"] for one in written("nectar", [better])[0]["answers"]] == [2, 1, None, None]


# -- which is which


def test_a_row_of_one_format_is_not_one_of_another() -> None:
    assert not form("mt-bench").fits({"question_id": 1, "anony": True})
    assert not form("helpsteer3").fits({"context": "text", "response1": "a", "response2": "b", "overall_preference": 1})
    row = {"context": turns("q"), "response1": "a", "response2": "b", "overall_preference": 1}
    other = {name: row[name] for name in ("context", "response1", "response2")}
    with pytest.raises(DataError, match="row 2: 'overall_preference' is missing, unlike in rows of the format"):
        events("helpsteer3", row, other)
