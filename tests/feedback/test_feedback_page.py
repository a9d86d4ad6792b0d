"""docs/feedback.md does what it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hookline.cli import main
from mixed_judgements import mixed

PAGE = (Path(__file__).resolve().parents[2] / "docs/feedback.md").read_text(encoding="utf-8")


def test_the_page_on_annotators_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("answers.jsonl").write_text("\n".join(json.dumps(event.written()) for event in mixed(items=40)))
    section = PAGE[PAGE.index("## Annotators") :]
    [commands] = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
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
        assert f"| {column} |" in section
    for block in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
        exec(block, {})
    said = capsys.readouterr().out
    assert "AlwaysValid" not in said
    assert "decided_at" not in said
    assert "Asked(pair=" in said
