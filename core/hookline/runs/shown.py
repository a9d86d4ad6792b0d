"""A run as a notebook shows it: what it is, the figures of each phase from first to last, and its last samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

__all__ = ["page_of"]

MOST_FIGURES, MOST_SAMPLES = 12, 3
FIRST = ("reward", "loss", "nll", "kl", "accuracy")


def page_of(name: str, directory: Path, rows: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """A piece of HTML: a table of figures, the last evaluation's samples, and a link to the report if there is one."""
    report = directory / "report.html"
    link = f' · <a href="{escape(str(report))}">report</a>' if report.is_file() else ""
    parts = [f"<b>{escape(name)}</b> · {escape(str(directory))}{link}"]
    for phase in dict.fromkeys(row["phase"] for row in rows):
        parts.append(_table(phase, [row for row in rows if row["phase"] == phase]))
    if evaluations:
        last = evaluations[-1]
        shown = [one for one in last["samples"] if "response" in one][:MOST_SAMPLES]
        texts = ((escape(str(one.get("prompt", ""))), escape(str(one["response"]))) for one in shown)
        lines = (f"<li><code>{prompt}</code> → <code>{response}</code></li>" for prompt, response in texts)
        parts.append(f"<div>{escape(str(last['name']))}, step {last['step']}<ul>{''.join(lines)}</ul></div>" if shown else "")
    return "<div>" + "".join(parts) + "</div>"


def _table(phase: str, rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    wanted = [name for name in FIRST if name in names] + [name for name in names if name.startswith("eval/")]
    lines = []
    for name in [*dict.fromkeys([*wanted, *names])][:MOST_FIGURES]:
        found = [row["metrics"][name] for row in rows if name in row["metrics"]]
        lines.append(f"<tr><td>{escape(name)}</td><td>{_number(found[0])}</td><td>{_number(found[-1])}</td></tr>")
    head = f"<tr><th>{escape(phase)}, step {rows[-1]['step']}</th><th>first</th><th>last</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and math.isfinite(value) else "NaN"
