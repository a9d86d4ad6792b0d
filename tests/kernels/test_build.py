"""What `pip install` makes of the native code: with and without a compiler, and never with torch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from fuzz import Fuzzer

from hookline.kernels import native
from needs import needs_program

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sources(tmp_path):
    """A clean copy of what a build reads."""
    copy = tmp_path / "hookline"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("core", "plugins", "csrc"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "build.json")
        )
    return copy


def build(sources, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", "-q", *arguments],
        cwd=sources,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def kernels_in(folder, setting=None, expression="build_info()"):
    """What a fresh process says about the package in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(folder)} | ({"HOOKLINE_KERNELS": setting} if setting else {})
    return subprocess.run(
        [sys.executable, "-c", f"import json; from hookline.kernels import *; print(json.dumps({expression}))"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_no_compiler_is_no_failure(sources):
    done = build(sources, "build_ext", "--inplace", CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    info = json.loads(kernels_in(sources / "core").stdout)
    assert info["kernels"] == "reference"
    assert "CXX=no-such-compiler is no command on this machine" in info["why"]
    required = kernels_in(sources / "core", "require")
    assert required.returncode
    assert "HOOKLINE_KERNELS=require, but CXX=no-such-compiler" in required.stderr
    works = "float(token_stats(__import__('torch').zeros(1, 4), __import__('torch').tensor([0])).logprobs)"
    assert json.loads(kernels_in(sources / "core", expression=works).stdout) == pytest.approx(-1.3862944)


def test_sources_that_do_not_compile_are_quoted(sources):
    (sources / "csrc" / "cpu" / "kernels.cpp").write_text("#error out of order\n")
    done = build(sources, "build_ext", "--inplace")
    assert done.returncode == 0, done.stderr
    assert "out of order" in json.loads(kernels_in(sources / "core").stdout)["why"]
    insisted = build(sources, "build_ext", "--inplace", HOOKLINE_KERNELS="require")
    assert insisted.returncode
    assert "HOOKLINE_KERNELS=require, but the kernels did not compile" in insisted.stderr


def test_settings_of_the_running_process(compiled):
    assert json.loads(kernels_in(ROOT / "core", "reference").stdout)["why"] == "HOOKLINE_KERNELS=reference"
    assert json.loads(kernels_in(ROOT / "core", "require").stdout)["kernels"].startswith("native")
    assert "HOOKLINE_KERNELS is 'fast'" in kernels_in(ROOT / "core", "fast").stderr


@pytest.mark.slow
def test_a_wheel_from_an_isolated_environment_without_torch(sources, tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path / "dist"), str(sources)],
        env={**os.environ, "HOOKLINE_KERNELS": "require"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert "none-any" not in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("hookline/_native.") and name.endswith(".so") for name in names)
    for name in (
        "hookline/py.typed",
        "hookline_plugins/py.typed",
        "hookline_plugins/report/templates/report.html",
        "hookline_plugins/report/templates/style.css",
        "hookline/kernels/__init__.py",
        "hookline/kernels/build.json",
    ):
        assert name in names, name
    assert not [name for name in names if name.startswith(("core/", "plugins/", "csrc/", "tests/"))]


@pytest.mark.slow
def test_an_editable_install_is_a_pth_of_two_lines(sources, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--no-deps", "-e", str(sources)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (pth,) = (tmp_path / "venv").glob("lib/python*/site-packages/__editable__*.pth")
    assert pth.read_text().splitlines() == [str(sources / "core"), str(sources / "plugins")]
    assert not list(pth.parent.glob("__editable___*finder*"))
    assert list((sources / "core" / "hookline").glob("_native.*.so"))


@pytest.mark.slow
def test_a_second_build_compiles_nothing(sources):
    first = build(sources, "build_ext", "--inplace")
    assert "kernels.cpp" in first.stdout
    second = build(sources, "build_ext", "--inplace")
    assert "kernels.cpp" not in second.stdout
    (sources / "csrc" / "bindings.cpp").touch()
    third = build(sources, "build_ext", "--inplace")
    assert "bindings.cpp" in third.stdout
    assert "kernels.cpp" not in third.stdout


def test_random_calls_return_or_are_refused(compiled):
    fuzzer, before = Fuzzer(native.module, 0), native.module.build_info()["instruction_set"]
    try:
        for _ in range(300):
            with contextlib.suppress(ValueError):
                fuzzer.call()
    finally:
        native.module.use(before)


@needs_program("g++", "apt-get install g++")
@pytest.mark.slow(120)
def test_random_calls_under_sanitizers(compiled):
    """Shapes, strides, dtypes, masks and values at random; after a change of the sources it compiles for a minute."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzz.py"), "10000"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "10000 calls" in done.stdout
