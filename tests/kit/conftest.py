"""The fixtures that any distribution gets from Hookline's pytest plugin, and an environment with the wheel alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hookline.testing.pytest_plugin import hookline_conforms, hookline_harness  # noqa: F401

sys.path.append(str(Path(__file__).resolve().parents[1] / "plugins"))
from environments import Environment, copy_sources, make_environment, pip


@pytest.fixture(scope="session")
def wheel_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A fresh environment with nothing of ours but the wheel of Hookline."""
    wheels = tmp_path_factory.mktemp("wheels")
    sources = copy_sources(tmp_path_factory.mktemp("hookline"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, sources)
    return make_environment(tmp_path_factory.mktemp("ten") / "venv", list(wheels.glob("hookline-[0-9]*.whl")))
