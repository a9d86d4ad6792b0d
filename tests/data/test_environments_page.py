"""docs/environments.md does what it says: its files are written, and its commands run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from test_chat import GENERATES

from hookline.cli import main
from shapes import build

PAGE = (Path(__file__).parents[2] / "docs/environments.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEMPLATE = (
    "{% for t in tools or [] %}{{ t.function.name }} {% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endfor %}" + GENERATES
)


def test_the_page_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    build("qwen2", tmp_path / "my-model")
    (tmp_path / "my-model" / "chat_template.jinja").write_text(TEMPLATE)
    blocks = [(found[1], found[2] or "", found[3]) for found in FENCE.finditer(PAGE)]
    for _, name, text in blocks:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    for language, _, text in blocks:
        for command in text.splitlines() if language == "sh" else ():
            code = main(shlex.split(command)[1:])
            said = capsys.readouterr()
            assert code == 0, f"$ {command}\n{said.out}{said.err}"
    kept = [json.loads(line) for line in (tmp_path / "sums" / "completions.jsonl").read_text().splitlines()]
    pieces = [piece for row in kept for piece in row.get("stretches", ())]
    assert {piece["chosen"] for piece in pieces} == {True, False}
    assert all(("advantage" in piece) is piece["chosen"] for piece in pieces)
    report = (tmp_path / "sums" / "report.html").read_text(encoding="utf-8")
    assert "One whole episode: rl, step" in report
    assert report.count("<mark>") > 0
