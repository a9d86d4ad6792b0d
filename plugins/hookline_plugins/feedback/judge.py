"""A language model as a source of feedback: it compares two answers to each prompt, or rates each answer, over HTTP.

It is asked as the reward `judge` is (docs/rewards.md), but what it says is stored as an event, so that a reward model can learn from it,
beside or in place of people.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field

from hookline import (
    Comparison,
    Context,
    Judgement,
    Rating,
    Record,
    Rollout,
    hookimpl,
    prompt_messages,
)
from hookline_plugins.feedback.waiting import different
from hookline_plugins.judging import Asks, RatingOptions, Verdict, together
from hookline_plugins.judging.questions import conversation, text_of


class LLMFeedback(Asks["LLMFeedback.Config"]):
    """What a language model says of the answers: which of two is better, asked in both orders, or marks on `scale`.

    Where the two orders disagree, it is a tie. What the service does not answer is not judged. A wrong key, model or address ends the run.
    """

    takes = Rollout
    needs = frozenset({"groups"})

    class Config(RatingOptions):
        kind: Literal["comparison", "rating"] = "comparison"
        """`comparison` of the first two different answers to a prompt, or a `rating` of each answer."""
        share: float = Field(1.0, gt=0, le=1)
        """Share of the prompts that are judged, chosen at random; e.g. 0.5 beside people who judge all of them."""
        axes: dict[str, str] = Field(default_factory=lambda: {"overall": "how good the answer is"}, min_length=1)
        """Of ratings: what is marked, name → meaning."""

        @property
        def compares(self) -> bool:
            return self.kind == "comparison"

    def check_row(self, record: Record, where: str) -> None:
        self._columns(record, where)

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Rollout) -> Sequence[Judgement]:
        asked = list(self._asked(ctx, scored))
        verdicts = ctx.wait(together(self._verdict(ctx, scored, rows) for rows in asked))
        self.judge.log(ctx, self.instance, verdicts)
        failed = next((verdict.failed for verdict in verdicts if verdict.value is None), None)
        if failed is not None:
            self.tell(ctx, f"an answer: {failed}; such answers")
        return [self._judgement(rows, one) for rows, one in zip(asked, verdicts) if one.value is not None]

    def _asked(self, ctx: Context, rollout: Rollout) -> Iterator[tuple[int, ...]]:
        """The rows of each question."""
        for rows in different(rollout):
            draw = ctx.rng("share", int(rollout.sample_B[rows[0]]))
            if float(torch.rand((), generator=draw)) >= self.config.share:
                continue
            if self.config.kind == "rating":
                yield from ((row,) for row in rows)
            elif len(rows) > 1:
                yield rows[0], rows[1]

    async def _verdict(self, ctx: Context, rollout: Rollout, rows: tuple[int, ...]) -> Verdict:
        record, sample = rollout.records[rows[0]], int(rollout.sample_B[rows[0]])
        texts = self._columns(record, f"sample {sample}")
        messages = prompt_messages(record)
        texts["prompt"] = rollout.prompt_text(rows[0]) if messages is None else conversation(messages)
        answers = [rollout.response_text(row) for row in rows]
        if len(answers) == 2:
            return await self.judge.compare(ctx, (sample,), texts, *answers)
        return await self.judge.rate(ctx, (sample,), {**texts, "answer": answers[0]})

    def _columns(self, record: Record, where: str) -> dict[str, str]:
        """The texts of a row that the question names."""
        by = f"the question of '{self.instance}'"
        return {name: text_of(record.get(name), name, record, where, by) for name in self.judge.questions.columns}

    def _judgement(self, rows: tuple[int, ...], verdict: Verdict) -> Judgement:
        low, high = self.config.scale
        answer: Comparison | Rating
        if len(rows) == 2:
            answer = Comparison(better={1.0: 0, 0.0: 1}.get(verdict.value or 0.0, "tie"))
        else:
            answer = Rating(marks=verdict.axes, low=low, high=high, step=0)
        return Judgement(rows=rows, answer=answer, annotator=self.config.model[:200], role="model")
