"""docs/feedback.md does what it shows."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

import hookline
from hookline.cli import main
from hookline.config.data import DataSpec
from hookline.contract.feedback import ANSWERS
from hookline.files.formats import event_formats
from mixed_judgements import mixed

PAGE = (Path(__file__).resolve().parents[2] / "docs/feedback.md").read_text(encoding="utf-8")


def section(begin: str, end: str = "") -> str:
    """The part of the page from one heading up to another, or to its end."""
    return PAGE[PAGE.index(begin) : PAGE.index(end) if end else None]


def blocks(part: str, language: str) -> list[str]:
    """The code of a part of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def judged(folder: Path, monkeypatch: pytest.MonkeyPatch, items: int) -> None:
    """Go into a folder with mixed judgements in answers.jsonl."""
    monkeypatch.chdir(folder)
    Path("answers.jsonl").write_text("\n".join(json.dumps(event.written()) for event in mixed(items=items)))


def test_the_page_on_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    part = section("## Stores", "## From one file")
    for block in blocks(part, "python"):
        exec(block, {})
    said = capsys.readouterr().out
    assert "Counts(items=1, complete=0, events=1, annotators=1)" in said
    assert "annotator-7 kind='comparison' better=0" in said
    pip, commands = blocks(part, "sh")
    assert pip == "pip install 'hookline[feedback]'\n"
    for line in commands.splitlines():
        assert main(line.partition("#")[0].split()[1:]) == 0
    assert "1 items, 0 complete; 1 events of 1 annotators" in capsys.readouterr().out
    [experiment] = blocks(part, "yaml")
    assert DataSpec.model_validate(yaml.safe_load(experiment)["data"]["judged"]).path[0].path == "sqlite:///answers.db"


def test_the_page_names_every_answer() -> None:
    part = section("## Record", "## Stores")
    assert {name.lower() for name in re.findall(r"^\| `(\w+)\(", part, re.MULTILINE)} == ANSWERS.keys()


@pytest.mark.slow(15)
def test_one_file_becomes_a_reward_model_and_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path, monkeypatch, items=150)
    part = section("## From one file", "## Annotators")
    [experiment] = blocks(part, "yaml")
    Path("reward-model.yaml").write_text(experiment, encoding="utf-8")
    shown = []
    for line in "".join(blocks(part, "sh")).splitlines():
        assert main(line.split()[1:]) == 0
        said = capsys.readouterr()
        shown.append(said.out + said.err)
    for words in ("click: random", "left: always first", "the best reward model is right in about", "ask next"):
        assert words in shown[0]
    assert "held out: " in shown[1]
    assert "training data" not in shown[1], "held-out prompts are not read by the training"
    assert "on which the phase is trained" not in shown[1]
    for words in ("ceiling about", "AUC", "ask next"):
        assert words in shown[2]
    assert main(["feedback", "answers.jsonl", "--split", "heldout"]) == 2
    assert "name the run with --model" in capsys.readouterr().err


def test_the_page_on_annotators_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    judged(tmp_path, monkeypatch, items=40)
    part = section("## Annotators", "## Formats")
    [commands] = blocks(part, "sh")
    assert main(commands.splitlines()[0].split()[1:]) == 0
    shown = capsys.readouterr().out
    for column in (
        "agreement",
        "gold",
        "repeats",
        "first",
        "position",
        "reliability",
        "Dawid–Skene",
        "CrowdBT",
        "verdict",
    ):
        assert column in shown
        assert f"| {column} |" in part
    for block in blocks(part, "python"):
        exec(block, {})
    said = capsys.readouterr().out
    assert "AlwaysValid" not in said
    assert "decided_at" not in said
    assert "Asked(pair=" in said


def test_the_section_on_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = {"from_name": "pair", "to_name": "answer1", "type": "pairwise", "value": {"selected": "left"}}
    annotation = {"id": 1, "completed_by": 3, "was_cancelled": False, "result": [result]}
    shown = {"prompt": "Which?", "answer1": "this", "answer2": "that"}
    Path("labels.json").write_text(
        json.dumps([{"id": 1, "data": shown, "annotations": [annotation], "predictions": []}])
    )
    part = section("## Formats")
    [commands] = blocks(part, "sh")
    for line in commands.splitlines():
        assert main(shlex.split(line, comments=True)[1:]) == 0
    assert "read as 'label-studio'" in capsys.readouterr().out
    assert json.loads(Path("pairs.jsonl").read_text())["chosen"] == "this"
    table = "".join(re.findall(r"^\| (.*?) \|", part, re.MULTILINE))
    for form in event_formats():
        assert f"`{form.instance}`" in table


def test_the_phase_of_the_page_learns_from_mixed_judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judged(tmp_path, monkeypatch, items=40)
    part = section("## Training on judgements")
    [block] = blocks(part, "yaml")
    [phase] = yaml.safe_load(block)
    phase["update"]["lr"] = 1e-3
    tokenizer = {"train": "bpe", "on": "answers.jsonl", "vocabulary": 300}
    run = hookline.run({
        "name": "page", "seed": 1, "device": "cpu", "trackers": [], "tokenizer": tokenizer,
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64}, "phases": [{**phase, "steps": 12}],
    }, out=tmp_path / "run")  # fmt: skip
    found = [row["metrics"] for row in run.rows()]
    assert {"comparison_loss", "ranking_loss", "rating_loss", "thumb_loss"} <= found[-1].keys()
    assert sum(row["loss"] for row in found[-3:]) < sum(row["loss"] for row in found[:3])
