"""The interface of a run for trackers and hooks: its directory, its rows, and the meaning of its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from hookline.contract.metrics import Metric

__all__ = ["Run"]


class Run(Protocol):
    """One run on disk. The class that implements this is `hookline.Run`, which can also read finished runs."""

    directory: Path
    """The run's directory."""
    about: dict[str, Any]
    """Everything that the run depends on, as stored in run.json: versions, hashes of code and data, plugins."""
    resumed: bool
    """True if the run was resumed, i.e. the directory already held this run."""

    @property
    def locked(self) -> bool:
        """True if the run goes on, so that files in its directory may be written; False if a finished run is only read."""

    @property
    def id(self) -> str:
        """The id of the run: eight hex digits, unchanged by a resume."""

    @property
    def name(self) -> str:
        """The experiment's name."""

    @property
    def experiment(self) -> dict[str, Any]:
        """The resolved experiment."""

    @property
    def notices(self) -> Sequence[str]:
        """The notices that were printed so far."""

    def notice(self, text: str) -> None:
        """Print a one-line notice."""

    def rows(self) -> list[dict[str, Any]]:
        """Every committed row, oldest first: {"row", "phase", "step", "metrics", "timings"}."""

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation: {"row", "phase", "step", "name", "samples"}."""

    def completions(self) -> list[dict[str, Any]]:
        """Every kept answer of training, oldest first, each as `hookline_completions` describes it."""

    def seconds_left(self) -> dict[str, float]:
        """Phase → estimated seconds left, from the steps so far or from an earlier run in the same parent directory.

        0 for a phase that has ended; empty before the run's first step, and for a run that is only read.
        """

    def metric(self, phase: str, name: str) -> Metric | None:
        """The meaning of a logged figure, as the core or a component of the phase declared it; None if none did."""

    def phase_folder(self, phase: str) -> Path:
        """The folder with the model, data and hashes of a finished phase."""
