"""A language model as a source of feedback: it compares two answers to each prompt, or rates each answer, over HTTP.

It is asked as the reward `judge` is (docs/rewards.md), but what it says is stored as an event, so that a reward model can learn from it,
beside or in place of people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field

from hookline import (
    Comparison,
    Context,
    DataError,
    Judgement,
    Rating,
    Rollout,
    hookimpl,
    prompt_messages,
)
from hookline_plugins.feedback.waiting import different
from hookline_plugins.judging import Asks, Judge, JudgeOptions, Verdict, together
from hookline_plugins.judging.questions import as_text, conversation


class LLMFeedback(Asks["LLMFeedback.Config"]):
    """What a language model says of the answers: which of two is better, asked in both orders, or marks on `scale`.

    Where the two orders disagree, it is a tie. What the service does not answer is not judged. A wrong key, model or address ends the run.
    """

    takes = Rollout
    needs = frozenset({"groups"})

    class Config(JudgeOptions):
        kind: Literal["comparison", "rating"] = "comparison"
        """`comparison` of the first two different answers to a prompt, or a `rating` of each answer."""
        share: float = Field(1.0, gt=0, le=1)
        """Share of the prompts that are judged, chosen at random; e.g. 0.5 beside people who judge all of them."""
        scale: tuple[float, float] = (1, 10)
        """Of ratings: the lowest and the highest mark."""
        axes: dict[str, str] = Field(default_factory=lambda: {"overall": "how good the answer is"}, min_length=1)
        """Of ratings: what is marked, name → meaning."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.judge = Judge(config, axes=config.axes, scale=config.scale, compares=config.kind == "comparison")

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
        texts = {name: _column(record, name, sample) for name in self.judge.questions.columns}
        messages = prompt_messages(record)
        texts["prompt"] = rollout.prompt_text(rows[0]) if messages is None else conversation(messages)
        answers = [rollout.response_text(row) for row in rows]
        if len(answers) == 2:
            return await self.judge.compare(ctx, (sample,), texts, *answers)
        return await self.judge.rate(ctx, (sample,), {**texts, "answer": answers[0]})

    def _judgement(self, rows: tuple[int, ...], verdict: Verdict) -> Judgement:
        low, high = self.config.scale
        answer: Comparison | Rating
        if len(rows) == 2:
            answer = Comparison(better={1.0: 0, 0.0: 1}.get(verdict.value or 0.0, "tie"))
        else:
            answer = Rating(marks=verdict.axes, low=low, high=high, step=0)
        return Judgement(rows=rows, answer=answer, annotator=self.config.model[:200], role="model")


def _column(record: Mapping[str, Any], name: str, sample: int) -> str:
    if record.get(name) is None:
        has = ", ".join(map(str, record)) or "none"
        raise DataError(
            f"sample {sample}: the row has no column '{name}', which the question names; it has {has}",
            "name one of these",
        )
    return as_text(record[name])
