"""What requests ask of the store, in turns: all that came while one turn was written is done in the next, and written once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hookline import Store

__all__ = ["Turns"]

MOST = 64
"""Calls in one turn: an answer waits for those before it."""


class Turns:
    """One thread for the calls of one event loop, so that requests do not wait for one another's threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Call] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turns")
        self._turning: asyncio.Task[None] | None = None

    async def take(self, call: Callable[[], Any], undo: Callable[[], None]) -> Any:
        """Make a call in the next turn; its result comes when everything that it stored is on the disk.

        undo: called, before the turn's error is raised, if the turn could not be written, although the call may have succeeded.
        """
        made = _Call(call, undo, asyncio.get_running_loop().create_future())
        self._waiting.append(made)
        if self._turning is None:
            self._turning = asyncio.create_task(self._turn())
        return await made.future

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                turn, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                try:
                    work = loop.run_in_executor(self._thread, self._store.together, [made.call for made in turn])
                    results: list[Any] = await work
                except Exception as err:
                    for made in turn:
                        made.undo()
                    results = [err] * len(turn)
                for made, result in zip(turn, results):
                    if made.future.done():  # the client went away
                        continue
                    if isinstance(result, Exception):
                        made.future.set_exception(result)
                    else:
                        made.future.set_result(result)
        finally:
            self._turning = None


@dataclass(frozen=True)
class _Call:
    call: Callable[[], Any]
    undo: Callable[[], None]
    future: asyncio.Future[Any]
