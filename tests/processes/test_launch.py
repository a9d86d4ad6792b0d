"""`hookline run --processes`: the same run from one command, and what happens when its processes, or it, end early."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import ranks
from warm import Child, Warm

FAULT = """
    import os
    import signal
    import time

    class Fault(Component):
        name = "fault"

        @hookimpl
        def hookline_reward(self, ctx, rollout):
            what, rank = os.environ.get("FAULT", ""), int(os.environ.get("RANK", 0))
            value = torch.tensor([float(len(set(rollout.response_text(i)))) for i in range(len(rollout))])
            if ctx.step == 2 and rank == 1:
                if what == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if what == "left":
                    os._exit(0)
                if what == "broken":
                    raise ValueError("no such tag")
                if what == "nan":
                    value = value * float("nan")
            if ctx.step == 2 and what == "waits":
                (ctx.run.directory / f"here{rank}").touch()
                time.sleep(0.5)
            return value
"""


@pytest.fixture
def file(tiny: Callable[..., dict[str, Any]], plugin: Callable[[str, str], str], tmp_path: Path) -> Path:
    """An experiment whose reward does in step 2 what the environment's FAULT says."""
    experiment = tiny(reward="fault", steps=4, save={"every": 1})
    experiment["plugins"].append(plugin(FAULT, "fault"))
    (tmp_path / "faulty.json").write_text(json.dumps(experiment))
    return tmp_path / "faulty.json"


def command(file: Path, *more: str) -> list[str]:
    return ["-m", "hookline", "run", str(file), "--out", str(file.with_suffix("")), *more]


def launched(warm: Warm, file: Path, fault: str = "") -> Child:
    """The command that starts both processes."""
    return warm.start(*command(file, "--processes", "2"), cwd=file.parent, env={**os.environ, "FAULT": fault})


def ended(child: Child) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=90)
    return child.wait(), out, err


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("killed", 7, "ServiceError: rank 1 died, last seen in "),
        ("left", 7, "ServiceError: rank 1 died, last seen in "),
        ("broken", 5, "PluginError: rank 1: reward 'fault' "),
        ("nan", 6, "NumbersError: rank 1: reward 'fault' "),
    ],
)
def test_a_fault_of_one_rank_ends_the_run_with_a_sentence_and_the_newest_save(
    file: Path, warm: Warm, what: str, code: int, said: str
) -> None:
    (own, _, err), (other, _, _) = ranks.finished(ranks.start(warm, [command(file)] * 2, env={"FAULT": what}))
    assert own == code, err
    assert other != 0
    assert said in err
    assert err.count("Error: ") == 1 + (what == "broken"), "the other one is in the user's own frames"
    if what == "broken":
        assert 'raise ValueError("no such tag")' in err
    saves = sorted(path.name for path in file.with_suffix("").glob("checkpoints/*"))
    assert saves[-1] == "rl-00000002"
    (own, out, err), (other, silent, _) = ranks.finished(ranks.start(warm, [command(file)] * 2))
    assert (own, other) == (0, 0), err
    assert "2 processes   goes on in" in out
    assert not silent


@pytest.mark.slow(20)
def test_ctrl_c_saves_and_ends_both_and_is_told_once(file: Path, warm: Warm) -> None:
    child = launched(warm, file, "waits")
    _until(lambda: (file.with_suffix("") / "here1").exists())
    child.send_signal(signal.SIGINT)
    code, _, err = ended(child)
    assert code == 130, err
    assert err.count("stopping: this step is finished and saved first") == 1
    assert err.count("Stopped: stopped after step 3 of phase 'rl', saved") == 1


def test_ranks_whose_launcher_is_killed_save_and_end(file: Path, warm: Warm) -> None:
    child, run = launched(warm, file, "waits"), file.with_suffix("")
    _until(lambda: (run / "here1").exists())
    child.kill()
    child.wait()
    _until(lambda: (run / "checkpoints/rl-00000003/manifest.json").exists())
    (code, _, err), _ = ranks.finished(ranks.start(warm, [command(file)] * 2))  # the lock is free again
    assert code == 0, err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_launch_that_is_interrupted_before_it_begins_says_so_once(
    file: Path, warm: Warm, number: int, code: int
) -> None:
    child = launched(warm, file)
    time.sleep(1.5)  # the ranks are still importing torch
    child.send_signal(number)
    ended_with, _, err = ended(child)
    assert ended_with == code, err
    assert "Traceback" not in err
    assert err.count("interrupted") + err.count("Stopped:") == 1


@pytest.mark.slow(20)
def test_a_run_of_two_processes_is_not_repeated_by_one(file: Path, warm: Warm) -> None:
    (code, _, err), _ = ranks.finished(ranks.start(warm, [command(file)] * 2))
    assert code == 0, err
    done = warm.run("-m", "hookline", "reproduce", str(file.with_suffix("")))
    assert done.returncode == 4
    assert "processes was 2 and is now 1" in done.stderr


def test_processes_of_several_runs_or_of_another_launcher_are_refused(file: Path, warm: Warm) -> None:
    done = warm.run(*command(file, "--processes", "2", "--seeds", "2"))
    assert done.returncode == 2
    assert "several processes make one run together, but these are several runs" in done.stderr
    env = ranks.environment(0, 3, 1)
    done = warm.run(*command(file, "--processes", "2"), env=env)
    assert done.returncode == 2
    assert "--processes is 2, but the launcher has started 3" in done.stderr


def test_ranks_with_different_experiments_are_refused(file: Path, warm: Warm) -> None:
    said = ranks.finished(ranks.start(warm, [command(file), command(file, "seed=2")]))
    assert [code for code, _, _ in said] == [2, 2]
    assert "rank 0 and rank 1 differ in experiment" in said[0][2]
    assert not said[1][2]


def _until(there: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("codes", "asked", "code"),
    [
        ((0, 0), (), 0),
        ((4, 7), (), 4),
        ((143, 143), (signal.SIGTERM,), 143),
        ((4, 143), (signal.SIGTERM,), 4),
        ((130, 3), (signal.SIGINT,), 3),
        ((7, 143), (signal.SIGTERM,), 143),
        ((-9, -9), (signal.SIGTERM,), 7),
        ((-9, -9), (), 7),
        ((-15, -9), (signal.SIGTERM,), 143),
    ],
)
def test_a_ranks_own_error_is_the_code_of_the_launch(codes: Sequence[int], asked: Sequence[int], code: int) -> None:
    """A signal that was passed on explains 128 + its number, and 7 of a rank whose neighbour is gone; nothing else."""
    from hookline.world.launch import _wait

    def ended(code: int) -> subprocess.Popen[bytes]:
        how = f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
        return subprocess.Popen([sys.executable, "-S", "-c", f"import os, sys; {how}"])

    assert _wait([ended(code) for code in codes], asked) == code
