"""A run that kills itself at the n-th call of a function: a program for the fixture `warm`, used by test_resume.py.

Reads one JSON request from standard input: the experiment, where it goes, and where to kill it, if anywhere. Writes how
often each function was called to OUT.counts.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

POINTS = {
    "rollout": "hookline.inference.decode.draw_token",
    "epoch": "hookline.training.trainer.Trainer._step",
    "step": "hookline.loop.loop.PhaseLoop.step",
    "row": "hookline.runs.run.Run.commit_row",
    "evaluation": "hookline.loop.evaluation.Evaluator.run",
    "collect": "hookline.runs.run.Run.collect",
    "save": "hookline.storage.trees.save_tree",
    "sync": "hookline.storage.folders._sync",
    "rename": "pathlib.Path.rename",
    "phase": "hookline.loop.checkpoint.Checkpoint.finish",
    "cut": "hookline.runs.run.Run.cut_back",
}


def _resolve(dotted: str) -> tuple[Any, str]:
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:-1]:
            owner = getattr(owner, part)
        return owner, parts[-1]
    raise LookupError(dotted)


def _instrument(kill: tuple[str, int, str] | None, counts: Counter[str]) -> None:
    for point, dotted in POINTS.items():
        owner, name = _resolve(dotted)
        original = getattr(owner, name)

        def counted(*args: Any, _original: Any = original, _point: str = point, **kwargs: Any) -> Any:
            counts[_point] += 1
            due = kill is not None and kill[0] == _point and counts[_point] == kill[1]
            if due and kill[2] == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            answer = _original(*args, **kwargs)
            if due:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(owner, name, functools.wraps(original)(counted))


def main() -> None:
    import hookline

    request = json.load(sys.stdin)
    counts: Counter[str] = Counter()
    _instrument(tuple(request["kill"]) if request["kill"] else None, counts)
    hookline.run(request["experiment"], out=request["out"])
    rank = os.environ.get("RANK", "0")
    Path(request["out"]).with_suffix(".counts" if rank == "0" else f".counts-{rank}").write_text(json.dumps(counts))


if __name__ == "__main__":
    main()
