"""The Python functions where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import json
import signal
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
