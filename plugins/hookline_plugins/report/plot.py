"""Plots as data: lines or rows of intervals, the round numbers beside them, and the position of everything in the drawing.

`templates/drawings.html` makes SVG of them. Lengths are in units of the drawing, which is scaled to the place it gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from hookline import Column, Table
from hookline_plugins.report.words import number

__all__ = ["WIDE", "Intervals", "Line", "Plot", "Point", "Row"]

WIDTH, WIDE = 300.0, 350.0
"""For three drawings beside one another, and for two."""
MOST_POINTS = 240
"""Points of a line that are drawn; files have all."""
MOST_TICKS = 5.5
LETTER = 6.1
"""About the width of a digit."""
MARKS = (
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "M-2.7-2.7h5.4v5.4h-5.4z",
    "M0-3.6L3.3 2.6h-6.6z",
    "M0-3.8L3.4 0 0 3.8-3.4 0z",
)
"""Outlines of points, in turn, so that lines can be told apart without colours."""


class Point(NamedTuple):
    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """Points in order; `ink` is the name of a colour of the style sheet."""

    name: str
    points: Sequence[Point]
    ink: str
    mark: str = ""
    """An outline for each point, one of MARKS."""
    dashed: bool = False
    faint: bool = False
    bars: bool = False
    """Intervals as bars at the points; else as a band."""

    @property
    def drawn(self) -> Sequence[Point]:
        every = math.ceil(len(self.points) / MOST_POINTS)
        return [*self.points[:-1:every], self.points[-1]] if every > 1 else self.points

    @property
    def known(self) -> list[Point]:
        """Points with an interval."""
        return [p for p in self.drawn if p.low is not None and p.high is not None]


class Scale:
    """From values to places between `start` and `end`, with round numbers to show beside it."""

    def __init__(
        self, values: Iterable[float], start: float, end: float, margin: float = 0.04, whole: bool = False
    ) -> None:
        known = [value for value in values if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        reach = high - low if high - low > 1e-9 * max(abs(low), abs(high)) else abs(high) or 1.0
        self.low, self.high = low - margin * reach, high + margin * reach
        if high - low < reach:
            self.low, self.high = low - reach / 2, high + reach / 2
        self.start, self.end = start, end
        whole = whole and all(float(value).is_integer() for value in known)
        rough = (self.high - self.low) / MOST_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        self.step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
        self.step = max(1.0, self.step) if whole else self.step
        first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
        self.ticks = [i * self.step for i in range(first, last + 1)]

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def shown(self, tick: float) -> str:
        """A round number as short as it can be told from its neighbours."""
        if max(map(abs, self.ticks)) >= 1e6 or self.step < 1e-5:
            return f"{tick:.3g}".replace("-", "−")
        return f"{tick:,.{max(0, -math.floor(math.log10(self.step)))}f}".replace(",", "\u202f").replace("-", "−")


@dataclass
class Plot:
    """Lines over a common axis."""

    name: str
    title: str
    x_title: str
    lines: Sequence[Line]
    axis: str = "step"
    """What the x values are called in files."""
    y_title: str = ""
    width: float = WIDTH
    height: float = 180.0

    top, bottom = 10.0, 34.0

    @cached_property
    def y(self) -> Scale:
        points = [p for line in self.lines for p in line.points]
        values = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
        return Scale(values, self.height - self.bottom, self.top + (14 if self.y_title else 0))

    @cached_property
    def x(self) -> Scale:
        widest = max((len(self.y.shown(tick)) for tick in self.y.ticks), default=1)
        values = [p.x for line in self.lines for p in line.points]
        return Scale(values, 10 + LETTER * widest, self.width - 12, margin=0.02, whole=True)

    def path(self, points: Iterable[Point]) -> str:
        return "M" + "L".join(f"{self.x(p.x):g} {self.y(p.y):g}" for p in points)

    def band(self, line: Line) -> str:
        """The outline of a line's intervals."""
        ends = [(p.x, p.high) for p in line.known] + [(p.x, p.low) for p in reversed(line.known)]
        return "M" + "L".join(f"{self.x(x):g} {self.y(y or 0.0):g}" for x, y in ends) + "z"

    @property
    def alt(self) -> str:
        """The text alternative for readers who cannot see the drawing."""
        said = []
        for line in self.lines:
            first, last = line.points[0], line.points[-1]
            said.append(
                f"{line.name}: {number(first.y)} at {number(first.x)}"
                + (f", {number(last.y)} at {number(last.x)}" if len(line.points) > 1 else "")
            )
        return f"{self.title} against {self.x_title}. {'; '.join(said)}."

    def table(self) -> Table:
        """Every point of every line."""
        names = (Column("line"), Column(self.axis, self.x_title), Column("value", self.y_title or self.title))
        table = Table(self.name, (*names, Column("interval", ends=True)))
        for line in self.lines:
            for p in line.points:
                table.add(**{"line": line.name, self.axis: p.x, "value": p.y, "interval": (p.low, p.high)})
        return table


@dataclass(frozen=True)
class Row:
    """An estimate with its interval, and the values behind it as dots."""

    label: str
    value: float
    low: float | None
    high: float | None
    ink: str
    dots: Sequence[float] = ()


@dataclass
class Intervals:
    """Estimates below one another, each under its label."""

    name: str
    title: str
    x_title: str
    rows: Sequence[Row]
    zero: bool = False
    """Whether zero is marked."""

    width, line_height, bottom = WIDE, 36.0, 34.0

    @property
    def height(self) -> float:
        return self.line_height * len(self.rows) + self.bottom + 6

    @cached_property
    def x(self) -> Scale:
        values = [v for row in self.rows for v in (row.value, row.low, row.high, *row.dots) if v is not None]
        return Scale([*values, 0.0] if self.zero else values, 8, WIDE - 8)

    @property
    def alt(self) -> str:
        said = [
            f"{row.label}: {number(row.value)}"
            + ("" if row.low is None else f", between {number(row.low)} and {number(row.high)}")
            for row in self.rows
        ]
        return f"{self.title}. {'; '.join(said)}."

    def table(self) -> Table:
        table = Table(self.name, (Column("label"), Column("value", self.x_title), Column("interval", ends=True)))
        for row in self.rows:
            table.add(label=row.label, value=row.value, interval=(row.low, row.high))
        return table


def moving_mean(values: Sequence[float]) -> list[float]:
    """Each value's mean with its neighbours, over about a twentieth of the curve; the ends have fewer."""
    reach = max(1, len(values) // 40)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [math.fsum(window) / len(window) for window in windows]
