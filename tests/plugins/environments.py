"""A fresh environment that sees the heavy dependencies of this one, and holds nothing of ours but wheels."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from warm import Warm

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("core", "plugins", "csrc", "setup.py", "pyproject.toml", "README.md", "LICENSE")

PROGRAM = "import sys; from hookline.cli import main; sys.exit(main(sys.argv[1:]))"
DRIVER = """
import contextlib, io, json, sys
from hookline.cli import main
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@dataclass
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class Environment:
    """A virtual environment and its `hookline`."""

    folder: Path

    @functools.cached_property
    def warm(self) -> Warm:
        return Warm(self.python, clean())

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    def run(self, *command: object, **variables: str) -> Said:
        """A program of the environment, as a user's shell would start it."""
        program, *arguments = map(str, command)
        done = subprocess.run(
            [self.folder / "bin" / program, *arguments],
            env=clean() | variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def hookline(self, *arguments: object, cwd: Path | None = None, **variables: str) -> Said:
        """A command, in a warm process of this environment; `run("hookline", …)` is a real start."""
        done = self.warm.run("-c", PROGRAM, *map(str, arguments), cwd=cwd or self.folder, env=clean() | variables)
        return Said(done.returncode, done.stdout, done.stderr)

    def pip(self, *arguments: object) -> None:
        """This interpreter's pip, working on that environment."""
        pip("--python", self.python, *arguments)

    def ask(self, commands: Sequence[Sequence[object]]) -> list[Said]:
        """Several commands in one process, which imports torch once."""
        lines = "".join(json.dumps([str(part) for part in command]) + "\n" for command in commands)
        done = subprocess.run(
            [self.python, "-c", DRIVER], input=lines, env=clean(), cwd=self.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return [Said(*json.loads(line)) for line in done.stdout.splitlines()]


def clean() -> dict[str, str]:
    """The environment's variables without those that lead back to this checkout."""
    return {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HOOKLINE_", "PIP_TARGET"))
    }


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, env=clean() | {"CXX": "none"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def copy_sources(folder: Path) -> Path:
    """What an sdist of Hookline would hold; building in a copy leaves the checkout as it is."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "build.json")
            )
        else:
            shutil.copy(ROOT / name, folder)
    return folder


def write_wheel(folder: Path, name: str, version: str, points: str, source: str) -> Path:
    """A distribution of one module, by hand: a wheel is a zip with metadata."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    digests = {path: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()) for path, text in files.items()}
    record = "".join(f"{path},sha256={digest.decode().rstrip('=')},\n" for path, digest in digests.items())
    target = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(target, "w") as wheel:
        for path, text in (files | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}).items():
            wheel.writestr(path, text)
    return target


def make_environment(folder: Path, wheels: Sequence[Path]) -> Environment:
    """A fresh environment with these wheels, which finds everything else where this interpreter does."""
    venv.create(folder, with_pip=False)
    made = Environment(folder)
    made.pip("install", "--no-deps", "--no-index", *wheels)
    site = next((folder / "lib").glob("python*/site-packages"))
    # a directory named by a .pth comes last and has no .pth of its own read: an editable install there stays unseen
    (site / "heavy.pth").write_text("".join(f"{sysconfig.get_paths()[key]}\n" for key in ("purelib", "platlib")))
    where = made.run(
        "python", "-c", "import hookline, hookline_plugins; print(hookline.__file__, hookline_plugins.__file__)"
    )
    assert where.code == 0, where.err
    assert all(Path(path).is_relative_to(folder) for path in where.out.split()), where.out
    return made


def rows_of(run: Path) -> list[dict[str, Any]]:
    """A run's rows without their timings."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "timings"} for line in lines]


def manifest_of(run: Path, phase: str = "rl") -> Mapping[str, Any]:
    return json.loads((run / f"phases/{phase}/manifest.json").read_text())
