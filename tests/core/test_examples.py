"""The examples are whole, and their advantage can be swapped for somebody else's by one word."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hookline.cli import main
from hookline.loop.api import plan

ROOT = Path(__file__).resolve().parents[2]
MAIN_JOB = ROOT / "examples/keyword-phrases.yaml"


@pytest.fixture
def loo(tmp_path: Path) -> str:
    """The example distribution's module as a loose file."""
    return str(shutil.copy(ROOT / "examples/hookline-loo/src/hookline_loo/__init__.py", tmp_path / "loo.py"))


def test_the_main_job_takes_another_advantage_by_one_word(loo: str) -> None:
    planned = plan(MAIN_JOB, ["phases.rl.advantage=loo"], [loo])
    chosen = next(p for p in planned.phases if p.spec.name == "rl")
    assert chosen.advantage is not None
    assert chosen.advantage.offer.path == loo


def test_explain_says_who_answers_each_hook(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(MAIN_JOB)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "rollout    answers  generate",
        "reward     wraps    kl-penalty",
        "advantage  answers  gae",
        "update     answers  ppo",
    ):
        assert line in shown
    assert "policy as phase 'sft' left it, with head 'reward'" in shown


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_resolves(path: Path, loo: str) -> None:
    loose = sorted(str(p) for p in (ROOT / "examples").glob("*.py"))
    assert plan(path, plugins=[*loose, loo]).phases
