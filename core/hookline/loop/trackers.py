"""Calls to trackers, which the loop makes at each event of a run."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from hookline.contract.component import Component
from hookline.errors import cause
from hookline.registry.slot import Slot
from hookline.runs.run import Run

__all__ = ["Trackers"]


class Trackers:
    """The trackers that an experiment names. One that fails is reported once and no longer called; the run continues."""

    def __init__(self, run: Run, slots: Sequence[Slot]) -> None:
        self.run = run
        self.slots = tuple(slots)
        self._failed: set[str] = set()

    def __getitem__(self, instance: str) -> Component:
        return next(slot.component for slot in self.slots if slot.instance == instance)

    def tell(self, what: str, **about: Any) -> None:
        """Call `hookline_WHAT` of each, in the experiment's order; `tryfirst` ones come first, `trylast` ones last."""

        def turn(slot: Slot) -> int:
            options = getattr(getattr(slot.component, f"hookline_{what}", None), "hookline_impl", {})
            return bool(options.get("trylast")) - bool(options.get("tryfirst"))

        for slot in sorted(self.slots, key=turn):
            method: Callable[..., Any] | None = getattr(slot.component, f"hookline_{what}", None)
            if method is None or slot.instance in self._failed:
                continue
            given = {
                "run": self.run,
                **copy.deepcopy(about),
            }  # a tracker that changes its row changes no other tracker's
            try:
                method(**{key: given[key] for key in inspect.signature(method).parameters})
            except (Exception, SystemExit) as err:
                self._failed.add(slot.instance)
                self.run.notice(
                    f"tracker '{slot.instance}' failed and is no longer called: {cause(err)}"
                )
