"""Calls functions from code in which an event loop is already running, as in a notebook."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from hookline.world.signals import beside

__all__ = ["beside_event_loops"]

P = ParamSpec("P")
Answer = TypeVar("Answer")


def beside_event_loops(function: Callable[P, Answer]) -> Callable[P, Answer]:
    """Let a function that starts an event loop be called while one is running: the function then runs in a new thread.

    An interrupt lets a run finish and save its step; a second one, or one of anything else, reaches the function as
    KeyboardInterrupt, as it would without the thread.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Answer:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return function(*args, **kwargs)
        context, begun, outcome = contextvars.copy_context(), threading.Event(), Future[Answer]()

        def work() -> None:
            begun.set()
            try:
                outcome.set_result(context.run(function, *args, **kwargs))
            except BaseException as err:
                outcome.set_exception(err)

        thread = threading.Thread(target=work, name="hookline", daemon=True)
        try:
            thread.start()
            try:
                thread.join()
            except KeyboardInterrupt:
                asked = beside.get(thread.ident or 0)
                if asked is None:
                    raise
                asked.code = 128 + signal.SIGINT
                print("stopping: this step is finished and saved first; a second interrupt stops at once", file=sys.stderr)
                thread.join()
        except KeyboardInterrupt:
            if begun.wait(1.0):
                number, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(number, error)
                thread.join()
            raise
        return outcome.result()

    return call
