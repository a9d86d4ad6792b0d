"""Waiting for answers from outside, with one notice if an answer takes long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

from hookline.errors import PluginError

__all__ = ["Late", "told_when_late"]

Answer = TypeVar("Answer")
SECONDS = 30.0
"""Seconds after which a notice names the component that has not answered."""
GRACE = 0.1
"""Further seconds in which the loop still accepts answers that arrived while it was busy."""


async def told_when_late(
    coroutine: Coroutine[Any, Any, Answer], who: str, notice: Callable[[str], None], told: set[str]
) -> Answer:
    """Await a coroutine; if it takes long, call `notice`, once per `who`. Time of a busy loop does not count."""
    loop = asyncio.get_running_loop()

    def say() -> None:
        if who not in told:
            told.add(who)
            notice(f"{who} has not answered for {SECONDS:g} s; to stop the run at once, send a signal twice")

    def look() -> None:
        handles[0] = loop.call_later(GRACE, say)

    handles = [loop.call_later(SECONDS, look)]
    try:
        return await coroutine
    finally:
        handles[0].cancel()


class Late(Coroutine[Any, Any, Any]):
    """A coroutine that raises a PluginError, with a hint to await it, when it is used as a number or in a condition."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], what: str) -> None:
        self._coroutine, self._what = coroutine, what

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def _refuse(self, *others: object) -> NoReturn:
        self.close()
        raise PluginError(f"{self._what} returns an awaitable, which was used as if it were the answer", "await it")

    __bool__ = __float__ = __int__ = __index__ = __iter__ = __len__ = __getitem__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = _refuse
