"""What a function of the user's returned, as numbers: one per answer, or None for an answer that was not judged.

Nothing here imports torch or numpy, since a process that judges may need neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline_plugins.rewards.frameworks import graded

SCORES = ("score", "reward", "rewards", "scores")
"""The keys of a dict that hold the reward; the first that is there counts."""


class Wrong(Exception):
    """A returned value that is not a reward: what it is, and for which answer of the call, if that is known."""

    def __init__(self, what: str, row: int | None = None, finite: bool = True) -> None:
        super().__init__(what)
        self.what, self.row, self.finite = what, row, finite

    def __reduce__(self) -> Any:
        return Wrong, (self.what, self.row, self.finite)


@dataclass
class Verdict:
    """The rewards of one call, and further figures by name, each a list of numbers."""

    values: list[float | None]
    figures: dict[str, list[float]] = field(default_factory=dict)
    missed: str = ""
    """Why none of the answers was judged, if the call did not end: a timeout, or a process that died."""

    def add(self, name: str, values: Iterable[Any]) -> None:
        """Add to a figure; what is not a finite number is left out."""
        for value in values:
            try:
                one = number(value)
            except Wrong:
                continue
            if one is not None:
                self.figures.setdefault(str(name), []).append(one)


def of_row(returned: Any) -> Verdict:
    """A number; a tuple whose first item is one; a dict with `score` or `reward`, whose other numbers are figures; an
    object with `score`; or a `Score` of inspect_ai, with `value`."""
    returned = graded(returned)
    if isinstance(returned, tuple) and returned:
        returned = returned[0]
    if isinstance(returned, Mapping):
        key = next((key for key in SCORES if key in returned), None)
        if key is None:
            raise Wrong(f"a dict without `score` (it has {_keys(returned)})")
        verdict = Verdict([number(_only(returned[key]))])
        _further(verdict, returned, key, 1)
        return verdict
    score = getattr(returned, "score", None)
    return Verdict([number(returned if score is None or callable(score) else score)])


def of_batch(returned: Any, count: int) -> Verdict:
    """One number for each of `count` answers, as a list or a tensor [B]; or a dict with `rewards`, whose others are figures."""
    if isinstance(returned, Mapping):
        key = next((key for key in ("rewards", "reward", "scores", "score") if key in returned), None)
        if key is None:
            raise Wrong(f"a dict without `rewards` (it has {_keys(returned)})")
        verdict = of_batch(returned[key], count)
        _further(verdict, returned, key, count)
        return verdict
    items = _items(returned)
    if items is None:
        if count == 1 and not isinstance(returned, str | bytes) and returned is not None:
            items = [returned]
        else:
            raise Wrong(f"{described(returned)} instead of a list of {count} rewards")
    if len(items) != count:
        raise Wrong(f"{len(items)} rewards for {count} answers")
    verdict = Verdict([])
    for row, item in enumerate(items):
        try:
            one = of_row(_only(item))
        except Wrong as err:
            raise Wrong(err.what, row, err.finite) from None
        verdict.values += one.values
        for name, values in one.figures.items():
            verdict.figures.setdefault(name, []).extend(values)
    return verdict


def number(value: Any) -> float | None:
    """A number as float; None stays None. Raises Wrong for anything else, and for one that is not finite."""
    if value is None:
        return None
    if isinstance(value, str | bytes | Mapping | list | tuple | set):
        raise Wrong(described(value))
    try:
        one = float(value.item() if hasattr(value, "item") else value)
    except Exception:
        raise Wrong(described(value)) from None
    if not math.isfinite(one):
        raise Wrong(str(one), finite=False)
    return one


def described(value: Any) -> str:
    """What a value is, in a sentence."""
    if isinstance(value, str):
        shown = value if len(value) <= 40 else f"{value[:39]}…"
        return f"the text {shown!r}"
    if value is None:
        return "nothing"
    shape = getattr(value, "shape", None)
    name = type(value).__name__
    if shape is not None and len(tuple(shape)):
        return f"{name} {list(shape)}"
    if isinstance(value, Sequence):
        return f"a {name} of {len(value)}"
    return f"{'an' if name[:1].lower() in 'aeio' else 'a'} {name}"


def _items(value: Any) -> list[Any] | None:
    """The items of a list, or of a tensor or array [B] or [B, 1]; None for anything else."""
    if isinstance(value, list | tuple):
        return list(value)
    shape = getattr(value, "shape", None)
    if shape is None or not hasattr(value, "tolist"):
        return None
    size = tuple(shape)
    if len(size) == 1 or (len(size) == 2 and size[1] == 1):
        return list(value.reshape(-1).tolist())
    return None


def _only(value: Any) -> Any:
    """The item of a list or tensor with one."""
    items = None if isinstance(value, tuple) else _items(value)
    return items[0] if items is not None and len(items) == 1 else value


def _further(verdict: Verdict, returned: Mapping[Any, Any], reward: str, count: int) -> None:
    """The numbers of a dict beside its reward, also those of dicts within it, such as OpenRLHF's `extra_logs`."""
    for key, value in returned.items():
        if key == reward:
            continue
        if isinstance(value, Mapping):
            _further(verdict, value, "", count)
            continue
        items = _items(value)
        verdict.add(key, [value] if items is None else items)


def _keys(value: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(value)[:6])) or "nothing"
