"""People in the loop: what a phase draws waits in a store until annotators have judged it on the page of `hookline collect`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field

import hookline
from hookline import Component, Context, Event, Item, Metric, Rollout, Store, StoreName, hookimpl
from hookline_plugins.asking import ABOUT_ONE
from hookline_plugins.feedback.waiting import Time, counts, different, known, name_of, round_of, seconds


class People(Component):
    """Puts the answers to each prompt into a store; after its last step, the phase waits for people and keeps what they said.

    The page is another process: `hookline collect EXPERIMENT`. Either side may be restarted. With rounds, answers that came too late
    for an earlier round are kept by the next one.
    """

    takes = Rollout
    exempt = {"one-prompt": "people answer later than the laws wait"}
    needs = frozenset({"groups"})
    metrics = (
        Metric("answers", "answers that the phase waited for and got"),
        Metric("annotators", "people who answered"),
        Metric("weights_age", "rounds since the weights that wrote the judged answers, mean over answers"),
        Metric("waited", "time until the last of these answers was there", "s", timing=True),
    )

    class Config(hookline.Config):
        store: StoreName
        """Where the items wait and the answers are kept: `sqlite:///answers.db`, or `postgresql://…`."""
        answers: int = Field(0, ge=0)
        """The phase ends with so many answers, without skips; 0: when every item has as many as `overlap` says."""
        at_most: Time = "24h"
        """How long the phase waits, in seconds or as `90s`, `30m`, `8h`, `2d`; then it ends with what there is."""
        candidates: int = Field(2, ge=0)
        """Number of different answers to a prompt in an item: 1 is rated, 2 are compared, more are ranked; 0: all."""
        overlap: int = Field(1, ge=1)
        """How many annotators judge each item."""
        ask: dict[str, Any] = Field(default_factory=dict)
        """The question about each item, as in docs/collect.md: `{kind: rating, axes: [helpful]}`."""
        poll: float = Field(2.0, gt=0)
        """How often the store is asked for answers, in seconds."""

    @cached_property
    def store(self) -> Store:
        """Opened by rank 0 alone."""
        return hookline.store(self.config.store)

    def setup(self, ctx: Context) -> None:
        ctx.main(
            lambda: self.store.counts().items
        )  # a store that cannot be reached ends the run before anything is drawn

    def close(self) -> None:
        if opened := vars(self).pop("store", None):
            opened.close()

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Rollout) -> Sequence[Event]:
        items = [item for some in ctx.gather(list(self._items(ctx, scored))) for item in some]
        ctx.main(lambda: ctx.once("put", lambda: len(self.store.put(items))))  # a run that is reproduced asks nobody
        if ctx.evaluating or ctx.step + 1 < ctx.steps:
            return []
        said: list[Event] = []  # on rank 0; the core gathers what all ranks return
        ctx.main(lambda: said.extend(ctx.wait(self._answers(ctx))))
        return said

    def _items(self, ctx: Context, scored: Rollout) -> Iterator[Item]:
        """One item for each prompt with enough different answers; where one text is judged, one for each of them."""
        most = self.config.candidates
        extra = {"run": ctx.run.id, "phase": ctx.phase, **({"ask": self.config.ask} if self.config.ask else {})}
        for rows in different(scored):
            rows = rows[: most or None]
            if len(rows) >= min(most or 2, 2):
                # what is left of earlier rounds is given out after this one's
                priority = float(round_of(ctx.phase) - 1)
                each = [[row] for row in rows] if self.config.ask.get("kind") in ABOUT_ONE else [rows]
                for some in each:
                    yield ctx.item(scored, some, overlap=self.config.overlap, priority=priority, extra=extra)

    async def _answers(self, ctx: Context) -> list[Event]:
        begun = float(ctx.once("begun", time.time))

        async def wait() -> list[dict[str, Any]]:
            return await self._wait(ctx, begun)

        found = await ctx.once("answers", wait)
        events = [Event.read(one["event"], "an answer of the store") for one in found]
        ages = [one["age"] for one, event in zip(found, events) if counts(event)]
        if ages:
            ctx.log("answers", len(ages))
            ctx.log("annotators", len({event.annotator for event in events if counts(event)}))
            ctx.log("weights_age", sum(ages) / len(ages))
        last = max((event.submitted_at or begun for event in events if counts(event)), default=time.time())
        ctx.log("waited", last - begun)
        return events

    async def _wait(self, ctx: Context, begun: float) -> list[dict[str, Any]]:
        """The events about this phase's items, and late ones about earlier rounds', once there are enough; each with its age in
        rounds."""
        stored = await asyncio.to_thread(lambda: list(self.store.items()))
        ages = {item.id: age for item in stored if (age := _age(ctx, item)) is not None}
        overlap = {item.id: item.overlap for item in stored if ages.get(item.id) == 0}
        if not overlap:
            return []
        wanted = min(self.config.answers or sum(overlap.values()), sum(overlap.values()))
        until = begun + seconds(self.config.at_most)
        ctx.run.notice(
            f"phase '{ctx.phase}' waits for {wanted} answers about {len(overlap)} items in {self.config.store}, at most "
            f"{self.config.at_most}; open the page for annotators: hookline collect EXPERIMENT"
        )
        seen, events = -1, list[Event]()
        while True:
            if (count := (await asyncio.to_thread(self.store.counts)).events) != seen:
                seen, events = count, await asyncio.to_thread(lambda: list(self.store.events()))
            here = {(event.item, event.annotator) for event in events if event.item in overlap and counts(event)}
            if len(here) >= wanted or time.time() >= until:
                break
            await ctx.pause(min(self.config.poll, max(until - time.time(), 0.05)))
        kept = known(ctx)
        new = [event for event in events if event.item in ages and event.id not in kept]
        return [{"event": event.written(), "age": ages[event.item]} for event in new]


def _age(ctx: Context, item: Item) -> int | None:
    """How many rounds ago this phase put an item; None for items of others."""
    phase = str(item.extra.get("phase"))
    age = round_of(ctx.phase) - round_of(phase)
    return age if item.extra.get("run") == ctx.run.id and name_of(phase) == name_of(ctx.phase) and age >= 0 else None
