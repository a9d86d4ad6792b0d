"""Stop signals: the step is finished and saved first; a second signal stops at once, with the last save as it is."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stopping", "interrupted_by", "stop_signals"]


class Stopping:
    """Whether the run was asked to stop, and the exit code in that case (0 if not)."""

    code = 0
    in_step = False
    """Whether a step is running; it is finished and saved before the run stops."""
    pausing = 0
    """How many components only wait for somebody; the step then ends without being finished."""


ONE_REQUEST = 0.5
"""Seconds within which two SIGTERM count as one: `timeout` sends the signal to a process and to its group."""
LAST = 10.0
"""Seconds after a second signal in which the hook has to end; then the process is ended."""


interrupted_by = [int(signal.SIGINT)]
"""The signal behind the last KeyboardInterrupt, for the exit code: the libraries in between keep only the exception."""
beside: dict[int, Stopping] = {}
"""Thread → the run in it, where a run is not in the main thread, which alone receives signals."""
_exit = os._exit
"""Ends the process; `exits.guarded` replaces the name in `os` for components."""


def _end(code: int) -> None:
    os.write(2, f"the run did not stop within {LAST:g} s after the second signal, and is ended here:\n".encode())
    faulthandler.dump_traceback(2, all_threads=True)
    _exit(code)


@contextmanager
def stop_signals(says: bool = True) -> Iterator[Stopping]:
    """The first SIGTERM or SIGINT lets the step finish and save; a second one interrupts at once, even a wait.

    A second SIGTERM prints where the run is. Code that does not let itself be interrupted is ended after ten seconds.
    says: whether this process tells the user that it was asked to stop.
    """
    stopping = Stopping()
    interrupted_by[0] = int(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        beside[threading.get_ident()] = stopping
        try:
            yield stopping
        finally:
            del beside[threading.get_ident()]
        return

    asked = 0.0
    last: threading.Timer | None = None

    def ask_to_stop(number: int, frame: Any) -> None:
        nonlocal asked, last
        now = time.monotonic()
        if stopping.code and number == signal.SIGTERM and now - asked < ONE_REQUEST:
            return
        if stopping.code:
            if number == signal.SIGTERM:
                os.write(2, b"\nstopping at once, without a save; the run is here:\n")
                faulthandler.dump_traceback(2, all_threads=False)
            last = threading.Timer(LAST, _end, (stopping.code,))
            last.daemon = True
            last.start()
            interrupted_by[0] = number
            raise KeyboardInterrupt
        stopping.code, asked = 128 + number, now
        when = "this step is" if stopping.in_step else "as soon as the next step is"
        first = " first" if stopping.in_step else ""
        if says and not stopping.pausing:
            os.write(2, f"\nstopping: {when} finished and saved{first}; a second signal stops at once\n".encode())

    old = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        if last:
            last.cancel()
        for number, handler in old.items():
            signal.signal(number, handler)
