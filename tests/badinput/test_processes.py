"""Signals, in processes of their own (PR1, PR2, PR19): the step is finished and saved, and the end is the same."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from badinput_lab import Lab, Said, refused

from warm import Child

SLOW = """
import os, time
from pathlib import Path
from hookline import Component, hookimpl

class Slow(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        Path("reached").write_text(str(ctx.step))
        if ctx.step == 1 and Path("slow").exists():
            time.sleep(60 if Path("slow").read_text() == "long" else 1.5)
        return (yield)
"""


@pytest.fixture
def slow(lab: Lab) -> Lab:
    lab.plugin(SLOW, "slow.py")
    made = lab.sft(4)
    made["plugins"] = ["./slow.py"]
    made["phases"][0] |= {"wrap": "slow", "save": {"every": 50}}
    lab.write(made)
    return lab


def started(lab: Lab, how: str = "short") -> Child:
    """A run that is in the middle of its second step."""
    (lab.folder / "slow").write_text(how)
    process = lab.process("run", "tiny.yaml", "--out", "run")
    reached = lab.folder / "reached"
    for _ in range(600):
        if reached.exists() and reached.read_text() == "1":
            time.sleep(0.2)
            return process
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("the run does not get to its second step")


def ended(process: Child) -> Said:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return Said(process.returncode, out, err)


def same_end(lab: Lab) -> None:
    """Going on gives bit for bit what never stopping gives."""
    (lab.folder / "slow").unlink()
    said = lab.run()
    assert said.code == 0, said.err
    whole = lab.hookline("run", "tiny.yaml", "--out", "whole")
    assert whole.code == 0
    assert lab.weights() == (lab.folder / "whole/phases/sft/model/model.safetensors").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_PR1_and_PR2_asked_to_stop_it_finishes_the_step_saves_and_goes_on_alike(
    slow: Lab, number: signal.Signals, code: int
) -> None:
    process = started(slow)
    process.send_signal(number)
    said = ended(process)
    assert said.code == code, said.err
    assert "stopping: this step is finished and saved first" in said.err
    assert "a second signal stops at once" in said.err
    assert "stopped after step 2 of phase 'sft', saved → run the same command to continue" in said.err
    assert [p.name for p in slow.checkpoints()] == ["sft-00000002"]
    same_end(slow)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_PR2_a_second_signal_stops_at_once_and_loses_no_save(slow: Lab, number: signal.Signals) -> None:
    said = slow.run(None, "phases.sft.save.every=1")  # warm: a complete run of the same experiment elsewhere
    assert said.code == 0
    slow.run_folder.rename(slow.folder / "elsewhere")
    (slow.folder / "reached").unlink()
    process = started(slow, "long")
    process.send_signal(number)
    time.sleep(0.7)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(number)
    said = ended(process)
    assert time.monotonic() - began < 15
    assert said.code == 128 + number, said.err
    assert "interrupted; run the same command with this run" in said.err
    lines = [line for line in said.err.splitlines() if line.strip()]
    if number == signal.SIGTERM:  # nobody sits at the keyboard: the log says where the run was
        assert lines[1] == "stopping at once, without a save; the run is here:"
        assert re.search(r'File ".*slow\.py", line \d+ in hookline_update', said.err)
    else:
        assert len(lines) == 2, said.err
    same_end(slow)


STUBBORN = """
import time
from pathlib import Path
from hookline import Component, hookimpl

class Slow(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        Path("reached").write_text(str(ctx.step))
        while ctx.step == 1:
            try:
                time.sleep(0.05)
            except BaseException:
                pass
        return (yield)
"""


def test_PR2_a_hook_that_swallows_the_interrupt_is_ended(slow: Lab) -> None:
    slow.plugin(STUBBORN, "slow.py")
    assert slow.warm
    code = "import sys; from hookline.world import signals; signals.LAST = 0.5; from hookline.cli import main; "
    command = ("-c", code + "sys.exit(main(sys.argv[1:]))", "run", "tiny.yaml", "--out", "run")
    process = slow.warm.start(*command, cwd=slow.folder)
    for _ in range(600):
        if (slow.folder / "reached").exists() and (slow.folder / "reached").read_text() == "1":
            break
        time.sleep(0.05)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
    said = ended(process)
    assert said.code == 143, said.err
    assert "the run did not stop within 0.5 s after the second signal, and is ended here:" in said.err


THREAD = """
import threading, time
from hookline import Component, hookimpl

def forever():
    time.sleep(600)

class Slow(Component):
    def setup(self, ctx):
        threading.Thread(target=forever, name="the poller").start()
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        return (yield)
"""


def test_a_thread_that_a_plugin_leaves_behind_does_not_keep_a_finished_run_alive(slow: Lab) -> None:
    slow.plugin(THREAD, "slow.py")
    assert slow.warm
    code = "import sys; from hookline.world import exits; exits.leave.__defaults__ = (0.2,); sys.argv[0] = 'hookline'; "
    command = ("-c", code + "from hookline.cli import main; sys.exit(main())", "run", "tiny.yaml", "--out", "run")
    said = ended(slow.warm.start(*command, cwd=slow.folder))
    assert said.code == 0, said.err
    assert re.search(r"note: a thread is still running and will be left: 'the poller' \(.*slow\.py:5\)\n", said.err)


@pytest.mark.parametrize(("where", "code"), [("hook", 0), ("hook", 3), ("import", 0), ("thread", 0), ("tracker", 0)])
def test_PL2_a_component_that_ends_the_process_makes_no_finished_run(slow: Lab, where: str, code: int) -> None:
    """Forked children, which end like this, may."""
    call = f"os._exit({code})"
    slow.plugin(
        f"""
import multiprocessing, os, threading
from hookline import Component, hookimpl
{call if where == "import" else ""}
class Slow(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        if os.fork() == 0:
            os._exit(0)
        os.wait()
        if ctx.step == 1 and {where == "hook"}:
            {call}
        if ctx.step == 1 and {where == "thread"}:
            threading.Thread(target=os._exit, args=({code},)).start()
        return (yield)
class Told(Component):
    name = "told"
    @hookimpl
    def hookline_row(self, row):
        if {where == "tracker"}:
            {call}
""",
        "slow.py",
    )
    said = ended(slow.process("run", "tiny.yaml", "--out", "run", "trackers=[told]"))
    assert said.code == (code or 5), said.err
    assert re.search(
        r"PluginError: os\._exit\(\d\) was called at .*(slow|threading)\.py:\d+, which ends the run", said.err
    )
    assert not (slow.folder / "run/phases").exists()


def test_PR2_an_interrupt_before_anything_runs_is_one_line(lab: Lab) -> None:
    lab.write(lab.sft())
    process = lab.process("explain", "tiny.yaml", prelude="import signal, threading, os\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it\n"
        "import hookline.loop.api as api\n"
        "def plan(*a, **m):\n    os.kill(os.getpid(), signal.SIGINT)\n    import time; time.sleep(5)\n"
        "api.plan = plan")  # fmt: skip
    said = ended(process)
    assert said.code == 130
    assert said.err == "interrupted\n"


def test_PR19_a_second_start_on_a_living_run_is_refused_and_does_it_no_harm(slow: Lab) -> None:
    process = started(slow)
    refused(slow.run(), 4, f"run is in use by process {process.pid} on", "since")
    said = ended(process)
    assert said.code == 0, said.err
    assert said.err == ""


def test_without_out_the_mend_names_the_directory(slow: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In process: the same command alone would begin a new run, so the sentence says which one this was."""
    (slow.folder / "slow").write_text("short")
    reached = slow.folder / "reached"

    def stop() -> None:
        for _ in range(600):
            if reached.exists() and reached.read_text() == "1" and callable(signal.getsignal(signal.SIGTERM)):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    said = slow.hookline("run", "tiny.yaml")
    thread.join(5)
    assert said.code == 143, said.err
    assert "this run is --out runs/tiny-0001" in said.err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL  # ours are gone with the run
    assert slow.hookline("run", "tiny.yaml", "--out", "runs/tiny-0001").code == 0
    assert not Path("runs/tiny-0002").exists()


def test_PR_a_reader_who_leaves_is_no_bug(lab: Lab) -> None:
    lab.write(lab.sft())
    process = lab.process("plugins", "list")
    process.stdout.close()
    assert process.stderr
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err


SHELL = "import os, sys; from hookline.cli import main; {prepare}; sys.exit(main(sys.argv[1:]))"
FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
ASCII = "sys.stdout = open(1, 'w', encoding='ascii', closefd=False)"


@pytest.mark.parametrize("prepare", [FULL, "sys.stdout = None", ASCII], ids=["full", "closed", "ascii"])
def test_PR12_a_run_needs_no_standard_output(lab: Lab, prepare: str) -> None:
    lab.write({**lab.sft(2), "trackers": ["console"]})
    assert lab.warm
    command = ("-c", SHELL.format(prepare=prepare), "run", "tiny.yaml", "--out", "run")
    done = lab.warm.run(*command, cwd=lab.folder)
    assert done.returncode == 0, done.stderr
    assert (lab.folder / "run/phases/sft").is_dir()
    told = "standard output cannot be written: No space left on device"
    assert done.stderr.count(told) == (1 if prepare == FULL else 0), done.stderr
    assert ("hookline 0" in done.stdout) is (prepare == ASCII)


@pytest.mark.parametrize("command", [["plugins", "list"], ["explain", "tiny.yaml", "--json"], ["--help"]])
def test_a_command_whose_answer_cannot_be_written_says_so(lab: Lab, command: list[str]) -> None:
    lab.write(lab.sft(2))
    assert lab.warm
    done = lab.warm.run("-c", SHELL.format(prepare=FULL), *command, cwd=lab.folder)
    assert (done.returncode, done.stderr) == (2, "standard output cannot be written: No space left on device\n")
