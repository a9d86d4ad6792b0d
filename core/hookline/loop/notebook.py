"""Running where an event loop runs already, as in a notebook."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ["beside_event_loops"]

P = ParamSpec("P")
Answer = TypeVar("Answer")


def beside_event_loops(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """Let a function that has an event loop of its own be called where one runs: it then works in a thread of its own.

    An interrupt reaches the function as KeyboardInterrupt, as it does without the thread.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function(*args, **kwargs)
        context, numbers = contextvars.copy_context(), []

        def work() -> Answer:
            numbers.append(threading.get_ident())
            return context.run(function, *args, **kwargs)

        with ThreadPoolExecutor(1, "hookline") as worker:
            answer = worker.submit(work)
            try:
                return answer.result()
            except KeyboardInterrupt:
                for number in numbers if not answer.done() else ():
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(number), ctypes.py_object(KeyboardInterrupt)
                    )
                raise

    return call
