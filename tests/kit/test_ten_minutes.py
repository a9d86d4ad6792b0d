"""docs/plugin-in-ten-minutes.md does what it says, in a fresh environment: its files, its commands, what they print."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from running_pages import ROOT, Environment, blocks, run_page

PAGE = ROOT / "docs/plugin-in-ten-minutes.md"


@pytest.mark.slow(90)
def test_the_page_from_top_to_bottom(wheel_environment: Environment, tmp_path: Path) -> None:
    began = time.monotonic()
    done = run_page(PAGE, tmp_path, wheel_environment)
    assert time.monotonic() - began < 600, "ten minutes"
    assert done["files"] == 3
    assert done["commands"] >= 10
    assert done["lines"] >= 15
    assert list((tmp_path / "dist").glob("hookline_steady-0.1.0-*.whl"))
    plugins = json.loads((tmp_path / "first-try/run.json").read_text())["plugins"]
    assert "hookline-steady" in {plugin["distribution"] for plugin in plugins}


def test_every_block_of_the_page_is_one_that_is_run() -> None:
    for language, about, _ in blocks(PAGE):
        assert language in ("sh", "text") or "." in about, language
    names = [about for language, about, _ in blocks(PAGE) if language not in ("sh", "text")]
    assert len(set(names)) == len(names)
