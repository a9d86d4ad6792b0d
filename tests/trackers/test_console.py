"""The console, into a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from collections.abc import Callable

import pytest
from tracker_runs import ALL, Followed, commit

from hookline.loop.api import plan
from hookline.loop.trackers import Trackers
from hookline_plugins.report import words

ESCAPE = "\x1b"


def test_a_pipe_gets_few_plain_lines(opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]) -> None:
    run = opened("console")
    commit(run, "pretrain", 400, nll=3.21)
    run.tell("run_finished", status="finished")
    out = capsys.readouterr().out
    assert ESCAPE not in out
    lines = out.splitlines()
    assert 8 <= len(lines) <= 20
    assert lines[0].startswith("pretrain: 400 steps")
    assert "text → causal-lm" in lines[0]
    assert re.fullmatch(r"  step   1/400   nll 3\.21  900 tokens/s   \d:\d\d left", lines[1])
    assert any(line.startswith("  step 400/400") for line in lines)
    assert any(line.startswith("pretrain done in 0:0") for line in lines)
    assert lines[-1].endswith(str(run.directory))


def test_the_whole_run_is_estimated_early_and_corrected(
    opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened("console")
    for phase in run.experiment["phases"][:2]:
        run.tell("phase_started", phase=phase["name"], steps=40, done=0)
        for step in range(1, 41):
            run.commit_row(phase["name"], step, {"loss": 1.0}, {"seconds/rollout": 6.0, "seconds/update": 6.0})
            run.trackers["console"].next_estimate = 0.0  # type: ignore[attr-defined]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("causal-lm   phase 1 of 5")
    [first] = [number for number, line in enumerate(lines) if "the whole run" in line]
    assert re.fullmatch(r"  the whole run: about \d+ (s|min) left on this machine, first estimate", lines[first])
    assert lines[first - 1].startswith("  step  8/40") or lines[first - 1].startswith("  step  9/40")
    assert all(
        re.search(r" left, about \d+ (s|min) in all$", line)
        for line in lines[first + 1 :]
        if " left" in line and "phase" not in line
    )
    second = next(line for line in lines if line.startswith("comparisons: "))
    assert re.search(r"phase 2 of 5, about \d+ (s|min) left in all$", second)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "about 5 s"), (42, "about 40 s"), (56, "about 1 min"), (400, "about 7 min"), (3600, "about 1 h"),
     (7900, "about 2 h 10 min")],
)  # fmt: skip
def test_an_estimate_is_no_more_exact_than_it_is(seconds: float, text: str) -> None:
    assert words.about(seconds) == text


def test_evaluations_are_shown_as_they_come_and_summed_up(
    opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened("console")
    run.tell("phase_started", phase="rl", steps=100, done=0)
    for step in range(101):
        held_out = {"eval/keyword-coverage": 0.4 + step / 1000} if step % 25 == 0 else {}
        run.commit_row("rl", step, {"reward": 0.5, "kl": 1.5, "truncated": 0.25, **held_out}, {})
    run.tell("run_finished", status="stopped")
    out = capsys.readouterr().out
    for step in (0, 25, 50, 75, 100):
        assert re.search(rf"step +{step}/100.*held out: keyword-coverage {0.4 + step / 1000:.3f}", out)
    assert "reward 0.500  kl 1.50  truncated 25 %" in out
    assert "keyword-coverage 0.400 → 0.500" in out
    assert "nothing was saved, so the same command begins again" in out


def test_many_evaluations_make_no_flood(opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]) -> None:
    run = opened("console")
    run.tell("phase_started", phase="rl", steps=300, done=0)
    for step in range(301):
        run.commit_row("rl", step, {"eval/keyword-coverage": step / 300}, {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  step")]
    assert len(lines) <= 22


def test_an_unhealthy_figure_is_named_once_per_phase(
    opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened("console")
    commit(run, "comparisons", 30, truncated=0.9)
    commit(run, "rl", 30, truncated=0.9, reward=float("nan"))
    alarms = [line for line in capsys.readouterr().out.splitlines() if "truncated is 0.900" in line]
    assert len(alarms) == 2
    assert "usually 0 to 0.5" in alarms[0]
    assert "share of sampled rows that hit the length limit" in alarms[0]


def test_a_resumed_phase_says_where_it_goes_on(
    opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]
) -> None:
    run = opened("console")
    run.tell("phase_started", phase="pretrain", steps=10, done=4)
    assert "goes on after step 4" in capsys.readouterr().out


def test_a_run_stopped_before_it_began_breaks_no_tracker(opened: Callable[..., Followed]) -> None:
    run = opened()
    planned = plan({**run.experiment, "trackers": ALL})
    run.session.trackers = Trackers(run.session.run, planned.trackers)
    run.tell("run_finished", status="stopped")
    assert not run.notices


def test_a_narrow_encoding_loses_signs_not_the_run(
    opened: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    with os.fdopen(write, "w", encoding="ascii") as ascii_only:
        monkeypatch.setattr(sys, "stdout", ascii_only)
        run = opened("console")
        commit(run, "pretrain", 3)
        monkeypatch.undo()
    assert b"pretrain done" in os.read(read, 65536)
    assert not run.notices


def test_a_terminal_gets_a_bar_that_is_taken_away(
    opened: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    controller, terminal = pty.openpty()
    seen: list[bytes] = []

    def watch() -> None:
        while True:
            try:
                data = os.read(controller, 4096)
            except OSError:
                return
            if not data:
                return
            seen.append(data)

    reader = threading.Thread(target=watch)
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(terminal, "w", encoding="utf-8") as screen:
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "100")
        patch.setattr(sys, "stdout", screen)
        run = opened("console")
        run.tell("phase_started", phase="rl", steps=3, done=0)
        for step in range(1, 4):
            run.commit_row("rl", step, {"reward": 0.5, "kl": 1.5, "eval/kl": 2.0}, {"tokens_per_second": 812.0})
            run.trackers["console"].screen.live.refresh() if step < 3 else None  # type: ignore[attr-defined]
        run.tell("run_finished", status="finished")
    reader.join(timeout=5)
    os.close(controller)
    shown = b"".join(seen).decode()
    assert ESCAPE in shown
    assert "━" in shown
    assert "2/3" in shown
    assert "reward 0.500  kl 1.50  812 tokens/s" in shown
    assert "step 2   held out: kl 2" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is given back"
    assert not run.notices
