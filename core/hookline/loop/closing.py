"""The end of a component's life: closed in reverse order, whatever happened, in a bounded time."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hookline.registry.slot import Slot

__all__ = ["close_all"]

SECONDS = 10.0
"""How long all components of a phase have together."""


def close_all(slots: Sequence[Slot], answers: asyncio.Runner, notice: Callable[[str], None]) -> None:
    """Close components, the last one set up first.

    Nothing that happens in one close stops the others or hides the error that ended the phase: it becomes a notice. Each
    has half of the time that is left, the last one all of it. A close that blocks is interrupted on the main thread only,
    where Python delivers signals; elsewhere it is waited for.
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
            all_have = f"{SECONDS:g} s that all components of a phase have together"
            notice(
                f"{slot.offer} was not closed: its close() took longer than {seconds:.2g} s, its part of the {all_have}"
            )
        except (Exception, SystemExit) as err:
            notice(f"{slot.offer} failed to close: {type(err).__name__}: {err}")


class _TooLong(BaseException):
    """Raised inside a close whose time is over; no `except Exception` there catches it."""


async def _waited(answer: Any, seconds: float) -> None:
    await asyncio.wait_for(answer, seconds)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Interrupt what runs within after so many seconds."""
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
