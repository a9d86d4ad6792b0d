"""The laboratory of these tests; see badinput_lab.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # as the command line does, before anything is imported
from badinput_lab import WORDS, Lab

from warm import Warm


@pytest.fixture
def lab(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, warm: Warm) -> Lab:
    monkeypatch.chdir(tmp_path)

    def capture() -> tuple[str, str]:
        found = capfd.readouterr()
        return found.out, found.err

    made = Lab(tmp_path, capture, warm)
    made.rows("texts.jsonl", [{"text": f"To {a} the {b}."} for a, b in zip(WORDS * 2, WORDS[3:] * 3)])
    made.rows("pairs.jsonl", [{"prompt": a, "completion": f"To {a} a {b}."} for a, b in zip(WORDS, WORDS[5:] + WORDS)])
    return made
