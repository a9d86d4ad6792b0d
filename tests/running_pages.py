"""Runs a page of docs from top to bottom, as a user with a fresh environment would type it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests/plugins"))
from environments import Environment, clean  # noqa: E402

__all__ = ["blocks", "run_page"]

FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """(language, what is written behind it, text) of every fenced block."""
    for found in FENCE.finditer(page.read_text(encoding="utf-8")):
        yield found[1], found[2] or "", found[3]


def run_page(page: Path, desk: Path, environment: Environment) -> dict[str, int]:
    """Write the page's files, run its commands, and look for the lines that it shows; the number of each.

    A block of `sh` is commands (`sh exits-3`: with this exit code), one of `text` is lines that those print, and any other
    block is a file, whose name is behind the language.
    """
    output = ""
    done = {"files": 0, "commands": 0, "lines": 0}
    for language, about, text in blocks(page):
        if language == "sh":
            output = ""
            for command in text.splitlines():
                output += _do(command, desk, environment, int(about.removeprefix("exits-") or 0))
                done["commands"] += 1
        elif language == "text":
            for line in text.splitlines():
                assert _shown_in(line, output), f"not printed: {line}\n\n{output}"
                done["lines"] += 1
        else:
            assert about, f"a block of {language} without a file's name"
            (desk / about).parent.mkdir(parents=True, exist_ok=True)
            (desk / about).write_text(text, encoding="utf-8")
            done["files"] += 1
    return done


def _do(command: str, desk: Path, environment: Environment, code: int = 0) -> str:
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


def _shown_in(line: str, output: str) -> bool:
    """Whether a shown line is printed within one line; `…` stands for anything."""
    pattern = r".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
    return any(re.search(pattern, " ".join(printed.split())) for printed in output.splitlines())
