"""Where the time of a whole step goes, as one bar per program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline_plugins.report.png import drawn


def write(rows: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], path: Path) -> str:
    """Draw what `hookline bench step` found into a PNG file; returns a message: the file written, or what is missing."""

    def bars(axes: Any) -> None:
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

    return drawn(bars, (9, 1.2 + 0.7 * len(rows)), path)
