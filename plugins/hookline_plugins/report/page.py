"""Makes pages: jinja2 templates and one style sheet become one HTML file that loads nothing and runs no script.

    render("report.html", title="walks", tables=[Table(…)], plots=[Plot(…)])

Python computes what is shown; `templates/` contains all markup. All printed values are escaped, and characters that are
invisible or change the direction of the text are shown by name. Tables and plots offer their data as files.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hookline import Column, Table
from hookline_plugins.report.plot import Intervals, Plot
from hookline_plugins.report.words import clear_of_zero, count_of, duration, growth, interval, number, percent, signed

__all__ = ["Figure", "File", "drawing", "estimated", "estimates", "files", "render", "text_table", "visible"]

TEMPLATES = Path(__file__).with_name("templates")
STYLE = (TEMPLATES / "style.css").read_text(encoding="utf-8")
INKS = dict(re.findall(r"--(\w+): (#\w+)", STYLE[: STYLE.index("@media")]))
"""The light colours of the style sheet by name, for drawings that leave the page."""
UNSEEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
MOST_ROWS = 60
"""Rows of a table in LaTeX; longer ones are thinned there, and CSV has all."""


@dataclass(frozen=True)
class Figure(Column):
    """A column of numbers as pages show them. The page sets a column of intervals below the numbers before it."""

    how: Callable[[float | None], str] = number
    drawn: str = ""
    """A small drawing beside it: its interval about zero (`change`), or from one half to one (`share`)."""

    def shown(self, value: Any) -> str:
        if self.ends:
            return interval(value, self.how)
        return self.how(value) if isinstance(value, int | float) else str(value or "")


@dataclass(frozen=True)
class File:
    """Something to download: its bytes are in the link itself, so that it also works without a server."""

    kind: str
    name: str
    href: str


def render(template: str, **shown: Any) -> str:
    """A whole page. Raises UndefinedError for a name that the template uses and `shown` does not have."""
    return _pages().get_template(template).render(shown)


def drawing(plot: Plot | Intervals) -> str:
    """A plot as an SVG file of its own, with title, legend and fixed colours."""
    module: Any = _pages().get_template("drawings.html").module
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + str(module.drawing(plot, alone=True)).strip() + "\n"


@cache
def _pages() -> Environment:
    pages = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )
    pages.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "duration": duration,
        "interval": interval,
    }
    pages.filters |= {"growth": growth, "count_of": count_of, "files": files, "cells": cells, "between": between}
    pages.globals |= {
        "style": Markup(STYLE),
        "inks": INKS,
        "signed": signed,
        "percent": percent,
        "clear_of_zero": clear_of_zero,
    }
    return pages


def visible(text: str) -> str:
    """The text with control characters as pictures, and others that are not seen or turn text around by their number."""

    def picture(match: re.Match[str]) -> str:
        code = ord(match.group())
        return chr(0x2400 + code) if code < 32 else "␡" if code == 127 else f"⟨U+{code:04X}⟩"

    return UNSEEN.sub(picture, text)


def between(value: float, low: float, high: float) -> float:
    """Where a value lies between two others, from 0 to 1."""
    return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5


def slug(text: str) -> str:
    """A name for a file or an element."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "unnamed"


# -- tables


def estimated(key: str, heading: str | None = None, below: str = "", **how: Any) -> tuple[Figure, Figure]:
    """Two columns, for an estimate and its interval; `below` is the heading of the interval."""
    return Figure(key, heading, **how), Figure(f"{key}_interval", below, ends=True, how=how.get("how", number))


def estimates(**said: Any) -> dict[str, Any]:
    """What a row has in such columns."""
    known = {key: estimate for key, estimate in said.items() if estimate}
    return {key: e["value"] for key, e in known.items()} | {f"{key}_interval": e for key, e in known.items()}


def cells(table: Table) -> list[tuple[Column, Column | None, bool]]:
    """Its columns for a page: each with the interval column behind it, if any, and whether it holds numbers."""
    found = []
    for column, after in zip(table.columns, [*table.columns[1:], None]):
        if not column.ends:
            own = [row.get(column.key) for row in table.rows]
            numbers = all(value is None or isinstance(value, int | float) for value in own)
            found.append((column, after if after and after.ends else None, numbers))
    return found


def text_table(table: Table) -> list[list[str]]:
    """The heading and the rows of a table as text, for the terminal and Markdown; `–` for what is not known."""
    return [table.headings, *([cell or "–" for cell in line] for line in table.cells())]


def files(shown: Table | Plot | Intervals) -> list[File]:
    """What is offered for download below a table or a plot."""
    table = shown if isinstance(shown, Table) else shown.table()
    every = math.ceil(len(table.rows) / MOST_ROWS)
    few = (
        replace(table, rows=table.rows[::every], caption=f"one of {every} rows; the CSV file has all")
        if every > 1
        else table
    )
    offered = [("CSV", "csv", "text/csv", table.csv()), ("LaTeX", "tex", "application/x-tex", few.latex())]
    if not isinstance(shown, Table):
        offered.append(("SVG", "svg", "image/svg+xml", drawing(shown)))
    return [File(kind, f"{slug(shown.name)}.{ending}", _link(media, text)) for kind, ending, media, text in offered]


def _link(media: str, text: str) -> str:
    data = base64.b64encode(text.encode("utf-8", errors="replace")).decode("ascii")
    return f"data:{media};charset=utf-8;base64,{data}"
