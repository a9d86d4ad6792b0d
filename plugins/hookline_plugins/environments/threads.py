"""Plain functions called beside the event loop, in threads that do not keep the run from ending."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["in_thread"]

Answer = TypeVar("Answer")


async def in_thread(work: Callable[[], Answer]) -> Answer:
    """The result of `work()`, called in a daemon thread. Where nobody waits any longer, the thread is left to itself."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(method: str, value: Any) -> None:
        if not future.done():
            getattr(future, method)(value)

    def run() -> None:
        try:
            found: tuple[str, Any] = ("set_result", work())
        except StopIteration as err:  # a future refuses it
            found = ("set_exception", RuntimeError(f"StopIteration: {err}"))
        except BaseException as err:
            found = ("set_exception", err)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, *found)

    threading.Thread(target=run, daemon=True, name="hookline-environment").start()
    answer: Answer = await future
    return answer
