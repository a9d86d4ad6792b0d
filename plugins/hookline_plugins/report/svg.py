"""A figure of matplotlib as an element of a page."""

from __future__ import annotations

import io
import re
from typing import Any

__all__ = ["blank", "svg"]


def blank(width: float, height: float) -> Any:
    """A figure to draw into; width and height in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def svg(figure: Any, name: str) -> str:
    """The `<svg>` of a figure, equal for equal input: with ids of its own, no date, and nothing from elsewhere."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W", "-", name)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
