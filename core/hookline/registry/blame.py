"""Whose fault an error is: a component's name is put on whatever it raises."""

from __future__ import annotations

import asyncio
from typing import Any

from hookline.errors import HooklineError, PluginError, cause
from hookline.registry.slot import Slot

__all__ = ["blame"]


class blame:
    """Puts a component's name on what it raises: our own errors get it in front, others keep type and traceback."""

    def __init__(self, slot: Slot, what: str) -> None:
        """what: the method that runs within, for the sentence."""
        self.slot, self.what = slot, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, err: BaseException | None, trace: Any) -> None:
        if err is None or isinstance(err, StopIteration | KeyboardInterrupt | GeneratorExit) or _cancelled(err):
            return
        if isinstance(err, HooklineError):
            if not getattr(err, "blamed", False):
                named = err.message.startswith(str(self.slot.offer))
                err.message = err.message if named else f"{self.slot.offer}, in {self.what}: {err.message}"
                err.blamed = True  # type: ignore[attr-defined]
            return
        raised = PluginError(
            f"{self.slot.offer} failed in {self.what}: {cause(err)}", f"its source: {self.slot.source}"
        )
        raised.blamed = True  # type: ignore[attr-defined]
        raise raised from err


def _cancelled(err: BaseException) -> bool:
    """Whether somebody else cancelled the task, e.g. after its time; a component may raise CancelledError by itself."""
    if not isinstance(err, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0
