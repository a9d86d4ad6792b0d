"""docs/use-the-result.md: its commands and its programs are run on a small run."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path

import pytest
from test_folders import experiment, phases, rows

import hookline
from hookline.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs/use-the-result.md").read_text(encoding="utf-8")


def test_the_page_from_top_to_bottom(
    shelf_of_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    phase = {
        **phases(rows(tmp_path))["sft"],
        "evaluate": [{"prompts": str(tmp_path / "chat.jsonl"), "reward": ["perplexity"]}],
    }
    hookline.run(experiment(shelf_of_folders / "qwen2", "sft", phase), out=tmp_path / "runs/mine")
    for line in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines():
        monkeypatch.setattr(sys, "stdin", io.StringIO("open the file\n\n"))
        assert main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
    programs = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "docs/use-the-result.md", "exec"), {})
    assert "perplexity" in capsys.readouterr().out
