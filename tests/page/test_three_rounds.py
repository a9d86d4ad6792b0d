"""The loop in rounds with every part as a process: what `make rounds` does at length, with few answers and a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from browsing import NEEDS

import hookline

pytestmark = NEEDS
PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "rounds" / "rounds.py"


@pytest.mark.slow(60)
def test_three_rounds_survive_kills_and_are_repeated_from_the_journal(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), "--small", "--seeds", "1", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "1"
    about = json.loads((folder / "killed.json").read_text())
    assert about["kills"].keys() == {"trainer", "page"}
    assert (folder / "reproduced.txt").read_text().strip().splitlines()[-1].strip().startswith("equal")
    run = hookline.Run.read(folder / "run")
    kept = [record for number in (1, 2, 3) for record in run.collected(f"ask@{number}").records]
    assert len(kept) >= 3 * 16
    assert len({record["id"] for record in kept}) == len(kept), "no answer is kept twice"
    assert sum(record["annotator"] == "keyboard" for record in kept) >= 12
    with hookline.store(f"sqlite:///{folder / 'answers.db'}") as store:
        assert {record["id"] for record in kept} <= {event.id for event in store.events()}
