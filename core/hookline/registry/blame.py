"""Which component caused an error: an error that a component raises gets the component's name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hookline.errors import HooklineError, PluginError, cause
from hookline.registry.slot import Slot

__all__ = ["blame", "changed", "doing"]

_open: list[blame] = []
"""The blocks that run now, the innermost last."""


changed: list[Callable[[], None]] = []
"""Functions to call when a block begins."""


def doing() -> str:
    """The method of a component that runs now, for messages; `the core` outside of components."""
    return f"{_open[-1].what} of {_open[-1].slot.instance}" if _open else "the core"


class blame:
    """Adds a component's name to its errors: in front of a HooklineError; any other one becomes a PluginError's cause."""

    def __init__(self, slot: Slot, what: str, *, late: bool = False) -> None:
        """what: the method that runs inside the block, for the message. late: the block awaits, so Python may close it."""
        self.slot, self.what, self.late = slot, what, late

    def __enter__(self) -> None:
        _open.append(self)
        for tell in changed:
            tell()

    def __exit__(self, kind: Any, err: BaseException | None, trace: Any) -> None:
        _open.remove(self)
        if err is None or isinstance(err, KeyboardInterrupt) or _cancelled(err):
            return
        if self.late and isinstance(err, GeneratorExit):
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
    """Whether other code cancelled the task, e.g. after a timeout; a component may raise CancelledError by itself."""
    if not isinstance(err, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return False
    return task is not None and task.cancelling() > 0
