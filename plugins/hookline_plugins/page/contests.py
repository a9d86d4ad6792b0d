"""What the coordinator's page says of a contest: the figures of `hookline contest`, in short."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import hookline
from hookline import DataError, Event, Store

__all__ = ["states"]


def states(store: Store, events: Iterable[Event]) -> list[dict[str, Any]]:
    """One line for everybody who judged a contest: who, what, the figure with its interval, and whether to stop. Empty without one.

    events: all of the store.
    """
    try:
        found = hookline.contests(store.items(), events)
    except DataError:  # not a contest, or fewer than two answers
        return []
    return [line for contest in found for line in _lines(contest)]


def _lines(contest: Any) -> list[dict[str, Any]]:
    who = {"other": contest.other, "baseline": contest.baseline, "asked": contest.asked}
    return [
        *(
            {**who, "by": one.by, "axis": "", "prompts": one.prompts, **_ends(one.rate), "state": one.state}
            for one in contest.preferred
        ),
        *(
            {**who, "by": one.by, "axis": one.axis, "prompts": one.prompts, **_ends(one.difference), "state": one.state}
            for one in contest.marked
        ),
    ]


def _ends(found: Any) -> dict[str, float | None]:
    ends = {name: getattr(found, name) for name in ("value", "low", "high")}
    return {name: None if end != end else round(end, 3) for name, end in ends.items()}
