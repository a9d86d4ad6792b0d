"""The proof table: nobody is left out of it, its page shows what it says, and its quick version holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hookline.loop.api import plan
from hookline.registry import offers

ROOT = Path(__file__).resolve().parents[2]
PROOF = ROOT / "benchmarks/proof"
sys.path.insert(0, str(PROOF))
import proof  # noqa: E402

APART = {"causal-lm", "sft", "bradley-terry"}
"""Supervised; the main job shows them."""


@pytest.fixture(scope="module")
def plans() -> dict[proof.Row, object]:
    return {row: plan(*proof.overrides(row, 1, None)) for row in proof.rows()}


def test_every_built_in_algorithm_has_a_row(plans) -> None:
    trained = {phase.update.offer.name for planned in plans.values() for phase in planned.phases if phase.update}
    offered = {offer.name for offer in offers.offers() if offer.kind == "update" and offer.built_in}
    assert offered - trained - APART == set()


def test_no_figure_depends_on_a_gpu_that_happens_to_be_there(plans) -> None:
    assert {planned.experiment.device for planned in plans.values()} == {"cpu"}
    shipped = sorted((ROOT / "examples/exact").glob("*.yaml"))
    assert len(shipped) > 10
    assert [path.name for path in shipped if plan(str(path)).experiment.device != "cpu"] == []


def test_settings_chosen_elsewhere_can_be_run_there() -> None:
    row = next(row for row in proof.rows() if row.experiment == "walks-gpt2.yaml")
    experiment, changes = proof.overrides(row, 2, 1002)
    assert "seed=2" in changes
    assert experiment["phases"][0]["rollout"]["path"] == "builtin:walks/walks?seed=1002"
    assert experiment["phases"][1]["reward"]["task"] == "builtin:walks?seed=1002"


@pytest.mark.parametrize(
    ("figure", "gap", "holds"), [(0.99, 0.01, True), (0.97, 0.01, False), (0.99, -0.01, False), (0.99, None, True)]
)
def test_a_row_holds_where_it_should_be_and_under_the_frontier(figure: float, gap: float | None, holds: bool) -> None:
    row = proof.Row(name="r", group="g", experiment="e", figure="f", exact=1.0, holds="x >= 0.98")
    assert proof.verdict(row, [proof.Outcome(figure, None, gap, 1.0)]) is holds


def test_the_page_shows_every_row() -> None:
    page = (ROOT / "docs/proof.md").read_text(encoding="utf-8")
    assert [row.name for row in proof.rows() if f"\n| {row.name} |" not in page] == []
    assert "**no**" not in page


def test_a_row_is_trained_and_holds(tmp_path: Path) -> None:
    row = next(row for row in proof.rows() if row.quick and row.experiment == "arms.yaml")
    assert proof.verdict(row, [proof.outcome(row, *proof.train(*proof.overrides(row, 1, None), tmp_path / "run"))])


@pytest.mark.slow(150)
def test_the_quick_version_holds(tmp_path: Path) -> None:
    command = [sys.executable, PROOF / "proof.py", "--quick", "--jobs", "2", "--out", tmp_path / "runs"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    quick = sum(row.quick for row in proof.rows())
    assert f"{quick} of {quick} rows hold" in done.stdout
