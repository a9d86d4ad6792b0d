"""A table of results in three forms: text for people, CSV for programs, LaTeX for papers.

    table = Table("pairs", (Column("first"), Column("gain", form="+.3f"), Column("range", "95 % interval", ends=True)))
    table.add(first="ppo", gain=0.03141, range=(0.012, 0.05))
    table.show(out)            # ppo   +0.031   [0.012, 0.05]
    table.csv()                # first,gain,range_low,range_high and ppo,0.03141,0.012,0.05

Text shows rounded numbers; CSV has every digit, so reading it back loses nothing.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hookline.contract.command import Out

__all__ = ["Column", "Table"]


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows and in CSV, its heading for people, and its number format."""

    key: str
    """Its name in the rows and in CSV."""
    heading: str | None = None
    """The heading for people; by default the key."""
    form: str = ".4g"
    """The format of numbers for people, e.g. `+.3f`. Whole numbers are shown as they are."""
    ends: bool = False
    """Whether its values are intervals, `(low, high)`; CSV then has the columns KEY_low and KEY_high."""

    @property
    def title(self) -> str:
        """The heading that people read."""
        return self.key if self.heading is None else self.heading

    def shown(self, value: Any) -> str:
        """A value as people see it; empty if it is missing."""
        if self.ends:
            low, high = _pair(value)
            return "" if low is None or high is None else f"[{self._number(low)}, {self._number(high)}]"
        return self._number(value)

    def _number(self, value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if _missing(value):
            return ""
        if isinstance(value, int):
            return str(value).replace("-", "−")
        if isinstance(value, float):
            text = f"{value:{self.form}}" if value else f"{0:{self.form.lstrip('+')}}"  # no sign for zero, nor −0
            return text.replace("-", "−") if "e" not in text else text
        return str(value)


@dataclass
class Table:
    """Columns and rows. A row is a mapping by the columns' keys; None, NaN and absent values are shown as blanks."""

    name: str
    """A short name, used as the stem of its files."""
    columns: Sequence[Column]
    """The columns, in their order."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The rows, in their order; `add` appends one."""
    caption: str = ""
    """A sentence above the table, for people."""

    def add(self, **values: Any) -> None:
        """Add a row. Raises TypeError for a value without a column."""
        if odd := values.keys() - {column.key for column in self.columns}:
            raise TypeError(f"table '{self.name}' has no column {', '.join(map(repr, sorted(odd)))}")
        self.rows.append(values)

    def only(self, *keys: str) -> Table:
        """A table with the same rows and only these columns."""
        columns = [column for column in self.columns if column.key in keys]
        rows = [{key: row.get(key) for key in keys} for row in self.rows]
        return Table(self.name, columns, rows, self.caption)

    @property
    def headings(self) -> list[str]:
        """The headings that people read."""
        return [column.title for column in self.columns]

    def cells(self) -> list[list[str]]:
        """The cells as people see them, row by row."""
        return [[column.shown(row.get(column.key)) for column in self.columns] for row in self.rows]

    def show(self, out: Out, most: int | None = None) -> None:
        """Print the table, at most `most` rows."""
        if self.caption:
            out.text(self.caption)
        # numbers align in text as in LaTeX, so they are padded here and printed as text
        cells = self.cells()[:most]
        widths = [max(map(len, column), default=0) for column in zip(self.headings, *cells)]
        numbers = self._numeric()
        padded = [[c.rjust(w) if n else c for c, w, n in zip(line, widths, numbers)] for line in cells]
        headings = [h.rjust(w) if n else h for h, w, n in zip(self.headings, widths, numbers)]
        # equal headings get extra spaces, since they are the keys of a row
        keys = [heading + " " * headings[:i].count(heading) for i, heading in enumerate(headings)]
        out.table([dict(zip(keys, line)) for line in padded], keys)

    def csv(self) -> str:
        """Comma-separated values with a heading, every digit of every number; missing values are empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            name for c in self.columns for name in ([f"{c.key}_low", f"{c.key}_high"] if c.ends else [c.key])
        )
        for row in self.rows:
            values = ((c, row.get(c.key)) for c in self.columns)
            writer.writerow(_plain(item) for c, value in values for item in (_pair(value) if c.ends else [value]))
        return text.getvalue()

    def latex(self) -> str:
        r"""A `tabular` in the style of the package booktabs, to be put into a `table` with `\input`."""
        where = "".join("r" if number else "l" for number in self._numeric())
        lines = [f"% {_one_line(self.caption)}"] if self.caption else []
        lines += [r"% \usepackage{booktabs}", rf"\begin{{tabular}}{{@{{}}{where}@{{}}}}", r"\toprule"]
        lines += [_line(self.headings), r"\midrule", *map(_line, self.cells())]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])

    def _numeric(self) -> list[bool]:
        """Which columns contain only numbers and are aligned to the right."""
        values = ([row.get(c.key) for row in self.rows if not _missing(row.get(c.key))] for c in self.columns)
        return [
            bool(column) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in column)
            for column in values
        ]


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _pair(value: Any) -> tuple[Any, Any]:
    """The two ends of an interval: of a pair, an `Estimate`, or a mapping with `low` and `high`."""
    if isinstance(value, Mapping):
        value = value["low"], value["high"]
    elif hasattr(value, "low"):
        value = value.low, value.high
    low, high = value if value is not None else (None, None)
    return (None, None) if _missing(low) or _missing(high) else (low, high)


def _plain(value: Any) -> Any:
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(float(value)) if isinstance(value, float) else value


def _line(cells: Iterable[str]) -> str:
    return " & ".join(map(latex_escaped, cells)) + r" \\"


_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": "{`}",
    "[": "{[}",  # after `\\` a bracket or a star would be an argument
    "]": "{]}",
    "*": "{*}",
    "−": "$-$",
    "–": r"\textendash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "→": r"$\to$",
    "∞": r"$\infty$",
    "√": r"$\surd$",
    "²": r"\textsuperscript{2}",
    "ß": r"\ss{}",
    **dict(
        zip(
            "αβγδεζηθικλμνξπρςστυφχψω",
            (
                rf"$\{name}$"
                for name in (
                    "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau "
                    "upsilon varphi chi psi omega"
                ).split()
            ),
            strict=True,
        )
    ),
    **{
        sign: rf"$\{name}$"
        for sign, name in zip("ΓΔΘΛΞΠΣΦΨΩ", "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega".split())
    },
}


def latex_escaped(text: str) -> str:
    """Text that LaTeX prints as it is. Letters of other scripts stay as they are and need XeLaTeX or LuaLaTeX."""
    escaped = "".join(_SPECIAL.get(sign, sign) for sign in _one_line(text))
    return re.sub(r"-(?=-)", "-{}", escaped)  # two hyphens in a row would become a dash


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
