"""docs/plugins.md does what it says: its files are written, its commands run, what it shows is what they print."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from environments import ROOT, Environment, clean, make_environment

PAGE = ROOT / "docs/plugins.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> Iterator[tuple[str, str, str]]:
    """(language, file name, text) of every fenced block."""
    for found in FENCE.finditer(PAGE.read_text(encoding="utf-8")):
        yield found[1], found[2] or "", found[3]


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("docs") / "venv", list(wheels.glob("hookline-[0-9]*.whl")))


def do(command: str, desk: Path, environment: Environment) -> str:
    """A line of a shell block, as a user with that environment would type it."""
    variables = clean() | {
        "PATH": f"{environment.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(desk),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # the environment has no pip of its own, and a test fetches nothing
    command = re.sub(r"^pip install", "python -m pip install -q --no-deps --no-index --no-build-isolation", command)
    if command.startswith("hookline "):
        said = environment.hookline(*shlex.split(command)[1:], cwd=desk, **variables)
        assert said.code == 0, f"$ {command}\n{said.out}{said.err}"
        return said.out
    done = subprocess.run(command, shell=True, cwd=desk, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    return done.stdout


def shown_in(line: str, output: str) -> bool:
    """Whether a shown line is printed as one line: runs of blanks are one, `…` stands for anything."""
    pattern = r"\s*.*\s*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
    return any(re.search(pattern, " ".join(printed.split())) for printed in output.splitlines())


def test_the_page_from_top_to_bottom(environment: Environment, tmp_path: Path) -> None:
    output = ""
    done = {"files": 0, "commands": 0, "lines": 0, "snippets": 0}
    for language, name, text in blocks():
        if name:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text, encoding="utf-8")
            done["files"] += 1
        elif language == "sh":
            output = ""
            for command in text.splitlines():
                output += do(command, tmp_path, environment)
                done["commands"] += 1
        elif language == "text":
            for line in text.splitlines():
                assert shown_in(line, output), f"not printed: {line}\n\n{output}"
                done["lines"] += 1
        else:
            assert language == "python", f"nobody tests a block of {language}"
            (tmp_path / "snippet.py").write_text(text, encoding="utf-8")
            do("python snippet.py", tmp_path, environment)
            done["snippets"] += 1
    assert min(done.values()) >= 1, done

    about = json.loads((tmp_path / "second/run.json").read_text())
    assert {"hookline-loo", "vanilla.py", "centre.py"} <= {item["distribution"] for item in about["plugins"]}
    weights = [
        json.loads((tmp_path / run / "phases/rl/manifest.json").read_text())["weights"] for run in ("first", "second")
    ]
    assert weights[0] == weights[1], "the file did not change on the way up, so neither do the results"


def test_what_is_shown_must_be_printed() -> None:
    assert shown_in("a … c", "x\na   b   c\n")
    assert not shown_in("a … d", "a b c\nd e\n"), "on one line"
    assert not shown_in("loo … offered", "gae hookline offered")


def test_every_kind_is_on_the_page() -> None:
    from hookline.contract.kinds import KINDS

    page = PAGE.read_text(encoding="utf-8")
    assert all(f"`.{kind}`" in page or f"`hookline.{kind}`" in page for kind in KINDS)
