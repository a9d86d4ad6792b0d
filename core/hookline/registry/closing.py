"""Closing components: in reverse order, after success or failure, within a bounded time."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hookline.errors import cause
from hookline.registry.slot import Slot

__all__ = ["close_all"]

SECONDS = 10.0
"""Time limit for closing all components of a phase together."""


def close_all(slots: Sequence[Slot], answers: asyncio.Runner, notice: Callable[[str], None]) -> None:
    """Close components, the last one set up first.

    An error in one close becomes a notice: it does not stop the others or hide the error that ended the phase. Each
    close gets half of the remaining time, the last one all of it. A close that blocks is interrupted on the main thread
    only, where Python delivers signals; on other threads it is awaited.
    """
    ends = time.monotonic() + SECONDS
    for left, slot in zip(range(len(slots) - 1, -1, -1), reversed(slots)):
        seconds = max(0.01, ends - time.monotonic()) / (2 if left else 1)
        try:
            with _at_most(seconds):
                answer = slot.component.close()
                if inspect.isawaitable(answer):
                    answers.run(_waited(answer, 0.9 * seconds))
        except (_TooLong, TimeoutError):
            all_have = f"{SECONDS:g} s that all components of a phase share"
            notice(
                f"{slot.offer} was not closed: close() took longer than {seconds:.2g} s, its share of the {all_have}"
            )
        except (Exception, SystemExit) as err:
            notice(f"{slot.offer} failed to close: {cause(err)}")


class _TooLong(BaseException):
    """Raised inside a close that has used up its time; an `except Exception` there does not catch it."""


async def _waited(answer: Any, seconds: float) -> None:
    await asyncio.wait_for(answer, seconds)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt the block after this many seconds."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number: int, frame: Any) -> None:
        raise _TooLong

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, late)
    others, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if others:  # an alarm set by other code continues
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, others - (time.monotonic() - began)), interval)
