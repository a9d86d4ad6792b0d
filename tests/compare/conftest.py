"""Real sweeps in miniature: walks on a graph under two learning rates, over five seeds, in well under a second a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_desk import experiment

import hookline

Make = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def warm_everywhere(warm_workers: None) -> None:
    """But for test_stopped_and_killed…, whose sweep is a process."""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`written(matrix={…}, steps=3)`: such an experiment as a file, by path."""

    def make(matrix: dict[str, Any] | None = None, **phase: Any) -> str:
        path = tmp_path_factory.mktemp("experiment") / "short.yaml"
        values = experiment(**phase) | ({"matrix": matrix} if matrix else {})
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return str(path)

    return make


@pytest.fixture(scope="session")
def slow_and_fast(written: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two learning rates, one of which learns, at seeds 1 to 5."""
    out = tmp_path_factory.mktemp("sweeps") / "rates"
    hookline.sweep(written({"phases.rl.update.lr": [1e-6, 0.1]}), seeds=5, out=out)
    return out


@pytest.fixture(scope="session")
def slow_again(written: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one that does not learn, at seeds 1 to 3 once more, two at a time."""
    out = tmp_path_factory.mktemp("sweeps") / "again"
    hookline.sweep(written(), ["phases.rl.update.lr=1e-6"], seeds=3, jobs=2, out=out)
    return out


@pytest.fixture(scope="session")
def slow_elsewhere(written: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same at other seeds."""
    out = tmp_path_factory.mktemp("sweeps") / "elsewhere"
    hookline.sweep(written(), ["phases.rl.update.lr=1e-6"], seeds="11,12,13,14,15", out=out)
    return out


@pytest.fixture
def copied(slow_and_fast: Path, tmp_path: Path) -> Make:
    """`copied("lr=0.1", 2, "b")`: one of the runs as a directory of its own, to be changed."""

    def make(configuration: str = "lr=0.1", seed: int = 1, name: str = "copy") -> Path:
        return Path(shutil.copytree(slow_and_fast / f"{configuration},seed={seed}", tmp_path / name))

    return make
