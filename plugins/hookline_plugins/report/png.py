"""Figures as PNG files, where matplotlib is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any


def drawn(draw: Callable[[Any], None], size: tuple[float, float], path: Path) -> str:
    """Let `draw` fill the axes of a figure, and write it; returns a message: the file written, or what is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no figure: matplotlib is not installed (pip install 'hookline[report]')"
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=size)
    draw(axes)
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    return f"written: {path}"
