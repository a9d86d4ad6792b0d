"""`compare` shows what `hookline.compare` found: a table on the terminal, and files with figures for others to read."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline import CheckpointError
from hookline_plugins.report.svg import blank, svg

__all__ = ["draw", "markdown", "page", "show", "write"]

Json = dict[str, Any]
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#6cc5b0", "#9c6b4e", "#ff8ab7", "#97bbf5", "#9498a0")
MOST_LINES = 15
"""Pairs shown on the terminal; the files have all."""


# -- the tables, once for the terminal, Markdown and HTML


def configurations(found: Json) -> list[list[str]]:
    rows = [["configuration", "seeds", "IQM", "95 % interval", "mean", "lowest", "highest"]]
    for c in found["configurations"]:
        ends = number(min(c["values"])), number(max(c["values"]))
        rows.append([c["label"], str(len(c["seeds"])), number(c["value"]), ends_of(c), number(c["mean"]), *ends])
    return rows


def pairs(found: Json) -> list[list[str]]:
    rows = [["difference", "", "95 % interval", "", "P(first higher)", "higher at"]]
    for p in found["pairs"]:
        better = p["improvement"]
        chance = f"{better['value']:.2f}" + (f" {ends_of(better, 2)}" if better["low"] is not None else "")
        at = f"{p['higher_at']} of {len(p['seeds'])} seeds" if p["paired"] else "not paired"
        few = " for 1 seed" if len(p["seeds"]) == 1 else " for few seeds" if 1 < len(p["seeds"]) < 5 else ""
        clear = f"clear of 0{few}" if p["clear"] else ""
        pair = f"{p['first']} − {p['second']}"
        rows.append([pair, number(p["difference"]["value"], True), ends_of(p["difference"]), clear, chance, at])
    return rows


def differences(found: Json) -> list[list[str]]:
    """What stands behind each label."""
    labels = [c["label"] for c in found["configurations"]]
    paths = list(found["configurations"][0]["differs"])
    return [["", *labels]] + [[path, *(c["differs"][path] or "–" for c in found["configurations"])] for path in paths]


def headline(found: Json) -> str:
    rows = f", {found['rows']} prompts" if found["rows"] else ""
    return f"{found['metric']} at the end of phase {found['phase']}{rows}"


def number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    text = f"{value:{'+' if sign else ''}.4g}" if value else "0"
    return text.replace("-", "−")


def ends_of(estimate: Json, digits: int = 0) -> str:
    if estimate["low"] is None:
        return "unknown"
    low, high = (f"{estimate[k]:.{digits}f}" if digits else number(estimate[k]) for k in ("low", "high"))
    return f"[{low}, {high}]"


def show(found: Json) -> str:
    """For the terminal."""
    lines = [headline(found), "", *_aligned(configurations(found))]
    if found["pairs"]:
        table = _aligned(pairs(found))
        lines += ["", *table[: MOST_LINES + 1]]
        if len(table) > MOST_LINES + 1:
            lines.append(f"and {len(table) - MOST_LINES - 1} pairs more, in the files that --out writes")
    if found["notes"]:
        lines += ["", *(f"note: {text}" for text in found["notes"])]
    if found["other_figures"]:
        lines += ["", f"other figures (--metric): {', '.join(found['other_figures'])}"]
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


# -- files


def write(found: Json, folder: Path) -> list[Path]:
    """compare.json, compare.md, compare.html, and a figure each as SVG where matplotlib is installed."""
    drawn, why = draw(found)
    texts = {
        "compare.json": json.dumps(found, indent=1, ensure_ascii=False),
        "compare.md": markdown(found, drawn, why),
        "compare.html": page(found, drawn, why),
        **{f"compare-{name}.svg": svg for name, svg in drawn.items()},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as err:
        raise CheckpointError(f"{folder} cannot be written: {err.strerror}", "choose another --out") from None
    return [folder / name for name in texts]


EXPLAINED = (
    "IQM: interquartile mean over seeds. Intervals: bootstrap over seeds, and over prompts where the evaluation's rows are "
    "known. Differences are paired by seed. P: chance that a run of the first is above a run of the second."
)


def markdown(found: Json, drawn: dict[str, str], why: str) -> str:
    def table(rows: Sequence[Sequence[str]]) -> list[str]:
        cells = [[cell.replace("|", "\\|") or " " for cell in row] for row in rows]
        return ["| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]

    lines = [f"# {headline(found)}", "", *table(configurations(found)), ""]
    if found["pairs"]:
        lines += [*table(pairs(found)), ""]
    lines += [EXPLAINED, ""]
    lines += [f"- {text}" for text in found["notes"]] + [""]
    lines += [f"![{name}](compare-{name}.svg)\n" for name in drawn] or [why, ""]
    if len(found["configurations"]) > 1:
        lines += ["## What differs", "", *table(differences(found)), ""]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; --ink: #1b1e23; --muted: #68707c; --line: #d9dde3; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --muted: #9aa3af; --line: #363c45; --paper: #15181c } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }
th, .quiet { color: var(--muted); font-weight: 500 }
svg { max-width: 100%; height: auto; margin: .5rem 0 }
"""


