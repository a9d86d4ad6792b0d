"""The console's screen in a notebook: one block below the cell that is written again as the run goes on."""

from __future__ import annotations

import sys
import time
from html import escape
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
LINES, POINTS, SECONDS = 12, 48, 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML. IPython is not imported for the answer."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def sparkline(values: list[float]) -> str:
    """The last values as a row of bars."""
    values = [value for value in values if value - value == 0][-POINTS:]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    return "".join(BARS[round((value - low) / ((high - low) or 1) * (len(BARS) - 1))] for value in values)


class Cell:
    """The lines so far, and below them the phase that runs: its step, its figures, and the course of its reward or loss."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.handle: Any = None
        self.status, self.course = "", list[float]()
        self.steps, self.drawn, self.phase = 0, 0.0, ""

    def say(self, text: str, style: str = "") -> None:
        self.lines.append(f"<b>{escape(text)}</b>" if style == "bold" else escape(text))
        self._draw()

    def begin(self, phase: str, steps: int, done: int) -> None:
        self.phase, self.steps, self.course = phase, steps, []

    def advance(self, step: int, figures: str, in_all: str, value: float | None = None) -> None:
        """A step's figures. value: the one whose course is drawn."""
        if value is not None:
            self.course.append(value)
        left = f", {in_all}" if in_all else ""
        self.status = (
            f'<progress value="{step}" max="{self.steps}"></progress> {escape(self.phase)} {step}/{self.steps}{escape(left)}\n'
            f"{escape(figures)}\n{sparkline(self.course)}"
        )
        if time.monotonic() - self.drawn > SECONDS:
            self._draw()

    def end(self) -> None:
        self.status = ""

    def _draw(self) -> None:
        from IPython.display import HTML, display

        self.drawn = time.monotonic()
        hidden = [f"… {len(self.lines) - LINES} lines above"] if len(self.lines) > LINES else []
        text = "\n".join([*hidden, *self.lines[-LINES:], self.status]).rstrip("\n")
        block = HTML(f"<pre>{text}</pre>")
        if self.handle is None:
            self.handle = display(block, display_id=True)
        else:
            self.handle.update(block)
