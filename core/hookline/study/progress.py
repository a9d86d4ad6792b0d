"""The display of a sweep: live on a terminal, a few plain lines elsewhere.

Progress is read from the runs' own rows, so that runs send nothing, and a resumed run shows its true step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hookline.config.experiment import Experiment

__all__ = ["Progress"]


LINES = 4
"""Without a terminal: lines per run, besides its first and last."""


class Tail:
    """The newest rows of a run, read as they are written."""

    def __init__(self, directory: Path, experiment: Experiment) -> None:
        self.path = directory / "metrics.jsonl"
        self.before = {}
        self.total = 0
        for phase in experiment.phases:
            self.before[phase.name] = self.total
            self.total += phase.steps
        self.read_to = 0
        self.step, self.phase = 0, ""
        self.first: dict[str, float] = {}
        self.last: dict[str, float] = {}

    def read(self) -> None:
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self.read_to:  # rows after the newest save were cut off
                    self.read_to, self.step = 0, 0
                    self.first, self.last = {}, {}
                file.seek(self.read_to)
                raw = file.read()
        except OSError:
            return
        whole = raw[: raw.rfind(b"\n") + 1]
        self.read_to += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
                phase, step, metrics = str(row["phase"]), int(row["step"]), dict(row["metrics"])
            except (ValueError, KeyError, TypeError):
                continue
            if phase != self.phase:
                self.phase, self.first, self.last = phase, {}, {}
            self.step = self.before.get(phase, 0) + step
            seen = {
                name.removeprefix("eval/"): value
                for name, value in metrics.items()
                if name.startswith("eval/") and value is not None
            }
            self.first = {**seen, **self.first}
            self.last |= seen

    @property
    def figures(self) -> str:
        """`keyword-coverage 0.31 → 0.52`: the phase's evaluations, the first and the newest value."""
        return "   ".join(f"{name} {self.first[name]:.4g} → {value:.4g}" for name, value in self.last.items())


class Progress:
    """All runs of a sweep."""

    def __init__(self, directory: Path, runs: Sequence[tuple[str, Experiment]], done: int) -> None:
        self.directory = directory
        self.tails = {name: Tail(directory / name, experiment) for name, experiment in runs}
        self.done, self.count = done, len(runs)
        self.began: dict[str, float] = {}
        self.shown: dict[str, int] = {}
        self.start = time.monotonic()
        self.width = max(map(len, self.tails))
        self.live: Any = None
        if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
            self._make_live()

    def _make_live(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=sys.stdout, markup=False, highlight=False, emoji=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        more = (TimeRemainingColumn(compact=True), TextColumn("{task.fields[figures]}"))
        self.live = Progress(*columns, *more, console=console, transient=True, refresh_per_second=5)
        self.tasks: dict[str, Any] = {}

    def begin(self, notices: Sequence[str]) -> None:
        done = f", {self.done} finished already" if self.done else ""
        self.say(f"{self.count} run{'s' if self.count > 1 else ''}{done}   → {self.directory}")
        for notice in notices:
            self.say(f"note: {notice}")
        if self.live:
            steps = sum(tail.total for tail in self.tails.values())
            self.all = self.live.add_task("all runs".ljust(self.width), total=steps, figures="")
            self.live.start()
        for tail in self.tails.values():
            tail.read()
        self.update()

    def started(self, name: str) -> None:
        self.began[name] = time.monotonic()
        tail = self.tails[name]
        tail.read()
        self.shown[name] = LINES * tail.step // tail.total
        if self.live:
            self.tasks[name] = self.live.add_task(
                name.ljust(self.width), total=tail.total, completed=tail.step, figures=""
            )
        else:
            goes_on = f" goes on after step {tail.step}" if tail.step else " begins"
            self.say(f"  {name:{self.width}}  {goes_on} ({tail.total} steps)")

    def update(self) -> None:
        for name in self.began:
            tail = self.tails[name]
            tail.read()
            if self.live:
                self.live.update(self.tasks[name], completed=tail.step, figures=tail.figures)
            elif LINES * tail.step // tail.total > self.shown[name] and tail.step < tail.total:
                self.shown[name] = LINES * tail.step // tail.total
                self.say(f"  {name:{self.width}}   step {tail.step}/{tail.total} ({tail.phase})   {tail.figures}")
        if self.live:
            self.live.update(self.all, completed=sum(tail.step for tail in self.tails.values()))

    def ended(self, name: str, code: int, stopping: bool) -> None:
        tail = self.tails[name]
        tail.read()
        took = _duration(time.monotonic() - self.began.pop(name))
        self.done += code == 0
        ended = "done" if code == 0 else "stopped" if stopping else f"FAILED, exit code {code},"
        if self.live:
            self.live.remove_task(self.tasks.pop(name))
        self.say(f"  {name:{self.width}}   {ended} in {took}   {tail.figures}   [{self.done}/{self.count}]")

    def end(self) -> None:
        if self.live:
            self.live.stop()
        self.say(f"{self.done} of {self.count} runs finished, {_duration(time.monotonic() - self.start)} here")
        if self.done == self.count:
            self.say(f"to compare them: hookline compare {self.directory}")

    def say(self, text: str) -> None:
        encoding = sys.stdout.encoding or "utf-8"
        line = text.rstrip().encode(encoding, "replace").decode(encoding)
        if self.live:
            from rich.text import Text

            self.live.console.print(Text(line))
        else:
            print(line, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
