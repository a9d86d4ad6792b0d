"""docs/rewards.md does what it says: its files are written, its commands run, what it shows is printed."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

from hookline.cli import main
from hookline_plugins.rewards.signatures import MARKS, ROW, STYLES

PAGE = (Path(__file__).parents[2] / "docs/rewards.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")
def test_the_page_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [(found[1], found[2] or "", found[3]) for found in FENCE.finditer(PAGE)]
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
        elif language == "text":
            for line in text.splitlines():
                pattern = r"\s*.*\s*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
                printed = [" ".join(one.split()) for one in output.splitlines()]
                assert any(re.search(pattern, one) for one in printed), f"not printed: {line}\n\n{output}"
        else:
            assert name, f"a block of {language} without a name is not run"
    rows = [json.loads(line) for line in (tmp_path / "first/metrics.jsonl").read_text().splitlines()]
    assert {"reward/correct", "reward/brief", "eval/correct"} <= rows[-1]["metrics"].keys()
    assert (tmp_path / "first/functions/rewards.py").is_file()


def test_the_page_names_every_parameter_and_style() -> None:
    for word in (*MARKS, *ROW, *STYLES):
        assert f"`{word}`" in PAGE or f" {word} " in PAGE, word
