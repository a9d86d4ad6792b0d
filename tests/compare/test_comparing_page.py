"""docs/comparing.md does what it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hookline.cli import main

PAGE = (Path(__file__).resolve().parents[2] / "docs/comparing.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [experiment] = blocks("yaml")
    Path("walks.yaml").write_text(experiment)
    [commands] = blocks("sh")
    for command in commands.splitlines():
        assert main(command.split()[1:]) == 0
    assert main(["explain", "walks.yaml"]) == 0
    shown = capsys.readouterr().out
    assert "grpo − reinforce" in shown
    assert (tmp_path / "runs/walks/grpo,seed=1/run.json").exists()
    assert "exact frontier" in (tmp_path / "runs/walks/compared/compare.html").read_text()
    for column in ("IQM", "95 % interval", "difference", "P(first higher)", "higher at"):
        assert column in shown
        assert f"| {column} |" in PAGE
    for column in ("d", "P(better)", "p (Holm)"):
        assert re.search(rf"^.*configuration.* {re.escape(column)}(  |$)", shown, re.MULTILINE)
        assert f"| {column} |" in PAGE
    for row in (
        "equal steps",
        "equal tokens",
        "equal seconds",
        "mean over steps",
        "mean over tokens",
        "mean over seconds",
    ):
        assert f"\n{row} " in shown
    assert re.search(r"^grpo against reinforce at equal steps \(20\): .*, not shown: ", shown, re.MULTILINE)
