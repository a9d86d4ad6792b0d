"""A roofline of measured kernels: speed over operations per byte, with the limits of memory and matrix products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hookline_plugins.report.png import drawn


def write(found: dict[str, Any], path: Path) -> str:
    """Draw what `hookline.testing.bench_kernels` found into a PNG file; returns a message: the file written, or what is missing."""
    return drawn(lambda axes: _draw(found, axes), (11, 6.5), path)


def _draw(found: dict[str, Any], axes: Any) -> None:
    rows = [row for row in found["rows"] if "skipped" not in row]
    intensity = [row["flops"] / row["bytes"] for row in rows]
    ends = [min(intensity) / 2, max(intensity) * 2]
    many = [ends[0] * (ends[1] / ends[0]) ** (i / 200) for i in range(201)]
    limits = found["ceilings"]
    for name, style in (("gemm float32", "-"), ("gemm bfloat16", "--")):
        roof = [min(limits["read"] * x, limits[name]) / 1e9 for x in many]
        axes.plot(many, roof, style, color="0.4", lw=1, label=f"read speed and {name.removeprefix('gemm ')} products")
    for by, marker in (("eager", "o"), ("compile", "s"), ("ours", "*")):
        own = [i for i, row in enumerate(rows) if row["by"] == by]
        if own:
            speed = [rows[i]["flops"] / rows[i]["ms"] / 1e6 for i in own]
            axes.plot([intensity[i] for i in own], speed, marker, ms=9 if by == "ours" else 5, ls="none", label=by)
    ours = [row for row in rows if row["by"] == "ours"]
    for number, row in enumerate(ours, 1):
        at = row["flops"] / row["bytes"], row["flops"] / row["ms"] / 1e6
        axes.annotate(str(number), at, xytext=(5, 3), textcoords="offset points", fontsize=7)
    names = "\n".join(f"{number}  {row['op']} {row['shape']} {row['dtype']} {row['what']}" for number, row in enumerate(ours, 1))
    axes.text(1.02, 1, names, transform=axes.transAxes, va="top", fontsize=7, linespacing=1.4)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10⁹ operations per second")
    axes.set_title(found["machine"].get("gpu", found["machine"]["cpu"]), fontsize=9)
    axes.legend(fontsize=8)
