"""The tests' own machinery: rooms, shards, what may be skipped, warm processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from rooms import BUDGET, ROOT, TESTS, files_of, group_of, importers, shard, sorted_by_cost
from warm import Warm

# -- rooms


def test_every_test_file_belongs_to_a_room_and_every_pattern_names_one() -> None:
    everything = set((ROOT / "tests").rglob("test_*.py"))
    assert set(files_of(TESTS)) == everything
    empty = [p for patterns in TESTS.values() for p in patterns if not list((ROOT / "tests").glob(f"{p}.py"))]
    assert empty == []


def test_every_room_of_the_code_has_tests() -> None:
    code = [*(ROOT / "core/hookline").iterdir(), *(ROOT / "plugins/hookline_plugins").iterdir()]
    rooms = {path.name for path in code if (path / "__init__.py").exists() or list(path.glob("*.py"))}
    assert rooms - {"templates", "__pycache__"} <= set(TESTS), rooms - set(TESTS)


def test_a_room_is_tested_with_those_that_import_it() -> None:
    assert {"loop", "plan", "runs"} <= importers("data")
    assert "kernels" not in importers("data")
    assert importers("cli") == set()


def test_the_budget_stands_in_contributing() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\d*):(\d\d) \|", page, re.MULTILINE)
    assert {room: 60 * int(minutes or 0) + int(seconds) for room, minutes, seconds in rows} == BUDGET
    assert set(BUDGET) == {path.name for path in (ROOT / "tests").iterdir() if list(path.glob("test_*.py"))}


# -- shards and workers


class Item(SimpleNamespace):
    """As much of a pytest item as these functions look at."""

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self.marks if mark.name == name), None)


def item(name: str, *marks: pytest.MarkDecorator, file: str = "core/test_a.py") -> Item:
    return Item(nodeid=f"tests/{file}::{name}", path=ROOT / "tests" / file, marks=[mark.mark for mark in marks])


def test_shards_are_even_and_hold_every_slow_test_once() -> None:
    slow = pytest.mark.slow
    items = [item("quick"), *(item(f"a{n}", slow) for n in range(20)), item("long", slow(100)), item("b", slow(90))]
    parts = [shard(items, f"{number}/3")[0] for number in (1, 2, 3)]
    assert sorted(i.nodeid for part in parts for i in part) == sorted(i.nodeid for i in items[1:])
    seconds = [sum(sum(i.get_closest_marker("slow").args or (10,)) for i in part) for part in parts]
    assert max(seconds) - min(seconds) <= 10
    assert [len(part) for part in (shard(items, "1/3"))] == [len(parts[0]), len(items) - len(parts[0])]


@pytest.mark.parametrize("wrong", ["", "3", "0/8", "9/8", "a/b"])
def test_a_shard_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(pytest.UsageError, match="it is I/N"):
        shard([], wrong)


def test_a_file_goes_to_one_worker_and_slow_tests_go_one_by_one() -> None:
    assert group_of("tests/core/test_life.py::test_a[1]", slow=False) == "tests/core/test_life.py"
    assert group_of("tests/compare/test_compare.py::test_a", slow=False) == "compare"
    assert group_of("tests/compare/test_compare.py::test_a", slow=True) == "tests/compare/test_compare.py::test_a"
    assert group_of("tests/kernels/test_product.py::test_threads_change_no_bit[avx2]", slow=False) == "threads"
    items = [item("a", file="tasks/test_exact.py"), item("b", file="core/test_life.py"), item("c")]
    assert [i.nodeid[-1] for i in sorted_by_cost(items)] == ["b", "c", "a"], "the cheapest room comes last"


def test_both_workers_are_given_whole_files(warm: Warm, tmp_path: Path) -> None:
    """With the versions of pytest and pytest-xdist that are installed."""
    (tmp_path / "conftest.py").write_text("from rooms import pytest_xdist_make_scheduler\n")
    code = "import os, time, pytest\n@pytest.mark.parametrize('n', range(6))\ndef test_a(n): print('ran', __name__, os.getpid())\n"
    for name in ("a", "b"):
        (tmp_path / f"test_{name}.py").write_text(code)
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = warm.run("-m", "pytest", "-n", "2", "-p", "no:cacheprovider", "-rP", cwd=tmp_path, env=environment)
    ran = set(re.findall(r"ran (test_\w) (\d+)", done.stdout))
    assert len(ran) == len({worker for _, worker in ran}) == 2, done.stdout


# -- what may be skipped

NEEDY = """
import pytest
from needs import needs_package, needs_program

