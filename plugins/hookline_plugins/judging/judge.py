"""A judge that rates answers or compares two of them. Its replies are journaled, kept in a file, and counted against its budget."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hookline import CheckpointError, Context, Metric, ServiceError
from hookline_plugins.judging.known import Known
from hookline_plugins.judging.options import JudgeOptions
from hookline_plugins.judging.questions import Question, Questions
from hookline_plugins.judging.service import Reply, Service
from hookline_plugins.judging.verdicts import Unreadable, better, firsts, ratings, winner

Answer = TypeVar("Answer")
FILE = "judged.jsonl"
"""The run's own file of replies."""
READING = "of a finished run"
"""Who pays for questions about a finished run, whose own budget is closed; no instance has this name."""
COUNTED = ("requests", "tokens", "retried", "cached")
ORDERS = ("A first", "B first")


class UsedUp(ServiceError):
    """A judge's budget has no room for another request."""


@dataclass
class Verdict:
    """What a judge said about one answer, or about two."""

    value: float | None = None
    """The mean over the axes; of a comparison 1 if the first answer is better, 0 if the second is, 0.5 for a tie. None: not judged."""
    failed: str = ""
    """Why it was not judged."""
    axes: dict[str, float] = field(default_factory=dict)
    agreed: bool | None = None
    """Comparisons: whether both orders have the same result; if not, the value is 0.5."""
    shown_first: list[float] = field(default_factory=list)
    """Comparisons: for each order, 1 if the answer that was shown first won, 0 if the other one did; ties are left out."""
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTED, 0))
    """`requests`, `tokens`, `retried` (requests after the first), `cached` (questions that were not asked)."""