def page(found: Json, drawn: dict[str, str], why: str) -> str:
    def table(rows: Sequence[Sequence[str]]) -> str:
        def line(row: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

        return f"<table>{line(rows[0], 'th')}{''.join(line(row, 'td') for row in rows[1:])}</table>"

    parts = [f"<h1>{html.escape(headline(found))}</h1>", table(configurations(found))]
    parts += [table(pairs(found))] if found["pairs"] else []
    parts += [f"<p class=quiet>{html.escape(EXPLAINED)}</p>"]
    parts += ["<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in found["notes"]) + "</ul>"]
    parts += list(drawn.values()) or [f"<p class=quiet>{html.escape(why)}</p>"]
    if len(found["configurations"]) > 1:
        parts += ["<h2>What differs</h2>", table(differences(found))]
    title = html.escape(headline(found))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


# -- figures


def draw(found: Json) -> tuple[dict[str, str], str]:
    """(SVG by name, why there is none): `efficiency` (step, samples, seconds), `intervals`, and `kl` where it is known."""
    try:
        import matplotlib
    except ImportError:
        return {}, "Figures need matplotlib: pip install 'hookline[report]', then run the same command again."
    style: Any = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), "#808080"),
    }
    labels = [c["label"] for c in found["configurations"]]
    ink = {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}
    drawn: dict[str, str] = {}
    with matplotlib.rc_context(style):
        drawn["intervals"] = svg(_intervals(found, ink), "intervals")
        if any(len(curve) > 1 for curve in found["curves"].values()):
            drawn["efficiency"] = svg(_efficiency(found, ink), "efficiency")
        if any(found["plane"].values()):
            drawn["kl"] = svg(_plane(found, ink), "kl")
    return drawn, ""


def _intervals(found: Json, ink: dict[str, str]) -> Any:
    """Every configuration's IQM with interval and its seeds as dots; beside it the pairs' differences."""
    several = bool(found["pairs"])
    height = 0.9 + 0.32 * max(len(found["configurations"]), min(len(found["pairs"]), MOST_LINES))
    figure = blank(9.0 if several else 5.0, height)
    axes = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
    for i, c in enumerate(found["configurations"]):
        axes[0].plot(c["values"], [i] * len(c["values"]), "o", color=ink[c["label"]], alpha=0.35, markersize=4)
        _bar(axes[0], c, i, ink[c["label"]])
    _rows(axes[0], [c["label"] for c in found["configurations"]], found["metric"])
    if several:
        shown = found["pairs"][:MOST_LINES]
        for i, p in enumerate(shown):
            _bar(axes[1], p["difference"], i, ink[p["first"]])
        axes[1].axvline(0, color="#808080", linewidth=0.8, linestyle="--")
        _rows(axes[1], [f"{p['first']} − {p['second']}" for p in shown], "difference, paired by seed")
    return figure


def _bar(axes: Any, estimate: Json, at: int, colour: str) -> None:
    if estimate["low"] is not None:
        axes.plot(
            [estimate["low"], estimate["high"]], [at, at], color=colour, linewidth=3, solid_capstyle="butt", alpha=0.6
        )
    axes.plot([estimate["value"]], [at], "|", color=colour, markersize=14, markeredgewidth=2.5)


def _rows(axes: Any, labels: Sequence[str], below: str) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(below)
    axes.tick_params(axis="y", length=0)


def _efficiency(found: Json, ink: dict[str, str]) -> Any:
    figure = blank(9.0, 2.9)
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (key, below) in zip(
        panels, (("step", "step"), ("samples", "samples learned from"), ("seconds", "seconds"))
    ):
        for label, curve in found["curves"].items():
            x = [point[key] for point in curve]
            axes.plot(x, [point["value"] for point in curve], color=ink[label], label=label, linewidth=1.6)
            known = [point for point in curve if point["low"] is not None]
            ends = [[point[end] for point in known] for end in ("low", "high")]
            axes.fill_between([point[key] for point in known], *ends, color=ink[label], alpha=0.18, linewidth=0)
        axes.set_xlabel(below)
    panels[0].set_ylabel(found["metric"])
    panels[0].legend(loc="best", fontsize=8)
    return figure


def _plane(found: Json, ink: dict[str, str]) -> Any:
    """Each configuration's way from its start, evaluation by evaluation; dashed: the best that any policy can do."""
    figure = blank(5.4, 3.6)
    axes = figure.subplots()
    for label, points in found["plane"].items():
        x, y = [p["kl"]["value"] for p in points], [p["value"]["value"] for p in points]
        axes.plot(x, y, "o-", color=ink[label], label=label, markersize=4, linewidth=1.4)
        for p in points:
            if p["value"]["low"] is not None:
                axes.plot([p["kl"]["value"]] * 2, [p["value"]["low"], p["value"]["high"]], color=ink[label], alpha=0.4)
    if found["frontier"]:
        far = 1.15 * max(p["kl"]["value"] for points in found["plane"].values() for p in points)
        known = [point for point in found["frontier"] if point[0] <= far] or found["frontier"][:1]
        axes.plot(*zip(*known), "--", color="#808080", label="exact frontier", linewidth=1.2)
    axes.set_xlabel("KL per answer to the reference, in nats")
    axes.set_ylabel(found["metric"])
    axes.legend(loc="best", fontsize=8)
    return figure
