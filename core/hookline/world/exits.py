"""A run ends in its own way: a component that ends the process makes no run look finished."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

__all__ = ["guarded", "leave"]

at_once = [False]
"""Whether the process has to end without tidying up: other ranks, which torch would wait for, may be gone."""
CODE = 5
"""The exit code of a run that a component ended: that of PluginError."""


@contextmanager
def guarded() -> Iterator[None]:
    """Within the block, `os._exit` names its caller and does not report success. Forked children may call it as always."""
    real, owner = os._exit, os.getpid()

    def ended(status: int) -> NoReturn:
        if os.getpid() == owner:
            frame = sys._getframe(1)
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            told = f"PluginError: os._exit({status}) was called at {where}, which ends the run where it is → raise an exception"
            _say(told + " instead; the same command continues from the newest save")
            real(status or CODE)
        real(status)

    os._exit = ended
    try:
        yield
    finally:
        os._exit = real


def leave(code: int, wait: float = 5.0) -> None:
    """End this process with `code` although threads of plugins are still running; return if there are none.

    Python would wait for them for ever. wait: seconds that they have to end by themselves.
    """
    if at_once[0]:
        _say("")
        os._exit(code)
    until = time.monotonic() + wait
    for thread in _others():
        thread.join(max(0.0, until - time.monotonic()))
    if not (left := _others()):
        return
    names = ", ".join(f"'{thread.name}'{_begun_by(thread)}" for thread in left)
    _say(f"note: {'a thread is' if len(left) == 1 else 'threads are'} still running and will be left: {names}")
    os._exit(code)


def _others() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]


def _begun_by(thread: threading.Thread) -> str:
    """Where a thread's code is, e.g. ` (of mine.py)`; empty if that is not known."""
    target: Callable[..., Any] | None = getattr(thread, "_target", None)
    code = getattr(target, "__code__", None)
    return f" ({code.co_filename}:{code.co_firstlineno})" if code else ""


def _say(line: str) -> None:
    """Flush both streams, and print a line if there is one."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue
    if not line:
        return
    try:
        os.write(2, f"{line}\n".encode())
    except OSError:
        return
