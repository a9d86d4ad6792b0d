"""What trackers and hooks see of a run: its directory, its rows, and what its figures mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from hookline.contract.metrics import Metric

__all__ = ["Run"]


class Run(Protocol):
    """One run on disk. `hookline.Run` is the class itself; it reads finished runs too."""

    directory: Path
    """The run's directory."""
    about: dict[str, Any]
    """What the run depends on, as run.json holds it: versions, hashes of code and data, plugins."""
    resumed: bool
    """True where the directory held this run already."""

    @property
    def id(self) -> str:
        """Eight hex digits, the same after a resume."""

    @property
    def name(self) -> str:
        """The experiment's name."""

    @property
    def experiment(self) -> dict[str, Any]:
        """The experiment as resolved."""

    @property
    def notices(self) -> Sequence[str]:
        """The notices printed so far."""

    def notice(self, text: str) -> None:
        """Print a one-line notice."""

    def rows(self) -> list[dict[str, Any]]:
        """Every committed row, oldest first: {"row", "phase", "step", "metrics", "timings"}."""

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation: {"row", "phase", "step", "name", "samples"}."""

    def seconds_left(self) -> dict[str, float]:
        """Phase → seconds that it will still take, as far as its steps so far, or an earlier run beside this one, tell.

        0 for a phase that has ended; nothing before the run's first step, and for a run that is only read.
        """

    def metric(self, phase: str, name: str) -> Metric | None:
        """What a logged figure means, as the core or a component of the phase declared it; None where none did."""

    def phase_folder(self, phase: str) -> Path:
        """Where a finished phase's model, data and hashes lie."""
