"""The process in which tools are called: a fresh interpreter that knows only the user's file. It imports nothing of Hookline.

One JSON line comes in for each call, and one goes out. What a tool prints is dropped, and its result is cut to `output`
characters. A tool cannot start processes unless it is allowed to; memory is limited by the system.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import random
import sys
import threading
import time
import traceback
from typing import Any

STARTS = (
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.exec",
    "os.spawn",
    "os.system",
    "subprocess.Popen",
    "pty.spawn",
)


def serve() -> None:
    """Answer calls until the run closes the pipe, or is gone."""
    out, source = os.dup(1), os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    about = json.loads(source.readline())
    _end_with_parent()
    sys.path[:] = about["paths"]
    try:
        _limit(about)
        module = _module(about["path"])
        answer: dict[str, Any] = {"value": "ready"}
    except BaseException as err:
        module, answer = None, {"error": _said(err, about["path"])}
    _write(out, answer)
    while module is not None and (line := source.readline()):
        call = json.loads(line)
        try:
            random.seed(call["seed"])
            if "numpy" in sys.modules:
                sys.modules["numpy"].random.seed(call["seed"] % 2**32)
            found = module
            for part in call["name"].split("."):
                found = getattr(found, part)
            value = found(**call["arguments"])
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            answer = {"value": value if call["raw"] else _text(value, about["output"])}
            _write(out, answer)
        except BaseException as err:
            _write(out, {"error": _said(err, about["path"])[: about["output"]], "hint": type(err).__name__})


async def _awaited(value: Any) -> Any:
    return await value


def _module(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("hookline_tools", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["hookline_tools"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _limit(about: dict[str, Any]) -> None:
    if about["memory"]:
        import resource

        limit = int(about["memory"] * (1 << 30))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    if not about["processes"]:

        def refuse(event: str, arguments: Any) -> None:
            if event in STARTS:
                raise PermissionError("a tool cannot start a process (processes: true allows it)")

        sys.addaudithook(refuse)


def _text(value: Any, most: int) -> str:
    text = value if isinstance(value, str) else _shown(value)
    return text if len(text) <= most else f"{text[:most]} […{len(text) - most} more characters]"


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _said(err: BaseException, path: str) -> str:
    text = f"{type(err).__name__}: {err}".removesuffix(": ")
    own = [one for one in traceback.extract_tb(err.__traceback__) if one.filename == path]
    return f"{text} (line {own[-1].lineno})" if own else text


def _write(handle: int, answer: dict[str, Any]) -> None:
    try:
        line = json.dumps(answer)
    except (TypeError, ValueError):
        line = json.dumps({"error": "it returns something that is not JSON"})
    view = memoryview(line.encode() + b"\n")
    while view:
        view = view[os.write(handle, view) :]


def _end_with_parent() -> None:
    """End when the run is gone, also in the middle of a call."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    serve()
