"""A judge answers the items of a store, as annotators do. The store is its memory: what it has answered is not asked again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline import Comparison, DataError, Event, ExperimentError, Item, Rating, Store
from hookline_plugins.asking import Question, question_of
from hookline_plugins.judging.judge import together
from hookline_plugins.judging.options import JudgeOptions, unreadable
from hookline_plugins.judging.questions import Questions, as_text, conversation, text_of
from hookline_plugins.judging.service import Reply, Service
from hookline_plugins.judging.verdicts import Unreadable, better, firsts, ratings, winner


@dataclass
class Said:
    """What became of the items."""

    annotator: str
    judged: int = 0
    requests: int = 0
    tokens: int = 0
    left_out: int = 0
    agreed: list[bool] = field(default_factory=list)
    """For each comparison, whether both orders have the same result."""
    shown_first: list[float] = field(default_factory=list)
    """For each order of these comparisons, 1 if the answer that was shown first won, 0 if the other one did; ties are left out."""
    failed: list[tuple[str, str]] = field(default_factory=list)
    """(item, why) of each that was not judged."""


def judge_items(store: Store, options: JudgeOptions, *, most: int = 0) -> Said:
    """Ask about every item of the store that the judge has not answered, up to `most`. Each answer is stored as it comes.

    A comparison is asked in both orders; where they disagree, it is a tie. Raises ServiceError where no question can be
    answered; before anything is asked, DataError for a store without comparisons and ratings, and for an item whose question or
    row cannot be asked about, and ExperimentError for a question that cannot be asked.
    """
    said = Said(f"judge:{options.model}")
    done = {event.item for event in store.events(annotator=said.annotator)}
    there = [(item, question_of(item, Question())) for item in store.items()]
    asked = [(item, question) for item, question in there if _can_be_judged(item, question)]
    if not asked:
        raise DataError(
            "the store has no comparisons and no ratings", "put some there: hookline contest RUN RUN --store STORE"
        )
    said.left_out = len(there) - len(asked)
    asking = _Asking(store, options, said)
    waiting = [one for one in asked if one[0].id not in done][: most or None]
    asyncio.run(asking.all([asking.about(item, question) for item, question in waiting]))
    return said


def _can_be_judged(item: Item, asked: Question) -> bool:
    return asked.kind == "comparison" or (asked.kind == "rating" and len(item.candidates) == 1)


@dataclass(frozen=True)
class _About:
    """An item that is asked about."""

    item: Item
    asked: Question
    questions: Questions
    texts: Mapping[str, str]


class _Asking:
    """One call of `judge_items`."""

    def __init__(self, store: Store, options: JudgeOptions, said: Said) -> None:
        self.store, self.options, self.said = store, options, said
        self.service = Service(options)
        self._questions: dict[tuple[Any, ...], Questions] = {}

    def about(self, item: Item, asked: Question) -> _About:
        """What is asked about an item, with its prompt, and of its row what the question names, and the reference answer."""
        questions = self._of(asked)
        prompt = item.prompt if isinstance(item.prompt, str) else conversation(item.prompt)
        columns = {name: text_of(item.record.get(name), name, item.record, f"item {item.id}") for name in questions.columns}
        reference = item.record.get("reference")
        texts = {**columns, "prompt": prompt, "reference": "" if reference is None else as_text(reference)}
        return _About(item, asked, questions, texts)

    def _of(self, asked: Question) -> Questions:
        compares = asked.kind == "comparison"
        key = (True,) if compares else (asked.axes, asked.low, asked.high)
        if key not in self._questions:
            axes = () if compares else asked.axes
            if wrong := unreadable(axes, self.options.pattern):
                raise ExperimentError(f"a rating of {', '.join(axes)} {wrong}", "leave out `pattern`, or ask for other axes")
            meanings = {axis: f"how far the word '{axis}' is true of the answer" for axis in axes}
            self._questions[key] = Questions(self.options, meanings, asked.low, asked.high, compares)
        return self._questions[key]

    async def all(self, waiting: Sequence[_About]) -> None:
        self.gate = asyncio.Semaphore(self.options.at_once)
        tasks = [asyncio.ensure_future(self._one(about)) for about in waiting]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.service.close()

    async def _one(self, about: _About) -> None:
        try:
            answer, shown = await (self._compared if about.questions.compares else self._rated)(about)
        except Unreadable as err:
            self.said.failed.append((about.item.id, str(err)))
            return
        who = self.said.annotator
        event: Event = about.item.event(
            answer, who, id=f"{who}/{about.item.id}", role="model", source="judge", extra=shown
        )
        await asyncio.to_thread(self.store.append, [event])
        self.said.judged += 1

    async def _compared(self, about: _About) -> tuple[Comparison, dict[str, Any]]:
        one, two = (candidate.text for candidate in about.item.candidates)
        if one == two:
            return Comparison(better="tie"), {}
        orders = ((one, two), (two, one))
        asked = [about.questions.ask({**about.texts, "first": first, "second": second}) for first, second in orders]
        replies = await together(self._reply(each.body) for each in asked)
        verdicts = [better(_text(reply), each.code, self.options.pattern) for reply, each in zip(replies, asked)]
        value, agreed = winner(verdicts)
        self.said.agreed.append(agreed)
        self.said.shown_first += firsts(verdicts)
        said: Any = {1.0: 0, 0.0: 1}.get(value, "tie")
        return Comparison(better=said), {"orders": verdicts}

    async def _rated(self, about: _About) -> tuple[Rating, dict[str, Any]]:
        low, high, step = about.asked.low, about.asked.high, about.asked.step
        asked = about.questions.ask({**about.texts, "answer": about.item.candidates[0].text})
        reply = await self._reply(asked.body)
        marks = ratings(_text(reply), asked.code, about.asked.axes, low, high, self.options.pattern)
        if step:  # the nearest mark that the page would offer
            marks = {axis: min(low + round((mark - low) / step) * step, high) for axis, mark in marks.items()}
        return Rating(marks=marks, low=low, high=high, step=step), {}

    async def _reply(self, body: Mapping[str, Any]) -> Reply:
        reply = Reply()
        async with self.gate:
            await self.service.ask(body, reply, lambda: None)
        self.said.requests += reply.requests
        self.said.tokens += reply.tokens
        return reply


def _text(reply: Reply) -> str:
    """What a judge replied. Raises Unreadable if it did not."""
    if reply.text is None:
        raise Unreadable(reply.failed)
    return reply.text
