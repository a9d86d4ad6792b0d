"""Stop signals: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stopping", "stop_signals"]


class Stopping:
    """Whether the run was asked to stop, and the exit code in that case (0 if not)."""

    code = 0
    in_step = False
    """Whether a step is running; it is finished and saved before the run stops."""


ONE_REQUEST = 0.5
"""Seconds within which two SIGTERM count as one: `timeout` sends the signal to a process and to its group."""


@contextmanager
def stop_signals() -> Iterator[Stopping]:
    """The first SIGTERM or SIGINT lets the step finish and save; a second one interrupts at once, even a wait."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    asked = 0.0

    def ask_to_stop(number: int, frame: Any) -> None:
        nonlocal asked
        now = time.monotonic()
        if stopping.code and number == signal.SIGTERM and now - asked < ONE_REQUEST:
            return
        if stopping.code:
            raise KeyboardInterrupt
        stopping.code, asked = 128 + number, now
        when = "this step is" if stopping.in_step else "as soon as the next step is"
        first = " first" if stopping.in_step else ""
        os.write(2, f"\nstopping: {when} finished and saved{first}; a second signal stops at once\n".encode())

    old = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
