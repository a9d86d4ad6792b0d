"""What a cell of the report's page holds: text made safe, numbers, and intervals behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import Any

from hookline_plugins.report.words import number

Json = Mapping[str, Any]
WORD = re.compile(r"[^\W\d_]+")


def visible(text: str) -> str:
    """Model output as safe HTML; control characters are shown as pictures, not sent to the browser."""
    pictured = "".join(
        chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else "␡" if c == "\x7f" else c for c in text
    )
    return escape(pictured)


def marked(text: str, wanted: set[str]) -> str:
    """Model output as safe HTML, wanted words marked."""
    out, at = "", 0
    for match in WORD.finditer(text):
        if match.group().lower() in wanted:
            out += visible(text[at : match.start()]) + f"<mark>{visible(match.group())}</mark>"
            at = match.end()
    return out + visible(text[at:])


def text_of(text: Any) -> str:
    return visible(str(text))


def count_of(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def signed(value: float | None) -> str:
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def growth(ratio: Json) -> str:
    """A ratio as `+12 % [8, 16]`."""
    if None in (ratio["value"], ratio["low"], ratio["high"]):
        return "–"
    value, low, high = (f"{100 * (ratio[key] - 1):.0f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{'+' if ratio['value'] >= 1 else ''}{value}\u00a0% [{low}, {high}]"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def range_of(point: Json, how: Any = number) -> str:
    return "" if point["low"] is None or point["high"] is None else f"[{how(point['low'])}, {how(point['high'])}]"


def percent_range(point: Json) -> str:
    if point["low"] is None or point["high"] is None:
        return ""
    return f"[{100 * point['low']:.0f}, {100 * point['high']:.0f}]"


def with_range(point: Json) -> str:
    return f'{number(point["value"])}<span class="range">{range_of(point)}</span>'


def clear_of_zero(change: Json) -> bool:
    low, high = change["low"], change["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def accuracies_of(phase: Json) -> list[tuple[str, Json]]:
    figures = [item for evaluation in phase["evaluations"] for item in evaluation["figures"].items()]
    return [(name, figure) for name, figure in figures if figure["component"] == "pair-accuracy" and figure["rows"]]
