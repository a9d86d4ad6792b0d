"""A warm parent: imports once, forks a child per run, and lets a child kill itself at the n-th call of a function.

Started by test_resume.py as a process of its own with one thread, since forking under OpenMP threads is not safe.
Reads one JSON request per line, answers one JSON line each.
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

import torch

torch.set_num_threads(1)

POINTS = {
    "rollout": "hookline.inference.local.choose",
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


def _child(request: dict[str, Any]) -> None:
    import hookline

    counts: Counter[str] = Counter()
    _instrument(tuple(request["kill"]) if request.get("kill") else None, counts)
    hookline.run(request["experiment"], out=request["out"])
    Path(request["out"]).with_suffix(".counts").write_text(json.dumps(counts))


def main() -> None:
    import transformers.models.gpt2.modeling_gpt2  # warm

    import hookline.loop.api
    import hookline.loop.loop  # noqa: F401

    assert transformers
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        log = Path(request["out"]).with_suffix(".log")
        child = os.fork()
        if child == 0:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            code = 1
            try:
                _child(request)
                code = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        counts = Path(request["out"]).with_suffix(".counts")
        answer = {
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "counts": json.loads(counts.read_text()) if counts.exists() else {},
            "log": log.read_text()[-2000:] if log.exists() else "",
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
