"""Rounds: phases that run in turn several times. `repeat: 3` over `phases: […]` is nine phases, called NAME@ROUND.

Unrolling happens in the values of the file, before they are validated, so that all later code (the plan, a run,
trackers, comparisons) sees only phases. The document keeps the place of each unrolled phase in the file.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline.config.yaml import Document, Place
from hookline.errors import shorten

__all__ = ["every", "latest", "unroll"]

MOST_ROUNDS = 1000
OWN = ("repeat", "phases")


def base(name: str) -> str:
    """The name of a phase in the file: `rl` for `rl@2`."""
    return name.partition("@")[0]


def latest(name: str, before: Sequence[str]) -> str | None:
    """The one of the phases `before` that a name means where weights are needed: that phase, or its latest round."""
    return next((other for other in reversed(before) if name in (other, base(other))), None)


def every(name: str, before: Sequence[str]) -> tuple[str, ...]:
    """Those of the phases `before` that a name means where data is needed: that phase, or all of its rounds so far."""
    return tuple(other for other in before if name in (other, base(other)))


def unroll(document: Document) -> None:
    """Replace every `repeat` among the phases by its rounds; a wrong `repeat` adds to the document's problems."""
    phases = document.values.get("phases")
    if not isinstance(phases, list) or document.moved:
        return
    flat: list[Any] = []
    names: list[str] = []
    for place, phase, number in _placed(document, phases):
        if isinstance(phase, dict):
            phase = _settled(document, place, phase, number, names)
            names.append(str(phase.get("name")))
        document.moved["phases", len(flat)] = place
        flat.append(phase)
    document.values["phases"] = flat


def _placed(document: Document, phases: Sequence[Any]) -> Iterator[tuple[Place, Any, int]]:
    """(place in the file, phase, round) in the order in which phases run; round 0: the phase is not repeated."""
    for i, item in enumerate(phases):
        if not isinstance(item, Mapping) or "repeat" not in item:
            yield ("phases", i), item, 0
            continue
        inner = item.get("phases")
        problem = _problem(item)
        if problem:
            document.problems.append(document.where(("phases", i, "repeat")) + problem)
        rounds = 1 if problem else item["repeat"]
        for number in range(1, rounds + 1):
            for j, phase in enumerate(inner if isinstance(inner, list) else []):
                yield ("phases", i, "phases", j), phase, number


def _problem(item: Mapping[str, Any]) -> str:
    """What is wrong with a `repeat`; empty if nothing is."""
    times, inner = item["repeat"], item.get("phases")
    other = next((key for key in item if key not in OWN), None)
    if type(times) is not int or not 1 <= times <= MOST_ROUNDS:
        return f"repeat is {shorten(repr(times))}; it must be a whole number of rounds, from 1 to {MOST_ROUNDS}"
    if other is not None:
        return f"repeat has no option '{shorten(other)}'; it has: phases"
    if not isinstance(inner, list) or not inner:
        return f"repeat must have a list of phases, not {shorten(repr(inner))}"
    if any(isinstance(phase, Mapping) and "repeat" in phase for phase in inner):
        return "repeat is inside another repeat; rounds cannot be nested"
    return ""


def _settled(
    document: Document, place: Place, phase: Mapping[str, Any], number: int, before: Sequence[str]
) -> dict[str, Any]:
    """A phase with its name in this round, and with the earlier phase that `model.from` means in this round."""
    made = copy.deepcopy(dict(phase))
    if number and isinstance(made.get("name"), str):
        made["name"] = f"{made['name']}@{number}"
    model = made.get("model")
    if not isinstance(model, dict):
        return made
    first = model.pop("first", None)
    if first is not None and not number:
        at = document.where((*place, "model", "first"))
        document.problems.append(
            f"{at}model.first says where round 1 starts from, but the phase is not inside a `repeat`; use model.from alone"
        )
    start = model.get("from")
    found = latest(start, before) if isinstance(start, str) else None
    if first is not None and found is None and number == 1:
        found = latest(first, before) if isinstance(first, str) else None
        model["from"] = found or first
    elif found:
        model["from"] = found
    return made
