"""Stop signals: the step is finished and saved first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Stopping", "stop_signals"]


class Stopping:
    """Whether the run was asked to stop, and the exit code for that."""

    code = 0


@contextmanager
def stop_signals() -> Iterator[Stopping]:
    """SIGTERM and the first SIGINT let the step finish and save; a second SIGINT interrupts at once."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def ask_to_stop(number: int, frame: Any) -> None:
        if number == signal.SIGINT and stopping.code:
            raise KeyboardInterrupt
        stopping.code = 128 + number
        again = "; press Ctrl-C again to stop at once" if number == signal.SIGINT else ""
        os.write(2, f"\nstopping: this step is finished and saved first{again}\n".encode())

    old = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopping
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
