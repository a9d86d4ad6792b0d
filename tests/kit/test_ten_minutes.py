"""docs/plugin-in-ten-minutes.md does what it says, in a fresh environment: its files, its commands, what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests/plugins"))
from environments import Environment, clean, copy_sources, make_environment, pip  # noqa: E402

PAGE = ROOT / "docs/plugin-in-ten-minutes.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    """(language, what stands behind it, text) of every fenced block."""
    for found in FENCE.finditer(PAGE.read_text(encoding="utf-8")):
        yield found[1], found[2] or "", found[3]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    wheels = tmp_path_factory.mktemp("wheels")
    sources = copy_sources(tmp_path_factory.mktemp("hookline"))
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, sources)
    return make_environment(tmp_path_factory.mktemp("ten") / "venv", list(wheels.glob("hookline-[0-9]*.whl")))


def do(command: str, desk: Path, environment: Environment, code: int = 0) -> str:
    """A line of a shell block, as a user with that environment would type it."""
    variables = clean() | {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # the environment has no pip and no pytest of its own, and a test fetches nothing
    command = re.sub(r"^pip (install|wheel)", r"python -m pip \1 -q --no-deps --no-index --no-build-isolation", command)
    command = re.sub(r"^pytest", "python -m pytest -p no:cacheprovider", command)
    done = subprocess.run(command, shell=True, cwd=desk, env=variables, capture_output=True, text=True)
    assert done.returncode == code, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def shown_in(line: str, output: str) -> bool:
    """Whether a shown line is printed within one line; `…` stands for anything."""
    pattern = r".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
    return any(re.search(pattern, " ".join(printed.split())) for printed in output.splitlines())


@pytest.mark.slow(90)
def test_the_page_from_top_to_bottom(environment: Environment, tmp_path: Path) -> None:
    output = ""
    done = {"files": 0, "commands": 0, "lines": 0}
    began = time.monotonic()
    for language, about, text in blocks():
        if language == "sh":
            output = ""
            for command in text.splitlines():
                output += do(command, tmp_path, environment, int(about.removeprefix("exits-") or 0))
                done["commands"] += 1
        elif language == "text":
            for line in text.splitlines():
                assert shown_in(line, output), f"not printed: {line}\n\n{output}"
                done["lines"] += 1
        else:
            assert about, f"a block of {language} that is nobody's file"
            (tmp_path / about).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / about).write_text(text, encoding="utf-8")
            done["files"] += 1
    assert time.monotonic() - began < 600, "ten minutes"
    assert done["files"] == 3
    assert done["commands"] >= 10
    assert done["lines"] >= 15
    assert list((tmp_path / "dist").glob("hookline_steady-0.1.0-*.whl"))
    plugins = json.loads((tmp_path / "first-try/run.json").read_text())["plugins"]
    assert "hookline-steady" in {plugin["distribution"] for plugin in plugins}


def test_every_block_of_the_page_is_one_that_is_run() -> None:
    for language, about, _ in blocks():
        assert language in ("sh", "text") or "." in about, language
    names = [about for language, about, _ in blocks() if language not in ("sh", "text")]
    assert len(set(names)) == len(names)
