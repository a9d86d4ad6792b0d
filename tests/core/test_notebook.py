"""The Python functions where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import CheckpointError, ExperimentError
from hookline.cli import main
from hookline.world.notebook import beside_event_loops


def test_run_evaluate_export_and_reproduce_where_a_loop_runs(
    tiny: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny(evaluate={"rows": 4, "reward": ["keyword-coverage", "length"]})

    async def notebook() -> Any:
        run = hookline.run(experiment, out=tmp_path / "run")
        return hookline.evaluate(run), hookline.export(run, tmp_path / "model"), hookline.reproduce(run)

    figures, folder, again = asyncio.run(notebook())
    assert folder == tmp_path / "model"
    assert again["equal"]
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == figures


def test_errors_of_evaluate_and_export(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    run = hookline.run(tiny(), out=tmp_path / "run")
    with pytest.raises(ExperimentError, match="phase 'rl' has no evaluation"):
        hookline.evaluate(run)
    with pytest.raises(ExperimentError, match="rows is 0; an evaluation needs at least 1"):
        hookline.evaluate(run, rows=0)
    with pytest.raises(CheckpointError, match="is not a run directory"):
        hookline.evaluate(tmp_path)
    with pytest.raises(ExperimentError, match="there is no phase 'lr'"):
        hookline.export(run, tmp_path / "model", "lr")
    with pytest.raises(CheckpointError, match="phase 'rl' kept no best weights"):
        hookline.export(run, tmp_path / "model", best=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file/model cannot be written: Not a directory"):
        hookline.export(run, tmp_path / "file" / "model")


def test_an_interrupt_reaches_the_thread() -> None:
    ended: list[str] = []

    @beside_event_loops
    def work() -> None:
        assert threading.current_thread() is not threading.main_thread()
        try:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            for _ in range(2000):
                time.sleep(0.01)
        except KeyboardInterrupt:
            ended.append("interrupted")
            raise

    async def notebook() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel has it
        work()

    before = signal.getsignal(signal.SIGINT)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(notebook())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended == ["interrupted"]


EXPERIMENT = """
import re, hookline
BONUS = 0.5
WORDS = "open close read write file list value name return error".split()
def correct(completions, **others):
    return [BONUS * len(re.findall("[a-z]", text)) for text in completions]
async def late(completions):
    return correct(completions)
def experiment(reward, steps):
    rollout = hookline.use("generate", prompts=[{"prompt": word} for word in WORDS], rows=4, samples_per_prompt=2, max_new_tokens=4)
    phase = hookline.Phase(name="rl", steps=steps, rollout=rollout, reward=reward, advantage="leave-one-out", update="reinforce")
    model = {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 64}
    texts = [{"text": f"To {a} the {b}."} for a in WORDS for b in WORDS]
    return {"name": "cell", "model": model, "tokenizer": {"train": "bpe", "on": texts, "vocabulary": 300}, "phases": [phase]}
"""
Message = tuple[str, dict[str, Any]]


class Notebook:
    """A kernel of Jupyter, in a process of its own, and the messages that it sends."""

    def __init__(self, folder: Path) -> None:
        from jupyter_client.manager import KernelManager

        self.kernel = KernelManager()
        self.kernel.kernel_spec.argv[:] = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.kernel.start_kernel(cwd=str(folder), env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
        self.client = self.kernel.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def cell(self, code: str, interrupt: bool = False) -> list[Message]:
        asked, found = self.client.execute(code), list[Message]()
        while True:
            message = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != asked:
                continue
            found.append((message["msg_type"], message["content"]))
            if interrupt and found[-1][0] == "update_display_data":
                self.kernel.interrupt_kernel()
                interrupt = False
            if found[-1][0] == "status" and found[-1][1]["execution_state"] == "idle":
                return found

    def close(self) -> None:
        self.client.stop_channels()
        self.kernel.shutdown_kernel(now=True)


def shown(messages: list[Message], kind: str, form: str = "text/html") -> list[str]:
    return [content["data"][form] for what, content in messages if what == kind]


@pytest.mark.slow(40)
def test_a_real_kernel(tmp_path: Path) -> None:
    notebook = Notebook(tmp_path)
    try:
        notebook.cell(EXPERIMENT)
        messages = notebook.cell("hookline.run(experiment([correct], 3), out='first')")
        assert len(shown(messages, "display_data")) == 1  # one block, which is updated
        assert "finished in" in shown(messages, "update_display_data")[-1]
        assert "<table>" in shown(messages, "execute_result")[0]

        wrong = [content for kind, content in notebook.cell("hookline.run({'name': 3})") if kind == "error"][0]
        assert wrong["traceback"][0].startswith("ExperimentError: ")
        assert not any("api.py" in line for line in wrong["traceback"])

        again = notebook.cell("hookline.run(experiment(late, 2), out='second').rows()[-1]['step']")
        assert shown(again, "execute_result", "text/plain") == ["2"]

        stopped = notebook.cell("hookline.run(experiment(correct, 3000), out='third')", interrupt=True)
        assert [content["ename"] for kind, content in stopped if kind == "error"] == ["Stopped"]
        step = hookline.Run.read(tmp_path / "third").rows()[-1]["step"]
        assert (tmp_path / "third" / "checkpoints" / f"rl-{step:08d}").is_dir()
        alive = notebook.cell("hookline.Run.read('third').rows()[-1]['step']")
        assert shown(alive, "execute_result", "text/plain") == [str(step)]
    finally:
        notebook.close()
