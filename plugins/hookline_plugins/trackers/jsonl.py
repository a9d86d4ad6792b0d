"""Rows as lines of JSON, for `jq`, a notebook, or a pipe."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

import hookline
from hookline import Component, Run, hookimpl

TAKEN = frozenset(
    {"metrics.jsonl", "evaluations.jsonl", "completions.jsonl", "journal.jsonl", "run.json", "experiment.json", "lock"}
)


class JSONLines(Component):
    """Appends each row: `{"row", "phase", "step", "metrics", "timings"}`, one line a step.

    A file contains every row once, in order: after a resume it is rewritten from the run's own rows. Lines that were printed
    to a stream (`-`) cannot be removed, so rows after the newest save are printed again.
    """

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"file": "path", "filename": "path"}
        path: str = Field("rows.jsonl", min_length=1)
        """A file, relative to the run directory, or `-` for standard output."""

        @field_validator("path")
        @classmethod
        def not_the_runs_own(cls, path: str) -> str:
            if Path(path).name in TAKEN:
                raise ValueError(
                    f"{Path(path).name} is a file of the run itself; choose another name, such as rows.jsonl"
                )
            return path

    @hookimpl
    def hookline_run_started(self, run: Run) -> None:
        if self.config.path != "-":
            path = self._path(run)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(map(line, run.rows())), encoding="utf-8")

    @hookimpl
    def hookline_row(self, run: Run, row: Mapping[str, Any]) -> None:
        if self.config.path == "-":
            sys.stdout.write(line(row))
            sys.stdout.flush()
        else:
            with self._path(run).open("a", encoding="utf-8") as file:
                file.write(line(row))

    def _path(self, run: Run) -> Path:
        return run.directory / Path(self.config.path).expanduser()


def line(row: Mapping[str, Any]) -> str:
    """One row, one line; figures that are not finite are `null`, because JSON has no NaN."""
    metrics = {name: value if math.isfinite(value) else None for name, value in row["metrics"].items()}
    return json.dumps({**row, "metrics": metrics}, ensure_ascii=False) + "\n"
