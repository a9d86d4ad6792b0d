"""What Argilla and Label Studio export becomes events and the same export again; what they cannot say is told apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import Candidate, Comparison, DataError, Event, Ranking, Rating, Skip, Spans
from judged_rows import NAME, TEXT, again, events, form, some, written

USERS = st.sampled_from(["u1", "u2", "u3"])
FIELDS = ["response-1", "response-2"]


# -- Argilla


@st.composite
def _answers(draw: st.DrawFn) -> dict[str, Any]:
    ranks = st.lists(st.integers(1, 2) | st.none(), min_size=2, max_size=2)
    values = {
        "ranking": ranks.map(lambda some: [{"value": name, "rank": rank} for name, rank in zip(FIELDS, some)]),
        "preference": st.sampled_from([*FIELDS, "tie", "both_bad", "both bad", "A", "no idea"]),
        "helpfulness-2": st.integers(0, 10),
        "overall": st.integers(0, 10),
        "correction-1": TEXT,
        "comment": TEXT,
        "themes": st.lists(NAME, max_size=2),
    }
    return {
        name: draw(values[name]) for name in draw(st.lists(st.sampled_from(sorted(values)), unique=True, min_size=1))
    }


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    responses: dict[str, list[Any]] = {}
    for user in draw(st.lists(USERS, unique=True, min_size=1)):
        for question, value in draw(_answers()).items():
            status = draw(st.sampled_from(["submitted", "submitted", "discarded", "draft"]))
            kept = None if status == "discarded" and draw(st.booleans()) else value
            responses.setdefault(question, []).append({"value": kept, "user_id": user, "status": status})
    suggested = {
        question: {"value": value, "score": draw(st.none() | st.floats(0, 1)), "agent": draw(NAME)}
        for question, value in draw(_answers()).items()
    }
    return {
        "id": draw(st.uuids().map(str)),
        "status": draw(st.sampled_from(["pending", "completed"])),
        "fields": {"prompt": draw(TEXT), "response-1": draw(TEXT), "response-2": draw(TEXT)},
        "metadata": draw(st.dictionaries(NAME, st.integers(), max_size=2)),
        "vectors": {},
        "responses": responses,
        "suggestions": suggested,
    }


@given(st.lists(records(), min_size=1, max_size=3, unique_by=lambda row: row["id"]))
def test_argillas_records_are_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("argilla", *rows) == rows


def argilla(**changes: Any) -> dict[str, Any]:
    fields = {"prompt": "Which?", "response-1": "this", "response-2": "that"}
    return {"id": "r1", "fields": fields, "responses": {}, "suggestions": {}, **changes}


def said(value: Any, question: str = "preference", **more: Any) -> dict[str, Any]:
    return {"responses": {question: [{"value": value, "user_id": "ann", "status": "submitted", **more}]}}


def test_equal_ranks_of_argilla_are_a_tie_and_missing_ones_no_place() -> None:
    ranks = [{"value": "response-2", "rank": 1}, {"value": "response-1", "rank": 1}]
    assert events("argilla", argilla(**said(ranks, "ranking")))[0].answer == Ranking(order=((1, 0),))
    ranks[1]["rank"] = 2
    assert events("argilla", argilla(**said(ranks, "ranking")))[0].answer == Ranking(order=((1,), (0,)))
    ranks[1]["rank"], ranks[0]["rank"] = 1, None
    assert events("argilla", argilla(**said(ranks, "ranking")))[0].answer == Ranking(order=((0,),))


def test_discarded_responses_are_missing_data_and_suggestions_a_models() -> None:
    [event] = events("argilla", argilla(**said("response-1", status="discarded")))
    assert event.answer == Skip(reason="discarded")
    row = argilla(suggestions={"preference": {"value": "response-2", "agent": "judge-7b"}})
    [event] = events("argilla", row)
    assert (event.role, event.annotator, event.answer) == ("model", "judge-7b", Comparison(better=1))


def test_several_annotators_of_one_record_are_events_of_one_item() -> None:
    given = [
        {"value": name, "user_id": who, "status": "submitted"} for name, who in (("response-1", "a"), ("tie", "b"))
    ]
    first, second = events("argilla", argilla(responses={"preference": given}))
    assert first.item == second.item == "r1"
    assert [one.answer.better for one in (first, second)] == [0, "tie"]


def test_flattened_columns_survive_metadata_that_is_called_as_a_field() -> None:
    row = argilla(metadata={"prompt": "of another kind", "topic": "sea"}, **said("response-2"))
    found = events("argilla", row)
    [flat] = written("argilla-columns", [event.model_copy(update={"source": "argilla-columns"}) for event in found])
    assert flat["prompt"] == "Which?"
    assert flat["metadata.prompt"] == "of another kind"
    assert flat["topic"] == "sea"
    assert flat["preference.responses.users"] == ["ann"]
    assert again("argilla-columns", flat) == [flat]
    assert [event.record["metadata"] for event in events("argilla-columns", flat)] == [row["metadata"]]


def test_parallel_columns_of_different_lengths_are_refused_by_name() -> None:
    row = {"prompt": "p", "response": "r", "q.responses": [1, 2], "q.responses.users": ["a"], "q.responses.status": []}
    with pytest.raises(DataError, match=r"row 1 .*'q.responses' and its users"):
        events("argilla-columns", row)


def test_a_fraction_is_no_argilla_rating() -> None:
    rated = Event(
        prompt="p",
        candidates=(Candidate(text="a"),),
        answer=Rating(marks={"helpfulness": 2.5}, low=0, high=4, step=0.5),
        annotator="ann",
        item="r1",
    )
    with pytest.raises(DataError, match=r"'helpfulness' is 2\.5"):
        written("argilla", [rated])


# -- Label Studio

RESULTS = st.one_of(
    st.sampled_from(["left", "right"]).map(lambda side: ("pairwise", "answer1", {"selected": side})),
    st.integers(1, 5).map(lambda stars: ("rating", "answer2", {"rating": stars})),
    NAME.map(lambda label: ("choices", "answer1", {"choices": [label]})),
    st.lists(NAME, min_size=2, max_size=3).map(lambda labels: ("choices", "answer1", {"choices": labels})),
    TEXT.map(lambda text: ("textarea", "answer2", {"text": [text]})),
    st.lists(TEXT, min_size=2, max_size=2).map(lambda texts: ("textarea", "prompt", {"text": texts})),
)


@st.composite
def tasks(draw: st.DrawFn) -> dict[str, Any]:
    annotations: list[Any] = []
    for number in draw(st.lists(st.integers(1, 99), unique=True, min_size=1, max_size=3)):
        found = draw(st.lists(RESULTS, max_size=3, unique_by=lambda one: one[0]))
        results = [
            {"id": f"r{i}", "from_name": kind, "to_name": to, "type": kind, "value": value}
            for i, (kind, to, value) in enumerate(found)
        ]
        span = {"start": 0, "end": 2, "text": "ye", "labels": ["wrong"]}
        if draw(st.booleans()):
            marked = {"from_name": "spans", "to_name": "answer1", "type": "labels"}
            results += [{"id": "s1", **marked, "value": span}, {"id": "s2", **marked, "value": {**span, "end": 3}}]
        more = draw(some(created_at=st.just("2024-05-01T10:00:00.000000Z"), lead_time=st.floats(0, 1e4)))
        flags = {"was_cancelled": draw(st.booleans()), "ground_truth": draw(st.booleans())}
        annotations.append({"id": number, "completed_by": draw(st.integers(1, 9)), **flags, "result": results, **more})
    return {
        "id": draw(st.integers(0, 10**6)),
        "data": {"prompt": draw(TEXT), "answer1": "yes, yes", "answer2": draw(TEXT), "topic": draw(NAME)},
        "annotations": annotations,
        "predictions": [],
    }


@given(st.lists(tasks(), min_size=1, max_size=3, unique_by=lambda row: row["id"]))
def test_label_studios_tasks_are_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("label-studio", *rows) == rows


def task(*results: Any, data: Any = None, **more: Any) -> dict[str, Any]:
    one = {"id": 1, "completed_by": 3, "was_cancelled": False, "result": list(results), **more}
    return {"id": 7, "data": data or {"prompt": "q", "answer1": "x", "answer2": "y"}, "annotations": [one]}


def result(kind: str, to: str, **value: Any) -> dict[str, Any]:
    return {"from_name": kind, "to_name": to, "type": kind, "value": value}


def test_a_tie_survives_label_studio_which_deletes_the_result_of_one() -> None:
    pair = (Candidate(text="x"), Candidate(text="y"))
    for better in (0, 1, "tie", "both-bad"):
        event = Event(prompt="q", candidates=pair, answer=Comparison(better=better), annotator="3", item="7")  # type: ignore[arg-type]
        [row] = written("label-studio", [event])
        [back] = events("label-studio", row)
        assert back.answer == event.answer
        assert [one.text for one in back.candidates] == ["x", "y"]


def test_an_empty_result_is_a_skip_that_says_why_and_so_is_a_cancelled_task() -> None:
    [untouched] = events("label-studio", task())
    assert untouched.answer == Skip(reason="nothing was selected: a tie, or not touched")
    [cancelled] = events("label-studio", task(result("pairwise", "answer1", selected="left"), was_cancelled=True))
    assert cancelled.answer == Skip(reason="cancelled")
    assert again("label-studio", task(result("pairwise", "answer1", selected="left"), was_cancelled=True))[0][
        "annotations"
    ][0]["result"]


def test_a_ranker_ranks_the_items_of_a_list_and_leaves_others_without_a_place() -> None:
    data = {"prompt": "q", "items": [{"id": name, "title": name.upper()} for name in "abc"]}
    row = task(result("ranker", "items", ranker={"_": ["a"], "rank": ["c", "b"]}), data=data)
    [event] = events("label-studio", row)
    assert event.answer == Ranking(order=((2,), (1,)))
    assert [one.text for one in event.candidates] == ["A", "B", "C"]
    assert again("label-studio", row)[0]["annotations"] == row["annotations"]
    with pytest.raises(DataError, match="'z' is ranked, and the task has no such item"):
        events("label-studio", task(result("ranker", "items", ranker={"rank": ["z"]}), data=data))
    tied = event.model_copy(update={"answer": Ranking(order=((0, 1), (2,)))})
    with pytest.raises(DataError, match="a ranker has no ties"):
        written("label-studio", [tied.model_copy(update={"source": ""})])


def test_ground_truth_is_what_the_others_are_expected_to_say() -> None:
    right, wrong = (result("pairwise", "answer1", selected=side) for side in ("left", "right"))
    row = task(right, ground_truth=True)
    row["annotations"].append({"id": 2, "completed_by": {"id": 4, "email": "ann@example.org"}, "result": [wrong]})
    truth, other = events("label-studio", row)
    assert truth.expected is None
    assert other.expected == Comparison(better=0)
    assert other.annotator == "4"
    assert "example.org" not in str(other.written())


def test_labels_of_one_text_are_the_spans_of_one_answer() -> None:
    marks = [result("labels", "answer1", start=at, end=at + 2, labels=["wrong"]) for at in (0, 3)]
    [event] = events("label-studio", task(*marks, data={"prompt": "q", "answer1": "no, no", "answer2": ""}))
    assert isinstance(event.answer, Spans)
    assert [(span.start, span.end) for span in event.answer.spans] == [(0, 2), (3, 5)]
    beyond = result("labels", "answer1", start=0, end=99, labels=["wrong"])
    with pytest.raises(DataError, match="ends at 99"):
        events("label-studio", task(beyond))


# -- Potato


@st.composite
def instances(draw: st.DrawFn) -> dict[str, Any]:
    forms = {
        "preference": st.sampled_from(["A", "B", "tie", "both bad"]).map(lambda label: {"selection": label}),
        "strength": st.integers(-3, 3).map(lambda number: {"scale_value": str(number)}),
        "clicked": st.sampled_from([{"A": "true"}, {"B": "B"}, {"A": "true", "B": "true"}]),
        "why": TEXT.map(lambda text: {"text_box": text}),
    }
    schemes = draw(st.lists(st.sampled_from(sorted(forms)), unique=True, min_size=1))
    shown = {"prompt": draw(TEXT), "response_a": draw(TEXT), "response_b": draw(TEXT), "topic": draw(NAME)}
    answers = {name: draw(forms[name]) for name in schemes}
    return {"id": draw(NAME), **draw(some(user=USERS)), **shown, "label_annotations": answers}


@given(st.lists(instances(), min_size=1, max_size=3, unique_by=lambda row: row["id"]))
def test_potatos_instances_are_the_same_after_reading_and_writing(rows: list[dict[str, Any]]) -> None:
    assert again("potato", *rows) == rows


def potato(**given: Any) -> dict[str, Any]:
    return {
        "id": "i",
        "user": "ann",
        "prompt": "q",
        "response_a": "x",
        "response_b": "y",
        "label_annotations": {"it": given},
    }


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"selection": "B"}, Comparison(better=1)),
        ({"selection": "tie"}, Comparison(better="tie")),
        ({"scale_value": "-2"}, Comparison(better=0, strength=2)),
        ({"scale_value": "\N{MINUS SIGN}3"}, Comparison(better=0, strength=3)),
        ({"scale_value": "0"}, Comparison(better="tie")),
        ({"A": "true"}, Comparison(better=0)),
        ({"A": "true", "B": "true"}, Skip(reason="several labels are stored: A, B")),
    ],
)
def test_potatos_numbers_are_text_and_its_labels_change_with_its_version(given: dict[str, Any], answer: Any) -> None:
    assert [event.answer for event in events("potato", potato(**given))] == [answer]


@pytest.mark.parametrize(
    ("value", "says"), [("much", "'much', not a whole number"), ("7", "comparisons are from -3 to 3")]
)
def test_a_scale_without_a_number_is_refused(value: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        events("potato", potato(scale_value=value))


# -- OpenAssistant


@st.composite
def trees(draw: st.DrawFn, number: int = 0) -> dict[str, Any]:
    """A tree as nested messages; every reply is labelled or ranked, or beside one that is."""
    counter = iter(range(99))

    def message(role: str, depth: int, parent: str | None, rank: int | None, ranked: bool) -> dict[str, Any]:
        name = f"m{number}-{next(counter)}"
        kept = {
            "message_id": name,
            "text": draw(TEXT),
            "role": role,
            "lang": "en",
            "review_result": draw(st.booleans()),
        }
        if parent:
            kept["parent_id"] = parent
        if ranked:
            kept["rank"] = rank
        labels = draw(
            st.dictionaries(st.sampled_from(["quality", "toxicity"]), st.floats(0, 1), min_size=0 if ranked else 1)
        )
        if parent and labels:
            kept["labels"] = {
                axis: {"value": value, "count": draw(st.integers(1, 5))} for axis, value in labels.items()
            }
        count = draw(st.integers(0, 2)) if depth else 0
        count = count or (not parent)
        ranks = draw(st.permutations(range(count)))
        some_ranked = count > 1
        below = "assistant" if role == "prompter" else "prompter"
        kept["replies"] = [message(below, depth - 1, name, rank, some_ranked) for rank in ranks]
        return kept

    return {
        "message_tree_id": f"t{number}",
        "tree_state": "ready_for_export",
        "prompt": message("prompter", 2, None, None, False),
    }


def flat(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of a tree, each after the one that it replies to, with labels as lists."""
    found, waiting = [], [tree["prompt"]]
    while waiting:
        one = dict(waiting.pop())
        waiting += reversed(one.pop("replies"))
        if "labels" in one:
            each = one["labels"]
            one["labels"] = {
                "name": [*each],
                **{part: [each[axis][part] for axis in each] for part in ("value", "count")},
            }
        found.append({**one, "message_tree_id": tree["message_tree_id"]})
    return found