@needs_program("no-such-browser", "apt-get install no-such-browser")
def test_a_browser(): raise AssertionError

@needs_package("no_such_peer", "pip install no-such-peer")
def test_a_peer(): raise AssertionError

@needs_program("sh", "apt-get install dash")
def test_a_shell(): pass

def test_a_gpu(): pytest.skip("no NVIDIA GPU here")

@pytest.mark.xfail
def test_a_known_fault(): raise AssertionError
"""


@pytest.mark.parametrize(("ci", "skipped", "failed"), [("", 3, 0), ("1", 1, 2)])
def test_what_is_missing_is_skipped_and_on_ci_fails(
    warm: Warm, tmp_path: Path, ci: str, skipped: int, failed: int
) -> None:
    (tmp_path / "conftest.py").write_text("from needs import pytest_runtest_makereport\n")
    (tmp_path / "test_needy.py").write_text(NEEDY)
    paths = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = warm.run(
        "-m", "pytest", "-rs", "-p", "no:cacheprovider", cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths, "HOOKLINE_CI": ci}
    )  # fmt: skip
    assert re.search(
        rf"1 passed, {skipped} skipped, 1 xfailed|{failed} failed, 1 passed, {skipped} skipped", done.stdout
    ), done.stdout + done.stderr
    if ci:
        assert "test_a_browser was skipped (needs no-such-browser: apt-get install no-such-browser)" in done.stdout
        assert "add the reason to ALLOWED in tests/needs.py" in done.stdout
    else:
        assert "needs no_such_peer: pip install no-such-peer" in done.stdout


def test_ci_installs_what_the_tests_ask_for() -> None:
    """A test that is skipped on CI has failed, so what it asks for is in `.ci/run`, or in the extra `dev`."""
    ci = (ROOT / ".ci/run").read_text()
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name in ("needs.py", Path(__file__).name):  # examples only
            continue
        code = path.read_text()
        assert "importorskip" not in code, f"{path.name}: import it and add it to the extra `dev`, or use needs_package"
        for packages in re.findall(r"apt-get install ([a-z0-9+\- ]+)", code):
            missing = [package for package in packages.split() if not re.search(rf"(?<![\w+-]){re.escape(package)}(?![\w+-])", ci)]
            assert not missing, f"{path.name} needs {', '.join(missing)}, which .ci/run does not install"


# -- warm processes


def test_a_warm_process_is_a_process(warm: Warm, tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['A'], sys.stdin.read()); print('e', file=sys.stderr); sys.exit(7)"
    done = warm.run("-c", code, "x", cwd=tmp_path, env={"A": "b"}, input="given")
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{tmp_path} ['x'] b given\n", "e\n")
    assert (
        warm.run("-c", "import os; print(os.getpid())").stdout != warm.run("-c", "import os; print(os.getpid())").stdout
    )
    assert warm.run("-c", "import sys; print('torch' in sys.modules, __name__)").stdout == "True __main__\n"
    (tmp_path / "mine.py").write_text("print('mine')")
    assert warm.run("-m", "mine", cwd=tmp_path).stdout == warm.run(tmp_path / "mine.py").stdout == "mine\n"
    broken = warm.run("-c", "def f(): 1 / 0\nf()")
    assert broken.returncode == 1
    assert broken.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert warm.run("-c", "raise SystemExit('a sentence')").stderr == "a sentence\n"
    with pytest.raises(ValueError, match="starts with -c, -m or a file"):
        warm.run("-X", "importtime")
    with pytest.raises(subprocess.CalledProcessError):
        warm.run("-c", "raise SystemExit(3)", check=True)


def test_a_warm_process_takes_signals_and_two_may_run_at_once(warm: Warm) -> None:
    wait = "import sys, time; print('here', flush=True); time.sleep(60)"
    first, second = warm.start("-c", wait), warm.start("-c", wait, stderr=subprocess.STDOUT)
    assert first.stdout.readline() == second.stdout.readline() == "here\n"
    assert first.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(timeout=0.01)
    first.send_signal(signal.SIGINT)
    second.kill()
    assert first.communicate()[1].endswith("KeyboardInterrupt\n")
    assert second.wait() == -signal.SIGKILL
    assert first.returncode == -signal.SIGINT


def test_a_warm_process_flushes_waits_for_threads_and_says_goodbye(warm: Warm) -> None:
    code = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'goodbye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()\n"
        "print('first')"
    )
    assert warm.run("-c", code).stdout == "first\nlate\ngoodbye\n"
