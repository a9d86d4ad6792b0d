"""Files of judgements, whatever tool wrote them: recognised or named, converted, large, compressed, and read by runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hookline
from hookline import Candidate, Comparison, DataError, Event, Ranking, Skip, Spans, Thumb
from hookline.cli import main
from hookline.contract import event_format
from hookline.data.judged import as_event, as_row
from hookline.files import formats
from hookline.files.writing import written
from hookline.testing import open_phase
from judged_rows import NAME, TEXT, turns


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def put(name: str, *rows: Any) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def task(number: int, side: str, prompt: str = "Which?") -> dict[str, Any]:
    result = [{"from_name": "pair", "to_name": "answer1", "type": "pairwise", "value": {"selected": side}}]
    one = {"id": number, "completed_by": 3, "was_cancelled": False, "result": result}
    data = {"prompt": prompt, "answer1": "this", "answer2": "that"}
    return {"id": number, "data": data, "annotations": [one], "predictions": []}


NECTAR = {
    "prompt": "\n\nHuman: q\n\nAssistant: ",
    "answers": [{"answer": name, "model": "m", "rank": rank} for name, rank in (("a", 2), ("b", 1), ("c", 3))],
}


# -- which format a file has


def test_an_export_is_recognised_by_its_columns() -> None:
    name = put("labels.jsonl", task(1, "left"), task(2, "right"))
    assert hookline.inspect_data(name).shape == "label-studio"
    assert [event.answer for event in hookline.read_events(name)] == [Comparison(better=0), Comparison(better=1)]
    assert [row["annotator"] for row in hookline.rows(name).records] == ["3", "3"]


def test_rows_that_hookline_reads_as_pairs_stay_pairs_unless_events_are_asked_for() -> None:
    name = put("nectar.jsonl", NECTAR)
    assert hookline.rows(name).records[0]["chosen"] == "b"
    for asked in (f"nectar:{name}", f"{name}?shape=events"):
        assert hookline.rows(asked).records[0]["answer"]["order"] == [[1], [0], [2]]
    assert hookline.read_events(name)[0].answer == Ranking(order=((1,), (0,), (2,)))


def test_columns_of_two_formats_are_refused_with_both_names() -> None:
    both = {**task(1, "left"), "fields": {"prompt": "p", "response": "r"}, "responses": {}}
    with pytest.raises(DataError, match=r"its columns are those of 'argilla'.*or 'label-studio'") as caught:
        hookline.read_events(put("both.jsonl", both))
    assert "argilla:both.jsonl" in caught.value.hint
    assert len(hookline.read_events("label-studio:both.jsonl")) == 1


def test_a_row_unlike_the_first_ones_is_named() -> None:
    name = put("labels.jsonl", *[task(i, "left") for i in range(70)], {"id": 1, "data": {}})
    with pytest.raises(
        DataError, match=r"labels\.jsonl row 71: 'annotations' is missing, unlike in rows of the format"
    ):
        hookline.read_events(name)


def test_a_result_that_is_none_of_the_tools_is_named_with_its_row() -> None:
    with pytest.raises(
        DataError, match=r"labels.jsonl row 2 does not have the format 'label-studio': 'up' is selected"
    ):
        hookline.read_events(put("labels.jsonl", task(1, "left"), task(2, "up")))


def test_a_large_file_is_read_row_by_row_and_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    rows = [{"prompt": f"p{i // 2}", "response": f"r{i}", **dict.fromkeys(axes, i % 5)} for i in range(20)]
    name = put("ratings.jsonl", *rows)
    small = hookline.read_events(f"helpsteer2:{name}")
    monkeypatch.setattr(formats, "SMALL", 10)
    reader, file = formats.format_and_file(f"helpsteer2:{put('again.jsonl', *rows)}")
    assert reader is not None
    found = formats.opened(reader, Path(file))
    assert isinstance(found, event_format._Events)
    assert [found[i] for i in range(len(found))] == list(found) == [event.written() for event in small]
    assert found[3:5] == [small[3].written(), small[4].written()]


def test_rows_that_nobody_judged_are_counted() -> None:
    empty = {**task(2, "left"), "annotations": []}
    found = hookline.rows(put("labels.jsonl", task(1, "left"), empty, empty))
    assert len(found) == 1
    assert found.notes == ("labels.jsonl: 2 rows hold no judgement and were left out",)
    with pytest.raises(DataError, match=r"0 usable rows: none of its 2 rows holds a judgement"):
        hookline.read_events(put("empty.jsonl", empty, empty))


def test_parquet_has_no_key_for_a_rank_that_is_null() -> None:
    row = {**NECTAR, "answers": [{"answer": "a", "model": "m", "rank": 1}, {"answer": "b", "model": "n", "rank": None}]}
    written(Path("nectar.parquet"), [row])
    [event] = hookline.read_events("nectar.parquet")
    assert event.answer == Ranking(order=((0,),))
    assert [one.text for one in event.candidates] == ["a", "b"]


# -- conversion


PAIRS: dict[str, dict[str, Any]] = {
    "trl": {"prompt": turns("q"), "chosen": turns("", "a")[1:], "rejected": turns("", "b")[1:]},
    "openai-pairs": {"input": {"messages": turns("q"), "tools": [], "parallel_tool_calls": True},
                     "preferred_output": turns("", "a")[1:], "non_preferred_output": turns("", "b")[1:]},
    "alpaca-pairs": {"instruction": "q", "input": "", "chosen": "a", "rejected": "b", "system": "s", "history": [["x", "y"]]},
    "sharegpt-pairs": {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"},
                       "rejected": {"from": "gpt", "value": "b"}},
    "sharegpt-kto": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": False},
}  # fmt: skip


@pytest.mark.parametrize("shape", PAIRS)
def test_pairs_of_trl_openai_and_llama_factory_are_the_same_after_they_were_events(shape: str) -> None:
    assert hookline.convert_data(put("rows.jsonl", PAIRS[shape]), "events.jsonl", to="events") == 1
    [event] = hookline.read_events("events.jsonl")
    assert event.answer == (Thumb(up=False) if shape == "sharegpt-kto" else Comparison(better=0))
    hookline.convert_data("events.jsonl", "back.jsonl", to=shape)
    assert json.loads(Path("back.jsonl").read_text()) == PAIRS[shape]


def test_the_command_converts_an_export_into_another_tools_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    put(
        "labels.jsonl",
        task(1, "left"),
        task(2, "none"),
        {**task(3, "left"), "annotations": task(3, "right")["annotations"] * 2},
    )
    assert main(["data", "convert", "labels.jsonl", "records.json.gz", "--to", "argilla"]) == 0
    assert main(["data", "convert", "records.json.gz", "events.jsonl", "--to", "events"]) == 0
    assert main(["data", "convert", "events.jsonl", "label-studio:back.json"]) == 0
    assert "4 rows → records.json.gz" in capsys.readouterr().out
    for name in ("records.json.gz", "events.jsonl", "back.json"):
        found = hookline.read_events(name)
        assert [getattr(event.answer, "better", None) for event in found] == [0, "tie", 1, 1]
        assert [event.item for event in found] == ["1", "2", "3", "3"]
        assert [event.candidates[1].text for event in found] == ["that"] * 4


def test_events_are_written_as_pairs_and_a_tie_is_not() -> None:
    hookline.convert_data(put("labels.jsonl", task(1, "right")), "pairs.jsonl", to="trl")
    assert json.loads(Path("pairs.jsonl").read_text())["chosen"] == "that"
    with pytest.raises(DataError, match=r"row 2: 'tie' of 2 answers does not prefer one of two"):
        hookline.convert_data(put("tied.jsonl", task(1, "left"), task(2, "none")), "tied-pairs.jsonl", to="trl")
    assert not Path("tied-pairs.jsonl").exists()


def test_what_a_format_cannot_hold_is_refused_and_nothing_is_written() -> None:
    put("labels.jsonl", task(1, "left"))
    with pytest.raises(
        DataError, match="event 1 cannot be written as 'helpsteer2': the format holds answers of the kind rating"
    ):
        hookline.convert_data("labels.jsonl", "ratings.jsonl", to="helpsteer2")
    assert not Path("ratings.jsonl").exists()
    with pytest.raises(DataError, match=r"prompts\.jsonl row 1 judges nothing"):
        hookline.convert_data(put("prompts.jsonl", {"prompt": "p"}), "x.jsonl", to="events")
    with pytest.raises(DataError, match="cannot be written in the shape 'argila'"):
        hookline.convert_data("labels.jsonl", "x.jsonl", to="argila")


def test_what_one_format_kept_is_not_taken_for_anothers() -> None:
    row = {"model_a": "A", "model_b": "B", "winner": "model_a", "judge": "j", "anony": True, "fields": {"x": 1}, "names": 3,
           "conversation_a": turns("q", "a"), "conversation_b": turns("q", "b")}  # fmt: skip
    hookline.convert_data(put("arena.jsonl", row), "records.jsonl", to="argilla")
    [record] = map(json.loads, Path("records.jsonl").read_text().splitlines())
    assert record["fields"] == {"prompt": turns("q"), "response-1": "a", "response-2": "b"}
    assert record["metadata"] == {"anony": True, "fields": {"x": 1}, "names": 3}


# -- rows with Hookline's fields


PROMPT = st.one_of(TEXT, st.lists(TEXT, min_size=1, max_size=1).map(lambda said: turns(*said)))


@st.composite
def trl(draw: st.DrawFn) -> dict[str, Any]:
    prompt = draw(PROMPT)

    def answer() -> Any:
        text = draw(TEXT)
        return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]

    kind = draw(st.sampled_from(["explicit", "implicit", "unpaired", "steps"]))
    more = draw(st.sampled_from([{}, {"source": "mine"}, {"margin": 0.5}]))
    if kind == "explicit":
        return {"prompt": prompt, "chosen": answer(), "rejected": answer(), **more}
    if kind == "unpaired":
        return {"prompt": prompt, "completion": answer(), "label": draw(st.booleans()), **more}
    if kind == "steps":
        steps = draw(st.lists(TEXT.filter(bool), min_size=1, max_size=4))
        return {"prompt": draw(TEXT), "completions": steps, "labels": [draw(st.booleans()) for _ in steps], **more}
    before = turns(draw(TEXT), draw(TEXT), draw(TEXT)) if draw(st.booleans()) else turns(draw(TEXT))
    return {name: [*before, {"role": "assistant", "content": draw(TEXT)}] for name in ("chosen", "rejected")} | more


@given(trl())
def test_trls_rows_are_the_same_after_they_were_events(row: dict[str, Any]) -> None:
    event = as_event(row, "here")
    assert event is not None
    back = as_row(Event.read(event.written(), "here"), "here")
    if "prompt" not in row:  # an implicit prompt becomes a field
        assert [*back["prompt"], *back["chosen"]] == row["chosen"]
        assert [*back["prompt"], *back["rejected"]] == row["rejected"]
        assert as_event(back, "here") == event
    else:
        assert back == row


def test_an_implicit_prompt_is_whole_messages_and_not_shared_first_words() -> None:
    chosen, rejected = (turns("Hi", f"The sea is {said}") for said in ("blue", "bluer"))
    event = as_event({"chosen": chosen, "rejected": rejected}, "here")
    assert event is not None
    assert [one.text for one in event.candidates] == ["The sea is blue", "The sea is bluer"]
    same = as_event({"chosen": chosen, "rejected": chosen}, "here")
    assert same is not None
    assert same.candidates[0].text == "The sea is blue"


def test_labels_are_thumbs_and_steps_are_spans() -> None:
    liked = as_event({"prompt": "p", "completion": "c", "label": False}, "here")
    steps = as_event({"prompt": "p", "completions": ["one", "two"], "labels": [True, False]}, "here")
    assert liked is not None
    assert steps is not None
    assert liked.answer == Thumb(up=False)
    assert isinstance(steps.answer, Spans)
    assert [(one.start, one.end, one.label) for one in steps.answer.spans] == [(0, 3, "right"), (4, 7, "wrong")]
    with pytest.raises(DataError, match="row 9: 'completions' and 'labels' are not lists of equal length"):
        as_event({"prompt": "p", "completions": ["one"], "labels": []}, "row 9")


# -- PrefLib


@st.composite
def orders(draw: st.DrawFn) -> list[Event]:
    names = draw(st.lists(NAME, min_size=2, max_size=5, unique=True))
    found = []
    for voter in range(draw(st.integers(1, 6))):
        ranked = draw(st.permutations(range(len(names))))[: draw(st.integers(1, len(names)))]
        cuts = [0, *sorted(draw(st.sets(st.integers(1, len(ranked)), max_size=3))), len(ranked)]
        order = tuple(tuple(sorted(ranked[a:b])) for a, b in pairwise(cuts) if a < b)
        candidates = tuple(Candidate(text=name) for name in names)
        found.append(Event(prompt="t", candidates=candidates, answer=Ranking(order=order), annotator=f"voter-{voter}"))
    return found


@given(orders())
def test_preflibs_orders_are_the_same_after_writing_and_reading(tmp_path_factory: Any, given: list[Event]) -> None:
    path = tmp_path_factory.mktemp("orders") / "o.toi"
    form, _ = formats.format_and_file(f"preflib:{path}")
    assert form is not None
    form.write(path, [event.written() for event in given])
    back = [Event.read(row, "here") for row in form.read(path)]
    assert sorted(str(one.answer) for one in back) == sorted(str(one.answer) for one in given)
    text = path.read_text()
    form.write(path, list(form.read(path)))
    assert path.read_text() == text


SUSHI = "# TITLE: sushi\n# NUMBER ALTERNATIVES: 3\n# NUMBER VOTERS: 3\n" + "".join(
    f"# ALTERNATIVE NAME {number}: {name}\n" for number, name in ((2, "tuna"), (1, "shrimp"), (10, "egg"))
)


def test_an_order_with_a_count_is_as_many_rankings_and_braces_are_ties() -> None:
    Path("s.toc").write_text(SUSHI + "2: 10,{1,2}\n1: 2,1,10\n")
    found = hookline.read_events("s.toc")
    assert [one.text for one in found[0].candidates] == ["shrimp", "tuna", "egg"]
    assert [one.answer for one in found] == [Ranking(order=((2,), (0, 1)))] * 2 + [Ranking(order=((1,), (0,), (2,)))]
    assert len({one.annotator for one in found}) == 3
    assert len({one.item for one in found}) == 1


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("3: 1,2,4\n", "line 7: there is no alternative 4"),
        ("3: 1;2\n", "line 7 is not an order: '3: 1;2'"),
        ("1: 1,2\n", "its orders are of 1 voters, and its head says 3"),
        ("3: 1,1\n", "line 7: .*each candidate has one place"),
    ],
)
def test_damaged_orders_are_refused_by_line(lines: str, says: str) -> None:
    Path("s.soi").write_text(SUSHI + lines)
    with pytest.raises(DataError, match=says):
        hookline.read_events("s.soi")


def test_ties_and_missing_places_need_the_ending_that_allows_them() -> None:
    pair = (Candidate(text="a"), Candidate(text="b"))
    for order, name, better in ((((0, 1),), "o.soc", "o.toc"), (((0,),), "o.toc", "o.toi")):
        event = Event(prompt="t", candidates=pair, answer=Ranking(order=order), annotator="v")
        put("events.jsonl", event.written())
        with pytest.raises(DataError, match="cannot be written") as caught:
            hookline.convert_data("events.jsonl", name)
        assert better in caught.value.hint
    skipped = Event(prompt="t", candidates=pair, answer=Skip(), annotator="v")
    with pytest.raises(DataError, match="it is a skip, and the format holds rankings"):
        hookline.convert_data(put("skips.jsonl", skipped.written()), "o.toi")


# -- a run


def test_preferences_read_an_export_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = put("labels.jsonl", task(1, "left", "a"), task(2, "right", "b"), task(3, "none", "c"))
    experiment = {
        "name": "lab",
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "heads": 1, "context": 64},
        "phases": [
            {"name": "p", "model": {"head": "reward"}, "rollout": {"use": "preferences", "path": name, "rows": 2},
             "update": "bradley-terry", "steps": 1}
        ],
        "trackers": [],
    }  # fmt: skip
    with open_phase(experiment, tmp_path / "run") as loop:
        rollout = loop.hooks.rollout(loop.ctx)
    said = {
        rollout.prompt_text(i): rollout.response_text(i) for i, won in enumerate(rollout.extra["recorded_B"]) if won
    }
    assert said == {"a": "this", "b": "that"}
    assert "1 of 3 judgements put no answer before another" in capsys.readouterr().err
