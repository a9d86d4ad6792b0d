"""What a coordinator sees: how far the work is, and who agrees with whom."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import hookline
from hookline import DataError, Store, newest
from hookline_plugins.page.contests import states

__all__ = ["Summary"]

FRESH = 5.0
"""Seconds for which a summary is shown again: it reads every event."""


class Summary:
    """The figures of one store, made at most every few seconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._made: tuple[float, tuple[int, int], dict[str, Any]] | None = None

    def now(self, people: Mapping[str, str], find: str = "") -> dict[str, Any]:
        """Counts, and what `hookline feedback` says per annotator whose name has a text in it."""
        with self._lock:
            counts = self.store.counts()
            state = counts.events, counts.newest
            if self._made is None or (self._made[1] != state and time.monotonic() - self._made[0] > FRESH):
                self._made = time.monotonic(), state, self._make()
            found = self._made[2]
        names = {**dict.fromkeys(found["annotators"], ""), **people}
        none = {"answers": 0, "skips": 0, "seconds": 0.0, "kinds": {}}
        rows = [
            {"name": name, "role": role, **none, **found["annotators"].get(name, {})}
            for name, role in sorted(names.items())
            if find.casefold() in name.casefold()
        ]
        return {
            "counts": {name: number for name, number in asdict(counts).items() if name != "newest"},
            "annotators": rows,
            "people": len(names),
            "agreement": found["agreement"],
            "contests": found["contests"],
        }

    def forget(self) -> None:
        """Make the figures anew when they are asked for again."""
        with self._lock:
            self._made = None

    def _make(self) -> dict[str, Any]:
        said = list(self.store.events())
        events = newest(said)
        given = [event for event in events if not event.decides]
        kinds: dict[str, Counter[str]] = defaultdict(Counter)
        seconds: Counter[str] = Counter()
        for event in given:
            kinds[event.annotator][event.answer.kind] += 1
            seconds[event.annotator] += event.seconds or 0.0  # type: ignore[assignment]
        about: dict[str, dict[str, Any]] = {
            name: {
                "answers": sum(count.values()) - count["skip"] - count["comment"],
                "skips": count["skip"],
                "kinds": dict(count),
                "seconds": round(seconds[name], 1),
            }
            for name, count in kinds.items()
        }
        agreement = []
        try:
            judged = hookline.annotators(events)
        except DataError:
            return {"annotators": about, "agreement": [], "contests": []}
        for one in judged.annotators:
            shares = {name: _share(getattr(one, name)) for name in ("agreement", "gold", "repeats", "first")}
            about.setdefault(one.name, {}).update(shares, verdict=one.verdict, why=one.why)
        for name, value in judged.agreement.items():
            agreement.append({"kind": name, **_alpha(value)})
        return {"annotators": about, "agreement": agreement, "contests": states(self.store, said)}


def _share(estimate: Any) -> list[float | None] | None:
    if estimate is None or estimate.value != estimate.value:
        return None
    return [round(estimate.value, 3), *(None if end != end else round(end, 3) for end in (estimate.low, estimate.high))]


def _alpha(value: Any) -> dict[str, Any]:
    return {"alpha": _end(value, "value"), "low": _end(value, "low"), "high": _end(value, "high")}


def _end(value: Any, name: str) -> float | None:
    end = getattr(value, name, None)
    return None if end is None or end != end else round(end, 3)
