"""docs/your-model-and-data.md does what it says: its files are written, its commands and code run, and its table names the ten examples."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

import full
import pytest

from hookline.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs/your-model-and-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_from_top_to_bottom(
    shelf_of_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-model").symlink_to(shelf_of_folders / "qwen2")
    done: dict[str, Any] = {}
    for language, name, text in BLOCKS:
        if name:
            Path(name).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(text, done)
        for command in text.splitlines() if language == "sh" else ():
            monkeypatch.setattr("sys.stdin", io.StringIO("What is 3 + 4?\n\n"))
            short = ["phases.grpo.rollout.max_new_tokens=16"] if " run " in command else []
            code = main([*shlex.split(command)[1:], *short])
            said = capsys.readouterr()
            assert code == 0, f"$ {command}\n{said.out}{said.err}"
            if " explain " in command:
                assert all(word in said.out for word in ("first row", "rewards.py:1 correct", "lr ", "as written"))
    assert Path("runs/mine/report.html").is_file()
    assert done["model"].config.vocab_size >= len(done["tokenizer"])


def test_the_table_is_that_of_the_examples() -> None:
    assert re.findall(r"^\| \[([a-z-]+)\]\(\.\./examples/real/\1\.yaml\)", PAGE, re.MULTILINE) == list(full.EXAMPLES)


def test_what_the_page_links_to_is_there() -> None:
    links = re.findall(r"\]\(([\w./-]+)", PAGE)
    assert [link for link in links if not (Path(full.EXPERIMENTS).parents[1] / "docs" / link).resolve().exists()] == []
