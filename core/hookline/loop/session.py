"""A plan and its run, with what all phases share: tokenizer, trackers, event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hookline.loop.trackers import Trackers
from hookline.models.scores import scores_of
from hookline.plan.plan import Plan
from hookline.plan.work import works_of
from hookline.registry.blame import changed, doing
from hookline.registry.closing import close_all
from hookline.runs.figures import Figures
from hookline.runs.outlook import Outlook
from hookline.runs.run import Run
from hookline.storage import folders
from hookline.tokens.encode import Encoding
from hookline.tokens.tokenizer import Tokenizer
from hookline.world import devices
from hookline.world.signals import Stopping

__all__ = ["Session"]


class Session:
    """What all phases of a run share. Its event loop runs `ctx.wait` and asynchronous rewards."""

    def __init__(self, plan: Plan, run: Run, answers: asyncio.Runner, stopping: Stopping | None = None) -> None:
        self.plan, self.run, self.answers, self.stopping = plan, run, answers, stopping or Stopping()
        self.world = run.world.on(devices.resolve(plan.experiment.device, run.world.local))
        self._told = self.world.follow(doing)
        if self._told:
            changed.append(self._told)
        self.figures = run.figures = Figures(plan.phases)
        run.outlook = Outlook(run.directory, run.experiment, lambda: works_of(plan, self.tokenizer))
        self.trackers = Trackers(run, plan.trackers if self.world.leads else ())
        if self.world.size > 1:
            _ = self.tokenizer  # which rank 0 makes for all

    def commit_row(self, phase: str, step: int, metrics: Mapping[str, float], timings: Mapping[str, float]) -> None:
        """Write a step's row, then tell the trackers."""
        self.trackers.tell("row", row=self.run.commit_row(phase, step, metrics, timings))

    def commit_samples(self, phase: str, step: int, name: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Write an evaluation's samples, then tell the trackers."""
        self.run.commit_samples(phase, step, name, samples)
        self.trackers.tell("samples", phase=phase, step=step, name=name, samples=samples)

    def commit_completions(self, phase: str, step: int, completions: Sequence[Mapping[str, Any]]) -> None:
        """Write a few answers of a training step, then tell the trackers."""
        entries = self.run.commit_completions(phase, step, completions)
        self.trackers.tell("completions", phase=phase, step=step, completions=entries)

    def close(self) -> None:
        """Close the trackers."""
        if self._told in changed:
            changed.remove(self._told)
        close_all([inner for slot in self.trackers.slots for inner in slot.every()], self.answers, self.run.notice)

    @functools.cache  # noqa: B019 (a session lives as long as its run)
    def encoder(self, path: str) -> Encoding:
        """What encodes rows for the model of a folder, by the folder's own tokenizer."""
        made = Tokenizer.load(Path(path))
        self._set_clock(made)
        found = scores_of(path)
        return Encoding(made, path, found.at if found else "text")

    def _set_clock(self, tokenizer: Tokenizer) -> None:
        """A template may write the date: all of a run write the same."""
        if tokenizer.chat and "clock" in self.run.about:
            tokenizer.chat.clock = datetime.fromisoformat(self.run.about["clock"])

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's tokenizer: the one in its directory, or a new one, saved there."""
        folder = self.run.directory / "tokenizer"
        self.world.main(lambda: self._make_tokenizer(folder), "the tokenizer")
        made = Tokenizer.load(folder)
        self._set_clock(made)
        return made

    def _make_tokenizer(self, folder: Path) -> None:
        run, spec = self.run, self.plan.experiment.tokenizer
        if folder.exists():
            folders.verify(folder)
            return
        rows = run.data(spec.on) if spec and spec.on else None
        made = Tokenizer.make(spec, self.plan.experiment.model.path, rows)
        run.keep_data()
        with folders.write_aside(folder, {}) as aside:
            made.save(aside)
