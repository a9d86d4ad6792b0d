"""A roofline of measured kernels: speed over operations per byte, with the limits of memory and matrix products."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any


def write(found: dict[str, Any], path: Path) -> str:
    """Draw what `hookline.testing.bench_kernels` found into a PNG file; returns a message: the file written, or what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no figure: matplotlib is not installed (pip install 'hookline[report]')"
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in found["rows"] if "skipped" not in row]
    figure, axes = plt.subplots(figsize=(9, 5.5))
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
            axes.plot([intensity[i] for i in own], speed, marker, ms=11 if by == "ours" else 6, ls="none", label=by)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10⁹ operations per second")
    axes.set_title(found["machine"].get("gpu", found["machine"]["cpu"]), fontsize=9)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return f"written: {path}"
