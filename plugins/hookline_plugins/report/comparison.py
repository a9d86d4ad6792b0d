"""`compare` shows what `hookline.compare` found: tables on the terminal, and files with figures for others to read."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hookline import CheckpointError, Column, Table
from hookline_plugins.report.against import against, moved
from hookline_plugins.report.page import Figure, drawing, estimated, estimates, render, text_table, visible
from hookline_plugins.report.plot import MARKS, WIDE, Intervals, Line, Plot, Point, Row
from hookline_plugins.report.words import count_of, number, signed

__all__ = ["markdown", "page", "plots", "show", "tables", "write"]

Json = Mapping[str, Any]
MOST_LINES = 15
"""Number of pairs shown on the terminal and drawn; the tables in the files contain all of them."""
AXES = {"step": "step", "samples": "samples learned from", "tokens": "tokens", "seconds": "seconds of training"}
FEW_POINTS = 15
"""Number of points of a curve up to which each point has a mark."""
INTERVAL = "95 % interval"
EXPLAINED = (
    "IQM: interquartile mean over seeds. Intervals: bootstrap over seeds, and over prompts where the evaluation's rows are "
    "known. Differences are paired by seed. P: chance that a run of the first is above a run of the second."
)


# -- tables, for the terminal, Markdown, the page and its downloads


def tables(found: Json) -> list[Table]:
    """What each lever moved, where there are levers; configurations, and their pairs where there are any."""
    levers = [moved(dict(found))] if found["moved"] else []
    return [*levers, configurations(found), *([pairs(found)] if found["pairs"] else [])]


def configurations(found: Json) -> Table:
    """The compared figure of each configuration over its seeds."""
    iqm = estimated("iqm", "IQM", INTERVAL, how=four)
    columns = (
        Column("configuration"),
        Column("seeds"),
        *iqm,
        *(Figure(k, how=four) for k in ("mean", "lowest", "highest")),
    )
    rows = [
        {"configuration": c["label"], "seeds": len(c["seeds"]), "mean": c["mean"]}
        | {"lowest": min(c["values"]), "highest": max(c["values"])}
        | estimates(iqm=c)
        for c in found["configurations"]
    ]
    return Table("configurations", columns, rows, "Configurations")


def pairs(found: Json) -> Table:
    """The difference of each pair, and how often the first is higher."""
    columns = (
        Column("pair", "first − second"),
        *estimated("difference", None, INTERVAL, how=partial(signed, digits=4), drawn="change"),
        Column("clear", ""),
        *estimated("first_higher", "P(first higher)", INTERVAL, how="{:.2f}".format),
        Column("higher_at", "higher at"),
    )
    rows = [
        {"pair": f"{p['first']} − {p['second']}", "clear": f"clear of 0{few(p)}" if p["clear"] else "holds 0"}
        | {"higher_at": f"{p['higher_at']} of {count_of(len(p['seeds']), 'seed')}" if p["paired"] else "not paired"}
        | estimates(difference=p["difference"], first_higher=p["improvement"])
        for p in found["pairs"]
    ]
    return Table("pairs", columns, rows, "Differences")


def few(pair: Json) -> str:
    seeds = len(pair["seeds"])
    return " for 1 seed" if seeds == 1 else " for few seeds" if 1 < seeds < 5 else ""


def at_equal_cost(found: Json) -> list[Table]:
    """The comparison with the baseline: a table at equal steps, tokens and seconds each, and one on average up to there."""
    whole = against(dict(found))
    change = Figure("difference", how=partial(signed, digits=4), drawn="change")
    hidden = ("at", "amount", "baseline", "paired", "seeds", "more_seeds")
    columns = [change if c.key == "difference" else c for c in whole.columns if c.key not in hidden]
    tables = []
    for at in dict.fromkeys(row["at"] for row in whole.rows):
        rows = [row for row in whole.rows if row["at"] == at]
        shown = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
        caption = f"{at.capitalize()} ({number(rows[0]['amount'])}), against {found['baseline']}"
        tables.append(Table(f"against-{at}", columns, shown, caption))
    return tables


def levers(found: Json) -> Table | None:
    """What each lever moved, as the page draws it."""
    if not found["moved"]:
        return None
    whole = moved(dict(found))
    change = Figure("difference", how=partial(signed, digits=4), drawn="change")
    columns = [change if c.key == "difference" else c for c in whole.columns]
    return Table(whole.name, columns, whole.rows, whole.caption)


def differing(found: Json) -> Table | None:
    """The runs and options of each label."""
    several = found["configurations"]
    columns = (Column("", "option"), *(Column(c["label"]) for c in several))
    rows = [{"": path} | {c["label"]: c["differs"][path] for c in several} for path in several[0]["differs"]]
    return (
        Table("what-differs", columns, rows, "Options that are not the same everywhere") if len(several) > 1 else None
    )


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
        shown = rows if table.name == "moved" else rows[: MOST_LINES + 1]
        lines += ["", *_aligned(shown)]
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
    lines = [f"# {_plain(headline(found))}", "", *(f"{_plain(sentence)}.\n" for sentence in found["verdicts"])]
    for table in (*tables(found), *([against(dict(found))] if found["pairs"] else ())):
        lines += [*_in_markdown(table), ""]
    lines += [EXPLAINED, "", *(f"- {_plain(text)}" for text in found["notes"]), ""]
    lines += [f"![{_plain(plot.title)}](compare-{plot.name}.svg)\n" for plot in plots(found)]
    if options := differing(found):
        lines += ["## What differs", "", *_in_markdown(options), ""]
    return "\n".join(lines)


def _in_markdown(table: Table) -> list[str]:
    cells = [[_plain(cell) or " " for cell in row] for row in text_table(table)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(cells[0]), *cells[1:])]


def _plain(text: str) -> str:
    """Text on one line, with HTML and the end of a cell escaped."""
    return html.escape(visible(" ".join(text.split())), quote=False).replace("|", "\\|")


def page(found: Json) -> str:
    several = plots(found)
    return render(
        "comparison.html",
        title=headline(found),
        found=found,
        tables=[table for table in tables(found) if table.name != "moved"],
        levers=levers(found),
        equal=at_equal_cost(found) if found["pairs"] else [],
        estimates=[plot for plot in several if isinstance(plot, Intervals)],
        curves=[plot for plot in several if isinstance(plot, Plot)],
        options=differing(found),
        explained=EXPLAINED,
    )


# -- plots


def plots(found: Json) -> list[Plot | Intervals]:
    """Estimates, differences, the figure against steps, samples and seconds, and the KL–reward plane where it is known."""
    looks = {c["label"]: (f"c{1 + i % 9}", MARKS[i % 4]) for i, c in enumerate(found["configurations"])}
    drawn: list[Plot | Intervals] = [estimates_of(found, looks)]
    if found["pairs"]:
        drawn.append(differences_of(found, looks))
    if any(len(curve) > 1 for curve in found["curves"].values()):
        known = {key for curve in found["curves"].values() for point in curve for key in point}
        drawn += [curves_of(found, looks, axis, below) for axis, below in AXES.items() if axis in known]
    if any(found["plane"].values()):
        drawn.append(plane_of(found, looks))
    return drawn


Looks = Mapping[str, tuple[str, str]]
"""By label: a colour and the outline of points."""


def estimates_of(found: Json, looks: Looks) -> Intervals:
    several = found["configurations"]
    rows = [Row(c["label"], c["value"], c["low"], c["high"], looks[c["label"]][0], c["values"]) for c in several]
    return Intervals("intervals", "Estimates with intervals; a dot is a seed", found["metric"], rows)


def differences_of(found: Json, looks: Looks) -> Intervals:
    shown = [(p, p["difference"]) for p in found["pairs"][:MOST_LINES]]
    rows = [
        Row(f"{p['first']} − {p['second']}", d["value"], d["low"], d["high"], looks[p["first"]][0]) for p, d in shown
    ]
    paired = ", paired by seed" if all(p["paired"] for p in found["pairs"]) else ""
    return Intervals("differences", "Differences with intervals", f"difference{paired}", rows, zero=True)


def curves_of(found: Json, looks: Looks, axis: str, below: str) -> Plot:
    lines = []
    for label, curve in found["curves"].items():
        points = [Point(p[axis], p["value"], p["low"], p["high"]) for p in curve]
        ink, mark = looks[label]
        lines += [Line(label, points, ink, mark if len(points) <= FEW_POINTS else "")] if points else []
    return Plot(axis, f"{found['metric']} against {below}", below, lines, axis=axis, width=WIDE, height=220)


def plane_of(found: Json, looks: Looks) -> Plot:
    """Each configuration from its start, evaluation by evaluation; dashed: the best that any policy can reach."""
    lines = []
    for label, way in found["plane"].items():
        points = [Point(p["kl"]["value"], p["value"]["value"], p["value"]["low"], p["value"]["high"]) for p in way]
        lines += [Line(label, points, *looks[label], bars=True)] if points else []
    if found["frontier"]:
        far = 1.15 * max(point.x for line in lines for point in line.points)
        known = [point for point in found["frontier"] if point[0] <= far] or found["frontier"][:1]
        lines.append(Line("exact frontier", [Point(*point) for point in known], "c0", dashed=True))
    below = "KL per answer to the reference, in nats"
    return Plot("kl", f"{found['metric']} against KL", below, lines, axis="kl", width=WIDE, height=220)
