"""The examples with tools: what their episodes earn is what the rules say, counted from their transcripts; and they learn."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hookline

EXAMPLES = Path(__file__).parents[2] / "examples" / "turns"


def played(
    name: str, tmp_path: Path, **steps: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]]]:
    """(the figures of playing, its transcripts, the kept rows in pieces) of an example with other numbers of steps."""
    folder = tmp_path / "turns"
    shutil.copytree(EXAMPLES, folder)
    changes = [f"phases.{phase}.steps={number}" for phase, number in steps.items()]
    more = ["phases.play.rollout.transcripts=1", "phases.play.completions={every: 1, rows: 64}", "trackers=[]"]
    run = hookline.run(folder / f"{name}.yaml", [*changes, *more], out=tmp_path / "run")
    files = sorted((run.directory / "episodes" / "play").iterdir())
    told = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    rows = [row["metrics"] for row in run.rows() if row["phase"] == "play" and row["step"]]
    return rows, told, [row for row in run.completions() if row["phase"] == "play"]


def test_the_calculator_s_episodes_earn_what_its_rules_say(tmp_path: Path) -> None:
    _, told, kept = played("calculator", tmp_path, imitate=2, play=2)
    assert len(told) == 2 * 8 * 16
    calls = 0
    for row in told:
        *asked, last = row["turns"]
        assert all((said, reward) == ("add", -0.05) for said, _, reward in asked)
        totals = [int(shown) for _, shown, _ in asked]
        assert totals == sorted(totals)
        if last[0] != "add":  # the answer, which ends the episode
            assert row["terminated"]
            assert last[2] in (0.0, 1.0)
            count = int(row["prompt"].split()[-1])
            assert len(asked) < count or last[2] == float(last[0] == str(totals[-1]))
        else:
            assert len(row["turns"]) == 5
            assert not row["terminated"]
        assert row["reward"] == pytest.approx(sum(reward for _, _, reward in row["turns"]))
        calls += len(asked)
    assert calls
    pieces = [row["stretches"] for row in kept if "stretches" in row]
    for stretches in pieces:
        assert [piece["chosen"] for piece in stretches] == [at % 2 == 0 for at in range(len(stretches))]
        assert all(piece["tokens"] == 1 for piece in stretches)
        assert all(piece["reward"] == pytest.approx(-0.05) for piece in stretches[:-1] if piece["chosen"])
        assert (
            len({round(piece["advantage"], 6) for piece in stretches if piece["chosen"]}) == 1
        )  # GRPO: one for the episode
        assert all("advantage" not in piece for piece in stretches if not piece["chosen"])


def test_a_search_shows_the_same_pages_to_all_episodes_of_a_group(tmp_path: Path) -> None:
    _, told, _ = played("search", tmp_path, imitate=2, play=1)
    for start in range(0, len(told), 16):
        shown: dict[str, str] = {}
        group = told[start : start + 16]
        assert len({row["prompt"] for row in group}) == 1
        for row in group:
            for page, number, reward in row["turns"]:
                if number:
                    assert reward == -0.05
                    assert shown.setdefault(page, number) == number
        right = shown.get(group[0]["prompt"].split()[1])
        answers = [row["turns"][-1] for row in group if row["terminated"]]
        assert right is None or all(reward == float(f"says {said}" == right) for said, _, reward in answers)


@pytest.mark.slow(30)
@pytest.mark.parametrize(("name", "least"), [("calculator", 0.85), ("search", 0.8), ("wordle", -2.9)])
def test_the_policy_learns_to_play(name: str, least: float, tmp_path: Path) -> None:
    run = hookline.run(EXAMPLES / f"{name}.yaml", ["trackers=[]"], out=tmp_path / "run")
    figures = [row["metrics"] for row in run.rows() if row["phase"] == "play" and row["step"]]
    late = [row["episode_return"] for row in figures[-10:]]
    assert sum(late) / 10 > least
    assert sum(row["episode_return"] for row in figures[:3]) / 3 < least - 0.2
