"""`hookline init`: what it writes runs as it is, and where a method and rows do not fit, it says what is missing and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hookline.cli import main
from hookline_plugins.commands.init import METHODS

TURNS = [{"role": "user", "content": "open the file"}, {"role": "assistant", "content": "To open."}]
ROWS: dict[str, dict[str, Any]] = {
    "answers": {"question": "open the file", "answer": "To open."},
    "preferences": {"prompt": "open the list", "chosen": "To open.", "rejected": "No."},
    "labels": {"prompt": "open", "completion": "To open.", "label": True},
    "prompts": {"prompt": [TURNS[0]], "answer": "To open."},
    "text": {"text": "To open the file, close the list. " * 20},
}


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = main(list(arguments))
    out, err = capsys.readouterr()
    assert found == code, err
    assert "Traceback" not in err
    return out + err


@pytest.fixture
def here(shelf_of_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(shelf_of_folders)
    for use, row in ROWS.items():
        rows = [{**row, **({"label": i % 2 == 0} if use == "labels" else {}), "id": i} for i in range(120)]
        for i, one in enumerate(rows[:100]):  # the others repeat a prompt
            one.update({key: f"{one[key]} {i}" for key in ("question", "prompt") if isinstance(one.get(key), str)})
        (tmp_path / f"{use}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return tmp_path


def asked(method: str, *more: str, model: str = "models/qwen2") -> list[str]:
    rows = f"{METHODS[method].reads}.jsonl"
    reward = ["--reward", "length"] if METHODS[method].reads == "prompts" else []
    return ["init", f"{method}.yaml", "--method", method, "--model", model, "--data", rows, *reward, *more]


@pytest.mark.parametrize("method", METHODS)
def test_what_init_writes_can_be_planned_and_names_its_phase(
    method: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{method} on 120 rows" in said(capsys, *asked(method))
    made = yaml.safe_load(Path(f"{method}.yaml").read_text())
    assert [phase["name"] for phase in made["phases"]] == [method]
    assert made["data"]["rows"].get("chat", False) is (METHODS[method].reads in ("answers", "preferences", "labels"))
    said(capsys, "explain", f"{method}.yaml")


@pytest.mark.parametrize("method", ["sft", "reward-model", "kto", "ppo"])
def test_what_init_writes_runs_as_it_is(method: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, *asked(method, "--lora", "--epochs", "0.1", model="models/llama3"))
    short = [f"phases.{method}.rollout.max_new_tokens=8"] if method == "ppo" else []
    text = said(capsys, "run", f"{method}.yaml", "--out", "runs/one", *short)
    assert "finished" in text
    with pytest.raises(StopIteration):
        next(line for line in text.splitlines() if "Warning" in line)


def test_paths_are_seen_from_the_experiment(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "deep").mkdir()
    said(capsys, "init", "deep/mine.yaml", "--method", "sft", "--model", "models/gpt2", "--data", "answers.jsonl")
    made = yaml.safe_load(Path("deep/mine.yaml").read_text())
    assert made["model"]["path"] == "../models/gpt2"
    assert made["data"]["rows"]["path"] == "../answers.jsonl"
    said(capsys, "explain", "deep/mine.yaml")
    (here / "rewards.py").write_text("def correct(completion, answer):\n    return float(answer in completion)\n")
    where = ["--model", "models/gpt2", "--data", "answers.jsonl", "--reward", "rewards.py:correct"]
    said(capsys, "init", "deep/grpo.yaml", "--method", "grpo", *where)
    assert yaml.safe_load(Path("deep/grpo.yaml").read_text())["phases"][0]["reward"] == ["../rewards.py:correct"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--method", "dpo", "--data", "answers.jsonl"], 3, "it needs `chosen` and `rejected`; the rows have question, answer"),
        (["--method", "kto", "--data", "answers.jsonl"], 3, "it needs `prompt`, `completion` and `label`"),
        (["--method", "sft", "--data", "text.jsonl"], 3, "choose another method: causal-lm fit"),
        (["--method", "grpo", "--data", "prompts.jsonl"], 2, "draws answers, which a reward must judge"),
        (["--method", "sft", "--data", "answers.jsonl", "--reward", "length"], 2, "asks no reward"),
        (["--method", "grpo", "--data", "prompts.jsonl", "--reward", "lenght"], 5, "did you mean 'length'"),
        (["--method", "sft", "--data", "gone.jsonl"], 3, "no data file gone.jsonl"),
        (["--method", "sft", "--data", "answers.jsonl", "--model", "gone"], 2, "there is no model folder gone"),
        (["--method", "stf", "--data", "answers.jsonl"], 2, "sft"),
    ],
)
def test_nothing_is_written_where_it_would_not_run(
    arguments: list[str], code: int, words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = [] if "--model" in arguments else ["--model", "models/qwen2"]
    assert words in said(capsys, "init", "mine.yaml", *model, *arguments, code=code)
    assert not Path("mine.yaml").exists()


def test_a_file_that_is_there_is_kept(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sft.yaml").write_text("mine")
    assert "already exists" in said(capsys, *asked("sft"), code=3)
    assert Path("sft.yaml").read_text() == "mine"
    said(capsys, *asked("sft", "--overwrite", "--reward", "length"), code=2)
    said(capsys, *asked("grpo"))
    before = Path("grpo.yaml").read_bytes()
    said(capsys, "init", "grpo.yaml", "--overwrite", *asked("grpo")[2:-1], "lenght", code=5)
    assert Path("grpo.yaml").read_bytes() == before
    assert Path("sft.yaml").read_text() == "mine"
    said(capsys, *asked("sft", "--overwrite"))
