"""A judge answers the items of a store, as annotators do. The store is its memory: what it has answered is not asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hookline import Comparison, DataError, Event, Item, Rating, Store
from hookline_plugins.judging.options import JudgeOptions
from hookline_plugins.judging.questions import Questions, conversation
from hookline_plugins.judging.service import Reply, Service
from hookline_plugins.judging.verdicts import Unreadable, better, ratings

WINS = ({"A": 1.0, "B": 0.0, "tie": 0.5}, {"A": 0.0, "B": 1.0, "tie": 0.5})
"""What a verdict says of the first candidate, shown first and shown second."""


@dataclass
class Said:
    """What became of the items."""

    annotator: str
    judged: int = 0
    requests: int = 0
    tokens: int = 0
    left_out: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(item, why) of each that was not judged."""


def judge_items(store: Store, options: JudgeOptions, *, most: int = 0) -> Said:
    """Ask about every item of the store that the judge has not answered, up to `most`. Each answer is stored as it comes.

    A comparison is asked in both orders; where they disagree, it is a tie. Raises ServiceError where no question can be
    answered, DataError for a store without comparisons and ratings, ExperimentError for a question that cannot be asked.
    """
    said = Said(f"judge:{options.model}")
    done = {event.item for event in store.events(annotator=said.annotator)}
    there = list(store.items())
    asked = [item for item in there if _kind(item)]
    if not asked:
        raise DataError(
            "the store has no comparisons and no ratings", "put some there: hookline contest RUN RUN --store STORE"
        )
    said.left_out = len(there) - len(asked)
    waiting = [item for item in asked if item.id not in done]
    asyncio.run(_Asking(store, options, said).all(waiting[: most or None]))
    return said


def _kind(item: Item) -> str | None:
    ask = item.extra.get("ask") or {}
    kind = ask.get("kind") or {1: "rating", 2: "comparison"}.get(len(item.candidates))
    return kind if (kind, len(item.candidates)) in (("comparison", 2), ("rating", 1)) else None


class _Asking:
    """One call of `judge_items`."""

    def __init__(self, store: Store, options: JudgeOptions, said: Said) -> None:
        self.store, self.options, self.said = store, options, said
        self.service = Service(options)
        self._questions: dict[tuple[Any, ...], Questions] = {}

    async def all(self, items: list[Item]) -> None:
        gate = asyncio.Semaphore(self.options.at_once)

        async def one(item: Item) -> None:
            async with gate:
                await self._one(item)

        tasks = [asyncio.ensure_future(one(item)) for item in items]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.service.close()

    async def _one(self, item: Item) -> None:
        try:
            answer, shown = await (self._compared if _kind(item) == "comparison" else self._rated)(item)
        except Unreadable as err:
            self.said.failed.append((item.id, str(err)))
            return
        who = self.said.annotator
        event: Event = item.event(answer, who, id=f"{who}/{item.id}", role="model", source="judge", extra=shown)
        await asyncio.to_thread(self.store.append, [event])
        self.said.judged += 1

    async def _compared(self, item: Item) -> tuple[Comparison, dict[str, Any]]:
        first, second = (candidate.text for candidate in item.candidates)
        if first == second:
            return Comparison(better="tie"), {}
        questions, texts = self._of((), (0.0, 1.0), True), self._texts(item)
        verdicts = []
        for one, two in ((first, second), (second, first)):
            asked = questions.ask({**texts, "first": one, "second": two})
            verdicts.append(better(await self._reply(asked.body), asked.code, self.options.pattern))
        wins = [values[verdict] for values, verdict in zip(WINS, verdicts)]
        winner = wins[0] if wins[0] == wins[1] else 0.5
        said: Any = {1.0: 0, 0.0: 1, 0.5: "tie"}[winner]
        return Comparison(better=said), {"orders": verdicts}

    async def _rated(self, item: Item) -> tuple[Rating, dict[str, Any]]:
        ask = item.extra.get("ask") or {}
        axes = tuple(ask.get("axes") or ("overall",))
        low, high, step = float(ask.get("low", 1.0)), float(ask.get("high", 5.0)), float(ask.get("step", 1.0))
        asked = self._of(axes, (low, high), False).ask({**self._texts(item), "answer": item.candidates[0].text})
        marks = ratings(await self._reply(asked.body), asked.code, axes, low, high, self.options.pattern)
        nearest = {axis: low + round((mark - low) / step) * step if step else mark for axis, mark in marks.items()}
        return Rating(marks=nearest, low=low, high=high, step=step), {}

    async def _reply(self, body: Mapping[str, Any]) -> str:
        reply = Reply()
        await self.service.ask(body, reply, lambda: None)
        self.said.requests += reply.requests
        self.said.tokens += reply.tokens
        if reply.text is None:
            raise Unreadable(reply.failed)
        return reply.text

    def _texts(self, item: Item) -> dict[str, str]:
        prompt = item.prompt if isinstance(item.prompt, str) else conversation(item.prompt)
        return {"prompt": prompt, "reference": ""}

    def _of(self, axes: tuple[str, ...], scale: tuple[float, float], compares: bool) -> Questions:
        key = axes, scale, compares
        if key not in self._questions:
            meanings = {axis: f"how far the word '{axis}' is true of the answer" for axis in axes}
            self._questions[key] = Questions(self.options, meanings, *scale, compares)
        return self._questions[key]
