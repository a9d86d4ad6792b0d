"""A user's own files in an experiment: what `explain` refuses, paths, the section `data`, and rows that are too long."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from badinput_lab import Lab, Said, changed, refused

QUESTIONS = [{"question": f"open the file {i}", "answer": "To open the file, close the list.", "lang": "en"} for i in range(24)]


def explained(lab: Lab, experiment: dict[str, Any]) -> Said:
    return lab.hookline("explain", lab.write(experiment))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"question": "a"}], ("row 1: 'completion' is missing", "rows of the shape 'question-answer' also have 'answer'")),
        ([{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": 7}], ("row 2: 'completion' is int, not text",)),
        ([{"messages": [{"role": "user", "content": "a"}]}], ("the model's tokenizer has no chat template",)),
        ([{"text": "a"}], ("row 1: 'prompt' is missing", "the row has: text")),
        ([{"question": "a", "answer": "b", "problem": "c", "solution": "d"}], ("its 'prompt' may come from", "shape")),
    ],
)
def test_explain_refuses_what_run_would_refuse_about_columns(lab: Lab, rows: list[dict[str, Any]], words: tuple[str, ...]) -> None:
    lab.rows("pairs.jsonl", rows)
    made = lab.sft(1)
    for said in (explained(lab, made), lab.run(made)):
        refused(said, 3, "tiny.yaml line", *words)
    assert not lab.run_folder.exists()


def test_explain_reads_the_first_rows_alone_and_run_reads_all(lab: Lab) -> None:
    rows = [{"prompt": f"open {i}", "completion": "To open."} for i in range(200)]
    lab.rows("pairs.jsonl", [*rows, {"prompt": 3}])
    assert explained(lab, lab.sft(1)).code == 0
    refused(lab.run(lab.sft(1)), 3, "pairs.jsonl row 201: 'prompt' is int, not text")


@pytest.mark.parametrize(
    ("rollout", "row", "words"),
    [
        ({"use": "preferences", "path": "rows.jsonl"}, {"prompt": "a", "chosen": "b"}, "'rejected' is missing"),
        ({"use": "generate", "prompts": "rows.jsonl", "max_new_tokens": 4}, {"query": "a"}, "'prompt' is missing"),
        ({"use": "transcripts", "path": "rows.jsonl"}, {"prompt": "a"}, "is not an episode"),
        ({"use": "text", "path": "rows.jsonl", "length": 8}, {"content": "a"}, "can use none of the first 1 rows"),
        ({"use": "dataset", "path": "rows.jsonl", "label": "like"}, {"prompt": "a", "completion": "b", "like": "A"}, "not a label"),
    ],
)
def test_every_rollout_shows_its_columns_before_a_weight_is_loaded(
    lab: Lab, rollout: dict[str, Any], row: dict[str, Any], words: str
) -> None:
    lab.rows("rows.jsonl", [row])
    made = lab.rl(steps=1) if rollout["use"] == "generate" else lab.sft(1)
    refused(explained(lab, changed(made, "phases.0.rollout", rollout)), 3, words, "tiny.yaml line")


def test_a_section_data_gives_columns_a_share_held_out_and_chat_to_every_phase_that_names_it(lab: Lab) -> None:
    lab.rows("questions.jsonl", [*QUESTIONS, {"question": "a", "answer": "b", "lang": "de"}])
    made = lab.sft(2)
    made["data"] = {"mine": {"path": "questions.jsonl", "columns": {"prompt": "question", "completion": "answer"},
                             "heldout": 0.3, "filter": {"lang": "en"}}}  # fmt: skip
    made["phases"][0]["rollout"]["path"] = "mine"
    made["phases"][0]["evaluate"] = [{"every": 1, "prompts": "heldout", "reward": ["perplexity"], "rows": 4}]
    said = lab.run(made)
    assert said.code == 0, said.err
    assert "1 of 25 rows have another `lang` and were left out" in said.err
    data = json.loads((lab.run_folder / "run.json").read_text())["data"]
    assert data["mine"]["rows"] + data["mine/heldout"]["rows"] == 24
    again = lab.run(changed(made, "data.mine.heldout", 0.5))
    refused(again, 4, "holds a run of another experiment", "data.mine.heldout was 0.3, is 0.5")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"mine": {"path": "pairs.jsonl", "colums": {}}}, "data.mine has no option 'colums'; did you mean 'columns'?"),
        ({"mine": {"path": []}}, "data.mine.path"),
        ({"mine": {"path": [{"path": "pairs.jsonl", "weight": 1}, "pairs.jsonl"]}}, "gives a weight to some sources only"),
        ({"mine": {"path": "pairs.jsonl", "system": "x"}}, "has a `system` text without `chat: true`"),
        ({"mine": {"path": "pairs.jsonl", "filter": {"a": {"min": 3, "max": 1}}}}, "has a min of 3 above its max of 1"),
        ({"mine": {"path": "pairs.jsonl", "message": {"who": "speaker"}}}, "has no key 'who'; it has: role, content"),
        ({"mine": {"path": "pairs.jsonl", "heldout": 1}}, "data.mine.heldout"),
    ],
)
def test_a_wrong_section_data_is_named_with_its_line(lab: Lab, section: dict[str, Any], words: str) -> None:
    refused(explained(lab, {**lab.sft(1), "data": section}), 2, "line", words, problems=1)


def test_paths_are_relative_to_the_experiment_and_then_to_where_one_is(lab: Lab) -> None:
    own = lab.folder / "project"
    own.mkdir()
    for name in ("pairs.jsonl", "texts.jsonl"):
        (lab.folder / name).rename(own / name)
    made = lab.sft(1)
    lab.write(made, "project/tiny.yaml")
    said = lab.hookline("run", "project/tiny.yaml", "--out", "run")
    assert said.code == 0, said.err
    assert lab.hookline("eval", "run", "--json").code in (0, 2)
    (own / "pairs.jsonl").rename(lab.folder / "pairs.jsonl")
    assert lab.hookline("run", "project/tiny.yaml", "--out", "run2").code == 0  # it is found from where one is
    (lab.folder / "pairs.jsonl").unlink()
    refused(lab.hookline("run", "project/tiny.yaml", "--out", "run3"), 3, "no data file project/pairs.jsonl", "begin at project")
    lab.write(changed(made, "model", {"path": "my-model"}), "project/tiny.yaml")
    refused(lab.hookline("explain", "project/tiny.yaml"), 2, "there is no model folder project/my-model", problems=2)


def long(lab: Lab, use: str, name: str, rows: list[dict[str, Any]], overlong: str, **options: Any) -> Said:
    lab.rows("rows.jsonl", rows)
    rollout = {"use": use, name: "rows.jsonl", "overlong": overlong, **options}
    made = lab.rl(steps=1) if use == "generate" else lab.sft(1)
    made = changed(made, "phases.0.rollout", {**rollout, "rows": 2})
    if use == "preferences":
        made = changed(made, "phases.0.update", {"use": "simpo", "lr": 1e-3})
    return lab.run(made)


LONG = "open the file and close the list " * 12
KINDS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "dataset": ("path", [{"prompt": "open", "completion": LONG}, {"prompt": "a", "completion": "b"}], {}),
    "preferences": ("path", [{"prompt": "open", "chosen": LONG, "rejected": "no"},
                             {"prompt": "a", "chosen": "b", "rejected": "c"}], {}),
    "generate": ("prompts", [{"prompt": LONG}, {"prompt": "a"}], {"max_new_tokens": 4, "samples_per_prompt": 2}),
    "transcripts": ("path", [{"prompt": "a", "turns": [[LONG, "", 1.0]]}, {"prompt": "a", "turns": [["b", "", 0.0]]}], {}),
}  # fmt: skip


@pytest.mark.parametrize("use", KINDS)
def test_rows_that_are_too_long_are_cut_left_out_or_refused_by_one_option(lab: Lab, use: str) -> None:
    name, rows, more = KINDS[use]
    assert "there is room for" in long(lab, use, name, rows, "refuse", **more).err or use == "transcripts"
    said = long(lab, use, name, rows, "leave-out", **more)
    assert said.code == 0, said.err
    assert "1 of 2" in said.err or "1 judgements are longer" in said.err
    said = lab.hookline("run", lab.folder / "tiny.yaml", "--out", lab.folder / "cut", "phases.0.rollout.overlong=truncate")
    assert said.code == 0, said.err
    assert "left out" not in said.err
    refused(lab.hookline("explain", lab.folder / "tiny.yaml", "phases.0.rollout.overlong=cut"), 2, "overlong", "truncate", problems=1)


def test_nothing_is_cut_where_the_prompt_leaves_no_room(lab: Lab) -> None:
    rows = [{"prompt": LONG, "completion": "b"}, {"prompt": "a", "completion": "b"}]
    said = long(lab, "dataset", "path", rows, "truncate")
    assert said.code == 0, said.err
    assert "1 of 2 rows are longer than 64 tokens and were left out" in said.err


def test_a_run_goes_on_from_another_folder_with_the_same_experiment(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.write(lab.sft(1))
    assert lab.hookline("run", "tiny.yaml", "--out", "run").code == 0
    other = lab.folder / "elsewhere"
    other.mkdir()
    monkeypatch.chdir(other)
    said = lab.hookline("run", Path("..") / "tiny.yaml", "--out", "../run")
    assert said.code == 0, said.err
    assert "already complete" in said.out
