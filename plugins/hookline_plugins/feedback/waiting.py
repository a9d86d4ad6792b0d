"""What sources of feedback have in common: different answers to a prompt, times with a unit, and what earlier rounds have kept."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from hookline import Comment, Context, DataError, Event, Rollout, Skip

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: float | str) -> float:
    """A time in seconds: a number, or text with a unit."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", str(value))
    if found is None:
        raise ValueError(f"'{value}' is not a time; write e.g. 90s, 30m, 8h or 2d")
    return float(found[1]) * UNITS[found[2] or "s"]


def _a_time(value: float | str) -> float | str:
    seconds(value)
    return value


Time = Annotated[float | str, AfterValidator(_a_time)]
"""Seconds, or text with a unit: `90s`, `30m`, `8h`, `2d`."""


def different(rollout: Rollout) -> list[list[int]]:
    """For each prompt, the rows whose answers differ, each answer once."""
    groups: dict[int, dict[tuple[int, ...], int]] = {}
    for row, group in enumerate(rollout.group_B.tolist()):
        groups.setdefault(group, {}).setdefault(tuple(rollout.response_ids(row)), row)
    return [list(rows.values()) for rows in groups.values()]


def counts(event: Event) -> bool:
    """Whether an event is an answer that a phase waits for."""
    return not isinstance(event.answer, Skip | Comment) and not event.repeats and not event.decides


def known(ctx: Context) -> set[str]:
    """The ids of events that earlier rounds of the phase have kept."""
    if round_of(ctx.phase) == 1:
        return set()
    try:
        return {str(record.get("id")) for record in ctx.collected(name_of(ctx.phase)).records}
    except DataError:  # nobody has answered yet
        return set()


def name_of(phase: str) -> str:
    return phase.partition("@")[0]


def round_of(phase: str) -> int:
    return int(phase.partition("@")[2] or 1)
