"""Feedback that arrives from elsewhere: a file or a store that another program adds to is read in the phase's last step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

import hookline
from hookline import Component, Context, DataError, Event, LocalPath, Metric, Rollout, StoreName, hookimpl
from hookline_plugins.feedback.waiting import Time, counts, known, seconds


class File(Component):
    """Keeps the events of a file or a store that no earlier round has kept, whatever they are about.

    Applications post into a store (`POST /feedback` of `hookline collect`); a file may have any format of docs/feedback.md, and may grow
    meanwhile. What the phase itself draws is not asked about.
    """

    takes = Rollout
    exempt = {"one-prompt": "what arrives is not about the rows of a batch"}
    metrics = (
        Metric("arrived", "answers that arrived since the last round"),
        Metric("waited_for_file", "time until the last of these answers was there", "s", timing=True),
    )

    class Config(hookline.Config):
        path: LocalPath | None = None
        """A file of events, or one that another tool exported, e.g. `labels.json`."""
        store: StoreName | None = None
        """Alternatively a store: `sqlite:///answers.db`. Events about the items of `people`, in this run or another, are left to it."""
        answers: int = Field(0, ge=0)
        """The phase ends with so many new answers, without skips; 0: with those that are there."""
        at_most: Time = "24h"
        """How long the phase waits, in seconds or as `90s`, `30m`, `8h`, `2d`; then it ends with what there is."""
        poll: float = Field(2.0, gt=0)
        """How often is looked whether it has changed, in seconds."""

        @model_validator(mode="after")
        def _one_place(self) -> Self:
            if (self.path is None) == (self.store is None):
                raise ValueError("reads a file or a store; name one of `path` and `store`")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.unreadable = ""
        """Why the file cannot be read; empty if it can."""
        self.stamp: tuple[int, ...] | None = None
        """What changes with the content; None before it is read."""
        self.there: list[Event] = []

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Rollout) -> Sequence[Event]:
        if ctx.evaluating or ctx.step + 1 < ctx.steps:
            return []
        said: list[Event] = []  # on rank 0; the core gathers what all ranks return
        ctx.main(lambda: said.extend(ctx.wait(self._arrived(ctx))))
        return said

    async def _arrived(self, ctx: Context) -> list[Event]:
        begun = float(ctx.once("begun", time.time))

        async def wait() -> list[dict[str, Any]]:
            return [event.written() for event in await self._wait(ctx, begun)]

        events = [Event.read(one, "an answer that arrived") for one in await ctx.once("arrived", wait)]
        ctx.log("arrived", sum(map(counts, events)))
        ctx.log("waited_for_file", max(time.time() - begun, 0.0))
        return events

    async def _wait(self, ctx: Context, begun: float) -> list[Event]:
        c, kept = self.config, known(ctx)
        until = begun + seconds(c.at_most)
        if c.answers:
            ctx.run.notice(
                f"phase '{ctx.phase}' waits for {c.answers} answers in {c.path or c.store}, at most {c.at_most}"
            )
        before: tuple[int, ...] | None = None
        while True:
            new = [event for event in await asyncio.to_thread(self._events) if event.id not in kept]
            if sum(map(counts, new)) >= c.answers or time.time() >= until:
                break
            if self.unreadable and self.stamp == before:  # it is not being written at the moment
                ctx.run.notice(f"{self.unreadable}; phase '{ctx.phase}' waits, and reads the file again when it is corrected")
            before = self.stamp
            await ctx.pause(min(c.poll, max(until - time.time(), 0.05)))
        if self.unreadable:
            raise DataError(self.unreadable, "correct the file, and run the same command again")
        return new

    def _events(self) -> list[Event]:
        """What is there, read if it has changed; of a file that cannot be read, nothing: it may be half written."""
        if (stamp := self._stamp()) != self.stamp:
            self.stamp, self.unreadable = stamp, ""
            try:
                self.there = self._read()
            except DataError as err:
                if self.config.store is not None:
                    raise
                self.there, self.unreadable = [], err.message
        return self.there

    def _stamp(self) -> tuple[int, ...]:
        """Empty where there is no file, or an empty one."""
        if self.config.store is not None:
            with hookline.store(self.config.store) as store:
                return (store.counts().events,)
        try:
            found = Path(self.config.path).stat()
        except FileNotFoundError:
            return ()
        return (found.st_mtime_ns, found.st_size) if found.st_size else ()

    def _read(self) -> list[Event]:
        if self.config.store is not None:
            with hookline.store(self.config.store) as store:
                asked = {item.id for item in store.items() if item.extra.get("run")}
                return [event for event in store.events() if event.item not in asked]
        return hookline.read_events(Path(self.config.path)) if self.stamp else []
