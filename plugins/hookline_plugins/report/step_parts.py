"""Where the time of a whole step goes, as one bar per program."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], path: Path) -> str:
    """Draw what `hookline bench step` found into a PNG file; returns a message: the file written, or what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no figure: matplotlib is not installed (pip install 'hookline[report]')"
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.7 * len(rows)))
    for at, row in enumerate(rows):
        begin, parts = 0.0, row.get("parts") or {"the whole step": row["s"]}
        for i, (part, seconds) in enumerate(parts.items()):
            color = f"C{i}" if "parts" in row else "0.7"
            axes.barh(at, seconds, left=begin, color=color, label=part)
            begin += seconds
    axes.set_yticks(range(len(rows)), [row["version"] for row in rows])
    axes.set_xlabel("seconds a step")
    axes.set_title(machine.get("gpu", machine["cpu"]), fontsize=9)
    axes.legend(fontsize=7, ncols=5, loc="upper right", bbox_to_anchor=(1, -0.35 if len(rows) > 1 else -0.6))
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    return f"written: {path}"