@given(st.tuples(trees(0), trees(1)))
def test_openassistants_trees_are_the_same_after_reading_and_writing(found: tuple[dict[str, Any], ...]) -> None:
    assert again("openassistant-trees", *found) == list(found)
    rows = [row for tree in found for row in flat(tree)]
    assert again("openassistant", *rows) == rows


def test_rank_zero_is_the_best_among_siblings_and_a_reply_without_a_rank_has_no_place() -> None:
    asked = {
        "message_id": "p",
        "message_tree_id": "p",
        "parent_id": None,
        "text": "q",
        "role": "prompter",
        "rank": None,
    }
    replies = [
        {
            "message_id": f"r{i}",
            "message_tree_id": "p",
            "parent_id": "p",
            "text": f"r{i}",
            "role": "assistant",
            "rank": rank,
        }
        for i, rank in enumerate((1, None, 0))
    ]
    [event] = events("openassistant", asked, *replies)
    assert event.answer == Ranking(order=((2,), (0,)))
    assert event.prompt == ({"role": "user", "content": "q"},)
    replies[2]["labels"] = {"name": ["quality", "spam"], "value": [0.75, 0.0], "count": [4, 3]}
    _, rating = events("openassistant", asked, *replies)
    assert rating.answer == Rating(of=2, marks={"quality": 0.75, "spam": 0.0}, low=0, high=1, step=0)
    with pytest.raises(DataError, match="is of 'bot', not prompter or assistant"):
        events("openassistant", {**asked, "role": "bot"})


def test_both_tools_know_their_own_rows_alone() -> None:
    assert form("argilla").fits(argilla())
    assert not form("argilla").fits(task())
    assert form("label-studio").fits(task())
    assert not form("label-studio").fits(argilla())
