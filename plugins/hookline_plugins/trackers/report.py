"""The report of a run, as a page for people (report.html) and as figures for programs (report.json)."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import Field

import hookline
from hookline import Component, Run, hookimpl
from hookline_plugins.report import numbers as report_numbers
from hookline_plugins.report import run as report_run


class Report(Component):
    """Writes a report when a run finishes. The page loads nothing from elsewhere, so it can be sent and archived.

    report.json contains every figure. Apart from its `timings` it is equal for runs that differ only in where they were killed.
    """

    class Config(hookline.Config):
        examples: int = Field(10, ge=0)
        """Number of prompts per evaluation whose answers are shown before and after; always the first ones, without selection."""
        resamples: int = Field(10_000, ge=100, le=100_000)
        """Bootstrap draws per interval. Few are quick and rough. The draws use a fixed seed."""
        figures: bool = True
        """Draw curves. Without them the page shows the first, middle and last values in tables."""

    @hookimpl(tryfirst=True)
    def hookline_run_finished(self, run: Run, status: str) -> None:
        if status == "finished":
            write(run, run.directory, self.config.resamples, self.config.examples, self.config.figures)


def write(run: Run, folder: Path, resamples: int = 10_000, examples: int = 10, figures: bool = True) -> Path:
    """Write report.json and report.html of a run into a folder. Returns the page's path."""
    numbers = report_numbers.finite(report_numbers.gather(run, resamples, examples))
    _replace(folder / "report.json", json.dumps(numbers, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _replace(folder / "report.html", report_run.page(numbers, run.id, figures))
    return folder / "report.html"


def _replace(path: Path, text: str) -> None:
    """Write a file atomically: a reader sees either the old or the complete new file."""
    aside = path.with_name(f".{path.name}.aside")
    aside.write_text(text, encoding="utf-8", errors="replace")
    aside.replace(path)