class Judge:
    """Asks a judge about single answers (`rate`) or pairs (`compare`). Call `setup(ctx)` before and `close()` after."""

    def __init__(
        self, options: JudgeOptions, *, axes: Mapping[str, str], scale: tuple[float, float] = (0, 1), compares: bool = False
    ) -> None:
        """axes: axis → what it means. scale: the lowest and the highest number of an axis."""
        self.options, self.axes, self.scale, self.compares = options, axes, scale, compares
        self.service = Service(options)
        self._files: list[Known] = []
        self._open = 0
        """Requests that are under way, or made for a question that has no reply yet."""
        self._asking: dict[str, asyncio.Task[Reply]] = {}

    # -- a component's life

    @cached_property
    def questions(self) -> Questions:
        """The template, read when first needed. Raises ExperimentError if it cannot work."""
        return Questions(self.options, self.axes, *self.scale, self.compares)

    def check(self) -> None:
        """Raise ExperimentError where the address, the key's variable or the template cannot work. Opens no connection."""
        _ = self.questions, self.options.address, self.options.secret

    def metrics(self, name: str) -> tuple[Metric, ...]:
        """The figures that `log` logs; name: the instance of the component that asks."""
        made = (
            Metric(f"judge/{name}/requests", "requests to the judge's service, repeated ones included", "requests", "sum"),
            Metric(f"judge/{name}/tokens", "tokens of questions and replies, as the service counts them", "tokens", "sum"),
            Metric(f"judge/{name}/retried", "requests after the first to a question", "requests", "sum", better="lower"),
            Metric(f"judge/{name}/cached", "questions whose reply was known already", "questions", "sum"),
            Metric(f"judge/{name}/failures", "rows that the judge could not judge", "rows", "sum", better="lower"),
        )
        if self.compares:
            return (
                *made,
                Metric(f"judge/{name}/disagreement", "share of pairs whose winner depends on their order", better="lower"),
                Metric(f"judge/{name}/first", "share of verdicts, without ties, for the answer shown first"),
            )
        return (*made, *(Metric(f"judge/{name}/axis/{axis}", f"mean rating: {axis}") for axis in self.axes if len(self.axes) > 1))

    def setup(self, ctx: Context) -> None:
        """Find what is known already: in the run, then in the file that runs share."""
        self._files = [Known(ctx.run.directory / FILE, writes=ctx.run.locked)]
        if self.options.cache is not None:
            self._files.append(Known(Path(self.options.cache)))

    async def close(self) -> None:
        """Stop asking and close the connections. May be called twice."""
        tasks, self._asking = [*self._asking.values()], {}
        for task in tasks:
            task.cancel()
        await self.service.close()

    def state_dict(self) -> dict[str, Any]:
        """The text of the question: a run that goes on asks the same."""
        return {"template": self.questions.text}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises CheckpointError if the text of the question has changed."""
        if state.get("template") != self.questions.text:
            raise CheckpointError(
                f"{self.questions.where} has changed since the run began, so its rewards would not be comparable",
                "restore the text to continue that run, or start a new run with --out",
            )

    # -- asking

    async def rate(self, ctx: Context, key: tuple[str | int, ...], texts: Mapping[str, str]) -> Verdict:
        """Rate one answer. key: identifies the answer in this step, e.g. its sample id. texts: `prompt`, `answer`, perhaps
        `reference`, and the columns that the template names.

        Raises ServiceError where no question can be answered, or if the budget is used up.
        """
        verdict, question = Verdict(), self.questions.ask(texts)
        reply = await self._journaled(ctx, key, question, verdict)
        if reply is not None:
            try:
                verdict.axes = ratings(reply, question.code, tuple(self.axes), *self.scale, self.options.pattern)
                verdict.value = sum(verdict.axes.values()) / len(verdict.axes)
            except Unreadable as err:
                verdict.failed = str(err)
        return verdict

    async def compare(self, ctx: Context, key: tuple[str | int, ...], texts: Mapping[str, str], answer: str, other: str) -> Verdict:
        """Compare two answers, in both orders; where the orders disagree, it is a tie. Equal texts are a tie without a question.

        key, texts: as for `rate`. Raises ServiceError where no question can be answered, or if the budget is used up.
        """
        verdict = Verdict()
        if answer == other:
            verdict.value = 0.5
            return verdict
        pairs = ((answer, other), (other, answer))
        questions = [self.questions.ask({**texts, "first": first, "second": second}) for first, second in pairs]
        replies = await _together(
            self._journaled(ctx, (*key, order), question, verdict) for order, question in zip(ORDERS, questions)
        )
        try:
            said = [better(reply, one.code, self.options.pattern) for reply, one in zip(replies, questions) if reply is not None]
        except Unreadable as err:
            verdict.failed = str(err)
            return verdict
        if len(said) == 2:
            verdict.value, verdict.agreed = winner(said)
            verdict.shown_first = firsts(said)
        return verdict

    def log(self, ctx: Context, name: str, verdicts: Iterable[Verdict]) -> None:
        """Log the figures of a step; name: as for `metrics`."""
        verdicts = list(verdicts)
        for count in COUNTED:
            ctx.log(f"judge/{name}/{count}", sum(one.counts[count] for one in verdicts))
        ctx.log(f"judge/{name}/failures", sum(one.value is None for one in verdicts))
        figures: dict[str, list[float]] = {}
        for one in verdicts:
            if one.agreed is not None:
                figures.setdefault("disagreement", []).append(float(not one.agreed))
                figures.setdefault("first", []).extend(one.shown_first)
            for axis, number in one.axes.items() if len(self.axes) > 1 else ():
                figures.setdefault(f"axis/{axis}", []).append(number)
        for figure, values in figures.items():
            if values:
                ctx.log(f"judge/{name}/{figure}", sum(values) / len(values), len(values))

    async def _journaled(self, ctx: Context, key: tuple[str | int, ...], question: Question, verdict: Verdict) -> str | None:
        """The reply to a question, or None; what it cost, and why it failed, is added to the verdict."""
        asker = _hash(ctx.key("judge", *key))

        async def ask() -> dict[str, Any]:
            return await self._answered(ctx, asker, question)

        found: dict[str, Any] = await ctx.once(("judge", *key), ask)
        for count in COUNTED:
            verdict.counts[count] += int(found[count])
        if found["reply"] is None:
            verdict.failed = verdict.failed or str(found["failed"])
        return None if found["reply"] is None else str(found["reply"])

    async def _answered(self, ctx: Context, asker: str, question: Question) -> dict[str, Any]:
        """Ask, unless the reply is known; a question that another row asks at the moment is not asked twice."""
        key = _hash([self.options.address, question.body])
        for known in self._files:
            if (line := known.find(key)) is not None:
                # the row's own reply: a process before this one was ended before the journal had it
                mine = known is self._files[0] and line.get("by") == asker
                return _counted(line["reply"], "", line if mine else {}, cached=not mine)
        if (other := self._asking.get(key)) is not None:
            reply = await asyncio.shield(other)
            return _counted(reply.text, reply.failed, {}, cached=reply.text is not None)
        task = self._asking[key] = asyncio.ensure_future(self._asked(ctx, asker, key, question))
        try:
            reply = await task
        finally:
            self._asking.pop(key, None)
        return _counted(reply.text, reply.failed, {"requests": reply.requests, "tokens": reply.tokens})

    async def _asked(self, ctx: Context, asker: str, key: str, question: Question) -> Reply:
        reply, who = Reply(), ctx.instance if ctx.run.locked else READING

        def before() -> None:
            self._spend(ctx, who)
            self._open += 1

        try:
            await self.service.ask(question.body, reply, before)
        finally:
            self._open -= reply.requests
            if reply.requests:
                said = {"reply": reply.text} if reply.text is not None else {"failed": reply.failed or "not finished"}
                for known in self._files:
                    known.add({"key": key, **said, "requests": reply.requests, "tokens": reply.tokens, "judge": who, "by": asker})
        return reply

    def _spend(self, ctx: Context, who: str) -> None:
        """Raises ServiceError if the budget has no room for another request."""
        budget, own = self.options.budget, self._files[0]
        own.refresh()
        requests, tokens = own.spent[who, "requests"] + self._open, own.spent[who, "tokens"]
        for what, used, limit in (("requests", requests, budget.requests), ("tokens", tokens, budget.tokens)):
            if limit is not None and used >= limit:
                raise UsedUp(
                    f"'{ctx.instance}' has used up its budget of {limit} {what} (spent: {requests} requests, {tokens} tokens)",
                    "raise `budget` and run the same command again: what was answered is not asked again",
                )


async def together(answers: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Await several answers at once; the first error ends them all, except that a used-up budget lets those that are paid arrive.

    Raises ServiceError where no question can be answered, or if the budget is used up.
    """
    try:
        return await _together(answers)
    except UsedUp as err:
        raise ServiceError(err.message, err.hint) from None


async def _together(answers: Iterable[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    tasks = [asyncio.ensure_future(one) for one in answers]
    try:
        return await asyncio.gather(*tasks)
    except UsedUp:
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    finally:
        for task in tasks:
            task.cancel()


def _counted(reply: str | None, failed: str, paid: Mapping[str, Any], cached: bool = False) -> dict[str, Any]:
    """What the journal holds of a question."""
    requests, tokens = int(paid.get("requests", 0)), int(paid.get("tokens", 0))
    counts = {"requests": requests, "tokens": tokens, "retried": max(0, requests - 1), "cached": int(cached)}
    return {"reply": reply, "failed": failed, **counts}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
