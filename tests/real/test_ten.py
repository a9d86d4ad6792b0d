"""The ten experiments of examples/real in a few steps: run, exported, read back by transformers, asked; `make real` runs them in full."""

from __future__ import annotations

from pathlib import Path

import full
import pytest
import yaml

import hookline
from shapes import SHAPES

TAUGHT = 30
"""Steps after which a model prefers one token clearly, so that rounding does not change what it says."""


@pytest.fixture(scope="module")
def root(shelf_of_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ten")
    (folder / "folders").symlink_to(shelf_of_folders)
    return folder


def test_the_ten_are_the_files_that_are_there() -> None:
    assert sorted(full.EXAMPLES) == sorted(path.stem for path in full.EXPERIMENTS.glob("*.yaml"))


@pytest.mark.parametrize("name", full.EXAMPLES)
def test_an_example_goes_from_a_folder_to_an_export_that_transformers_reads(name: str, root: Path) -> None:
    shape = list(SHAPES)[full.EXAMPLES.index(name) % len(SHAPES)]
    phases = yaml.safe_load((full.EXPERIMENTS / f"{name}.yaml").read_text())["phases"]
    steps = {phase["name"]: TAUGHT if phase["update"]["use"] in ("sft", "orpo") else 2 for phase in phases}
    short = [f"phases.{phase}.steps={number}" for phase, number in steps.items()]
    short += [f"phases.{phase['name']}.rollout.max_new_tokens=4" for phase in phases if phase["rollout"]["use"] == "generate"]
    if name in ("grpo", "rloo"):  # after two steps no answer is a sentence; something must differ
        judged = {"grpo": "length", "rloo": "rewards.py:whole_sentence, perplexity"}[name]
        short.append(f"phases.{name}.reward=[{judged}]")
    run, out = full.done(root, shape, name, *short)
    assert len(hookline.Run.read(run).rows()) == sum(steps.values())
    _, stops, _, wrong = full.checked(run, out)
    assert wrong == []
    assert bool(stops) == (name != "reward-model")
