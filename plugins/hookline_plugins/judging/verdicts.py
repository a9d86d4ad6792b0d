"""What a judge's reply says: numbers for axes, or which answer is better. A reply that says neither is not a verdict."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

TIES = frozenset({"tie", "c", "equal", "both", "same"})
LAST_LINE = 2000
"""Characters of the last line that a pattern is searched in."""
BRACES = 200
"""Places where JSON may begin that are looked at, from the end."""


class Unreadable(Exception):
    """A reply without a verdict: what it lacks."""


def without_thoughts(reply: str) -> str:
    """What a reply says after its last `</think>`, and before a `<think>` that it does not close."""
    said = re.split(r"</think(?:ing)?>", reply)[-1]
    return re.split(r"<think(?:ing)?>", said)[0].strip()


def ratings(reply: str, code: str, axes: Sequence[str], low: float, high: float, pattern: str | None) -> dict[str, float]:
    """Axis → number. Raises Unreadable for a reply that lacks one, or has one outside the scale."""
    said = _values(reply, code, axes, pattern)
    found = {}
    for axis in axes:
        number = _number(said[axis])
        if number is None:
            raise Unreadable(f"the judge's '{axis}' is {json.dumps(said[axis])[:60]}, not a number")
        if not low <= number <= high:
            raise Unreadable(f"the judge's '{axis}' is {number:g}, outside the scale from {low:g} to {high:g}")
        found[axis] = number
    return found


def better(reply: str, code: str, pattern: str | None) -> str:
    """`A`, `B` or `tie`. Raises Unreadable for a reply that says none of them."""
    said = _values(reply, code, ("better",), pattern)["better"]
    word = str(said).strip().strip("[]").lower().removeprefix("answer ").strip()
    if word in ("a", "b"):
        return word.upper()
    if word in TIES:
        return "tie"
    raise Unreadable(f"the judge's verdict is {json.dumps(said)[:60]}, not A, B or tie")


def winner(said: Sequence[str]) -> tuple[float, bool]:
    """What two verdicts say of an answer that was shown first in one and second in the other: 1 if it is better, 0 if the other one
    is, ½ for a tie; and whether both say so. If they do not, it is a tie."""
    first, second = {"A": 1.0, "B": 0.0}.get(said[0], 0.5), {"A": 0.0, "B": 1.0}.get(said[1], 0.5)
    return (first, True) if first == second else (0.5, False)


def firsts(said: Sequence[str]) -> list[float]:
    """For each verdict that is not a tie, 1 if the answer that was shown first won, 0 if the other one did."""
    return [float(one == "A") for one in said if one != "tie"]


def _values(reply: str, code: str, names: Sequence[str], pattern: str | None) -> Mapping[str, Any]:
    said = without_thoughts(reply)
    if not said:
        raise Unreadable("the reply has nothing after its thoughts" if reply.strip() else "the reply is empty")
    if pattern is None:
        found = _last_object(said, code, names)
        if found is None:
            raise Unreadable(f"the reply has no verdict: {_end_of(said)}")
        return found
    line = said.splitlines()[-1][-LAST_LINE:]
    matches = list(re.finditer(pattern, line))
    if not matches:
        raise Unreadable(f"the last line of the reply does not match `pattern`: {_end_of(line)}")
    groups = matches[-1].groupdict()
    return {name: groups[name] if name in groups else matches[-1][1] for name in names}


def _last_object(said: str, code: str, names: Sequence[str]) -> Mapping[str, Any] | None:
    """The last JSON object with the question's code and all names."""
    decoder = json.JSONDecoder()
    for at in [found.start() for found in re.finditer(r"\{", said)][: -BRACES - 1 : -1]:
        try:
            value, _ = decoder.raw_decode(said, at)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and str(value.get("code")) == code and all(name in value for name in names):
            return value
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _end_of(text: str) -> str:
    text = " ".join(text.split())
    return f"'{text}'" if len(text) <= 80 else f"'…{text[-79:]}'"
