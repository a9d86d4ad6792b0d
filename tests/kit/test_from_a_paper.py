"""docs/from-a-paper.md: another author's wheel is installed in an empty environment, checked, run beside two built-ins, compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from running_pages import ROOT, Environment, run_page


@pytest.mark.slow(120)
def test_the_page_from_top_to_bottom(wheel_environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples/hookline-awr", tmp_path / "hookline-awr")
    done = run_page(ROOT / "docs/from-a-paper.md", tmp_path, wheel_environment)
    assert done["commands"] == 8
    runs = sorted(path.parent for path in tmp_path.glob("runs/walks/*/run.json"))
    assert len(runs) == 15
    assert {run.name.rpartition("=")[2] for run in runs} == set("12345")
    of_awr = [run for run in runs if "awr" in run.name]
    assert len(of_awr) == 5
    for run in of_awr:
        plugins = {
            each["distribution"]: each["version"] for each in json.loads((run / "run.json").read_text())["plugins"]
        }
        assert plugins["hookline-awr"] == "0.1.0"
    assert all(list(run.glob("wandb/offline-run-*")) for run in runs), "W&B, without a key"
    assert list((tmp_path / "compared").glob("*.html"))
