"""`compare` shows what `hookline.compare` found: tables on the terminal, and files with figures for others to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hookline import CheckpointError, Column, Table
from hookline_plugins.report.page import Figure, drawing, render, text_table
from hookline_plugins.report.plot import MARKS, WIDE, Intervals, Line, Plot, Point, Row
from hookline_plugins.report.words import count_of, number, signed

__all__ = ["markdown", "page", "plots", "show", "tables", "write"]

Json = Mapping[str, Any]
MOST_LINES = 15
"""Pairs shown on the terminal and drawn; the tables in the files have all."""
FEW_POINTS = 15
"""Points of a curve up to which each has a mark."""
EXPLAINED = (
    "IQM: interquartile mean over seeds. Intervals: bootstrap over seeds, and over prompts where the evaluation's rows are "
    "known. Differences are paired by seed. P: chance that a run of the first is above a run of the second."
)


# -- tables, for the terminal, Markdown, the page and its downloads


def tables(found: Json) -> list[Table]:
    """Configurations, and their pairs where there are any."""
    return [configurations(found), *([pairs(found)] if found["pairs"] else [])]


def configurations(found: Json) -> Table:
    table = Table(
        "configurations",
        (
            Column("configuration"),
            Column("seeds"),
            *estimated("iqm", "IQM", four),
            *figures("mean", "lowest", "highest"),
        ),
        caption="Configurations",
    )
    for c in found["configurations"]:
        low, high = min(c["values"]), max(c["values"])
        spread = {"mean": c["mean"], "lowest": low, "highest": high}
        table.add(configuration=c["label"], seeds=len(c["seeds"]), iqm=c["value"], iqm_interval=c, **spread)
    return table


def pairs(found: Json) -> Table:
    table = Table(
        "pairs",
        (
            Column("pair", "first − second"),
            *estimated("difference", how=partial(signed, digits=4), drawn="change"),
            Column("clear", ""),
            *estimated("first_higher", "P(first higher)", "{:.2f}".format),
            Column("higher_at", "higher at"),
        ),
        caption="Differences",
    )
    for p in found["pairs"]:
        seeds = len(p["seeds"])
        few = " for 1 seed" if seeds == 1 else " for few seeds" if 1 < seeds < 5 else ""
        table.add(
            pair=f"{p['first']} − {p['second']}",
            difference=p["difference"]["value"],
            difference_interval=p["difference"],
            clear=f"clear of 0{few}" if p["clear"] else "holds 0",
            first_higher=p["improvement"]["value"],
            first_higher_interval=p["improvement"],
            higher_at=f"{p['higher_at']} of {count_of(seeds, 'seed')}" if p["paired"] else "not paired",
        )
    return table


def differing(found: Json) -> Table | None:
    """What stands behind each label."""
    several = found["configurations"]
    if len(several) < 2:
        return None
    columns = [Column(f"{i}", c["label"]) for i, c in enumerate(several, start=1)]
    table = Table("what-differs", (Column("option"), *columns), caption="Options that are not the same everywhere")
    for path in several[0]["differs"]:
        table.add(option=path, **{f"{i}": c["differs"][path] for i, c in enumerate(several, start=1)})
    return table


def estimated(
    key: str, heading: str | None = None, how: Callable[[Any], str] = number, drawn: str = ""
) -> tuple[Column, Column]:
    """Two columns, for an estimate and its interval."""
    return Figure(key, heading, how=how, drawn=drawn), Figure(f"{key}_interval", "95 % interval", ends=True, how=how)


def figures(*keys: str) -> list[Column]:
    return [Figure(key, how=four) for key in keys]


def four(value: float | None) -> str:
    return number(value, 4)


def headline(found: Json) -> str:
    rows = f", {found['rows']} prompts" if found["rows"] else ""
    return f"{found['metric']} at the end of phase {found['phase']}{rows}"


def show(found: Json) -> str:
    """For the terminal."""
    lines = [headline(found)]
    for table in tables(found):
        rows = text_table(table)
        lines += ["", *_aligned(rows[: MOST_LINES + 1])]
        if table.name == "pairs" and len(rows) > MOST_LINES + 1:
            lines.append(f"and {len(rows) - MOST_LINES - 1} pairs more, in the files that --out writes")
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
    """compare.json, compare.md, compare.html, and each plot as SVG."""
    texts = {
        "compare.json": json.dumps(found, indent=1, ensure_ascii=False),
        "compare.md": markdown(found),
        "compare.html": page(found),
        **{f"compare-{plot.name}.svg": drawing(plot) for plot in plots(found)},
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="replace")
    except OSError as err:
        raise CheckpointError(f"{folder} cannot be written: {err.strerror}", "choose another --out") from None
    return [folder / name for name in texts]


def markdown(found: Json) -> str:
    lines = [f"# {headline(found)}", ""]
    for table in tables(found):
        lines += [*_in_markdown(table), ""]
    lines += [EXPLAINED, "", *(f"- {text}" for text in found["notes"]), ""]
    lines += [f"![{plot.title}](compare-{plot.name}.svg)\n" for plot in plots(found)]
    if options := differing(found):
        lines += ["## What differs", "", *_in_markdown(options), ""]
    return "\n".join(lines)


def _in_markdown(table: Table) -> list[str]:
    cells = [[cell.replace("|", "\\|") or " " for cell in row] for row in text_table(table)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]


def page(found: Json) -> str:
    options = differing(found)
    headings = {
        "results": "Results",
        "curves": "Along the way",
        "options": "What differs",
        "reading": "How to read this",
    }
    several = plots(found)
    shown = {"options": options, "curves": [plot for plot in several if isinstance(plot, Plot)]}
    seeds = sorted({seed for c in found["configurations"] for seed in c["seeds"]})
    return render(
        "comparison.html",
        title=headline(found),
        kind="comparison",
        lead=f"{count_of(len(found['configurations']), 'configuration')}, {count_of(len(seeds), 'seed')}.",
        sections={key: heading for key, heading in headings.items() if shown.get(key, True)},
        tables=tables(found),
        estimates=[plot for plot in several if isinstance(plot, Intervals)],
        notes=found["notes"],
        other_figures=found["other_figures"],
        explained=EXPLAINED,
        **shown,
    )


# -- plots


def plots(found: Json) -> list[Plot | Intervals]:
    """Estimates, differences, the figure against steps, samples and seconds, and the KL–reward plane where it is known."""
    inks = {c["label"]: f"c{1 + i % 9}" for i, c in enumerate(found["configurations"])}
    marks = {c["label"]: MARKS[i % 4] for i, c in enumerate(found["configurations"])}
    drawn: list[Plot | Intervals] = [estimates(found, inks)]
    if found["pairs"]:
        drawn.append(differences(found, inks))
    curves = {label: curve for label, curve in found["curves"].items() if curve}
    if any(len(curve) > 1 for curve in curves.values()):
        axes = (("step", "step"), ("samples", "samples learned from"), ("seconds", "seconds of training"))
        for axis, below in axes:
            lines = [
                Line(
                    label,
                    [Point(p[axis], p["value"], p["low"], p["high"]) for p in curve],
                    inks[label],
                    marks[label] if len(curve) <= FEW_POINTS else "",
                )
                for label, curve in curves.items()
            ]
            drawn.append(
                Plot(axis, f"{found['metric']} against {below}", below, lines, axis=axis, width=WIDE, height=220)
            )
    if any(found["plane"].values()):
        drawn.append(plane(found, inks, marks))
    return drawn


def estimates(found: Json, inks: Mapping[str, str]) -> Intervals:
    rows = [
        Row(c["label"], c["value"], c["low"], c["high"], inks[c["label"]], c["values"]) for c in found["configurations"]
    ]
    return Intervals("intervals", "Estimates with intervals; a dot is a seed", found["metric"], rows)


def differences(found: Json, inks: Mapping[str, str]) -> Intervals:
    rows = [
        Row(f"{p['first']} − {p['second']}", d["value"], d["low"], d["high"], inks[p["first"]])
        for p in found["pairs"][:MOST_LINES]
        for d in (p["difference"],)
    ]
    paired = ", paired by seed" if all(p["paired"] for p in found["pairs"]) else ""
    return Intervals("differences", "Differences with intervals", f"difference{paired}", rows, zero=True)


def plane(found: Json, inks: Mapping[str, str], marks: Mapping[str, str]) -> Plot:
    """Each configuration's way from its start, evaluation by evaluation; dashed: the best that any policy can do."""
    lines = [
        Line(
            label,
            [Point(p["kl"]["value"], p["value"]["value"], p["value"]["low"], p["value"]["high"]) for p in points],
            inks[label],
            marks[label],
            bars=True,
        )
        for label, points in found["plane"].items()
        if points
    ]
    if found["frontier"]:
        far = 1.15 * max(point.x for line in lines for point in line.points)
        known = [point for point in found["frontier"] if point[0] <= far] or found["frontier"][:1]
        lines.append(Line("exact frontier", [Point(*point) for point in known], "c0", dashed=True))
    return Plot(
        "kl",
        f"{found['metric']} against KL",
        "KL per answer to the reference, in nats",
        lines,
        axis="kl",
        width=WIDE,
        height=220,
    )
