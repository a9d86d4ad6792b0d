"""docs/rewards.md does what it says: its files are written, its commands run, what it shows is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hookline.cli import main
from hookline_plugins.judging import Judge
from hookline_plugins.judging.questions import Questions
from hookline_plugins.rewards.judge import LLMJudge
from hookline_plugins.rewards.signatures import MARKS, ROW, STYLES
from judging_server import Service, part, says, serving

PAGE = (Path(__file__).parents[2] / "docs/rewards.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def judged(question: str) -> str:
    """Compares answers by their length, and rates them by their words."""
    if "<answer-A-" in question:
        return says(question, better="A" if len(part(question, "answer-A")) < len(part(question, "answer-B")) else "B")
    right = part(question, "reference") in part(question, "answer").split()
    return says(question, right=10 * right, brief=10 - len(part(question, "answer").split()))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serving(judged) as service:
        yield service


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")
def test_the_page_from_top_to_bottom(
    tmp_path: Path, judge: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", judge.url)
    blocks = [(found[1], found[2] or "", found[3]) for found in FENCE.finditer(PAGE)]
    names = [name for _, name, _ in blocks if name]
    assert len(names) == len(set(names)), "two blocks have one name"
    for _, name, text in blocks:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    output = ""
    for language, name, text in blocks:
        if language == "sh":
            output = ""
            for command in text.splitlines():
                code = main(shlex.split(command)[1:])
                said = capsys.readouterr()
                assert code == 0, f"$ {command}\n{said.out}{said.err}"
                output += said.out
        elif language == "text" and not name:
            for line in text.splitlines():
                pattern = r"\s*.*\s*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
                printed = [" ".join(one.split()) for one in output.splitlines()]
                assert any(re.search(pattern, one) for one in printed), f"not printed: {line}\n\n{output}"
        else:
            assert name, f"a block of {language} without a name is not run"
    rows = [json.loads(line) for line in (tmp_path / "first/metrics.jsonl").read_text().splitlines()]
    assert {"reward/correct", "reward/brief", "eval/correct"} <= rows[-1]["metrics"].keys()
    assert (tmp_path / "first/functions/rewards.py").is_file()
    asked = [json.loads(line) for line in (tmp_path / "judged/judged.jsonl").read_text().splitlines()]
    assert len(asked) == judge.asked
    figures = [json.loads(line)["metrics"] for line in (tmp_path / "judged/metrics.jsonl").read_text().splitlines()]
    assert 0 <= figures[-1]["eval/win-rate"] <= 1
    assert {f"judge/judge/{name}" for name in ("requests", "tokens", "cached", "retried", "failures", "axis/right")} <= figures[-1].keys()


def test_the_question_of_the_page_can_be_asked() -> None:
    [text] = [found[3] for found in FENCE.finditer(PAGE) if found[2] == "judge.txt"]
    options = LLMJudge.Config(model="m", question=text, axes={"right": "x", "brief": "y"}, scale=(0, 10))
    question = Questions(options, options.axes, *options.scale, False).ask({"prompt": "p", "answer": "a", "reference": "r"})
    shown = str(question.body["messages"][0]["content"])
    assert part(shown, "answer") == "a"
    assert f'{{"code": "{question.code}", "right": N, "brief": N}}' in shown


def test_the_page_names_every_figure_and_option_of_the_judge() -> None:
    for figure in Judge(LLMJudge.Config(model="m"), axes={"AXIS": "", "b": ""}).metrics("NAME")[:-1]:
        assert f"`{figure.name}`" in PAGE, figure.name
    for option in LLMJudge.Config.model_fields:
        assert f"`{option}" in PAGE or f"{option}:" in PAGE, option


def test_the_page_names_every_parameter_and_style() -> None:
    for word in (*MARKS, *ROW, *STYLES):
        assert f"`{word}`" in PAGE or f" {word} " in PAGE, word
