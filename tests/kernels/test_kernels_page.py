"""docs/kernels.md does what it shows, and its table is the stored measurement."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from hookline.cli import main
from hookline.kernels import __all__ as public
from hookline.testing.bench.cases import OURS, cases
from hookline_plugins.commands.bench import Bench

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/kernels.md").read_text(encoding="utf-8")
STORED = json.loads((ROOT / "benchmarks/baseline-cpu.json").read_text())


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_code_runs_and_shows_every_function():
    [code] = blocks("python")
    found: dict = {}
    exec(code, found)
    assert found["hidden_BTH"].grad.isfinite().all()
    functions = {name for name in public if name.islower()} - {"backend", "build_info"}
    assert functions <= set(re.findall(r"\w+", code))


def test_the_commands_are_understood(monkeypatch):
    asked = []
    monkeypatch.setattr(Bench, "run", lambda self, out: asked.append(self.config) or 0)
    [commands] = blocks("sh")
    for line in commands.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "hookline"
        assert main(arguments) == 0, line
    assert len(asked) == len(commands.splitlines())
    assert any("benchmarks/baseline-cpu.json" in str(arguments) for arguments in asked)


def test_the_table_is_the_stored_measurement():
    shown = {
        tuple(cell.strip() for cell in line.split("|")[1:5])
        for line in PAGE.splitlines()
        if line.startswith("| `") and "float" in line and "×" not in line
    }
    ours = [row for row in STORED["rows"] if row["by"] == OURS]
    assert {(f"`{row['op']}`", row["shape"], row["dtype"], row["what"]) for row in ours} <= shown
    for row in ours:
        ms = f"{row['ms']:.3f}" if row["ms"] < 1 else f"{row['ms']:.1f}"
        assert f"| {row['shape']} | {row['dtype']} | {row['what']} | {ms} |" in PAGE


def test_the_stored_measurement_is_of_todays_cases():
    stored = {f"{row['op']} {row['what']} {row['shape']} {row['dtype']}" for row in STORED["rows"]}
    assert stored == {case.name for case in cases("cpu")}
    assert STORED["machine"]["cpu"]
    assert not any(row["wrong"] for row in STORED["rows"] if row["by"] == OURS)
