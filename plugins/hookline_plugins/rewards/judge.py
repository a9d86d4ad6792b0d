"""A language model judges each answer, over HTTP: a number on a scale, or which of two answers is better.

docs/rewards.md shows how it is asked, how an answer is kept from deciding its own verdict, and what happens when the service fails.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator

from hookline import Context, DataError, Record, Rollout, ServiceError, Term, hookimpl
from hookline_plugins.judging import Asks, Judge, JudgeOptions, Verdict, together
from hookline_plugins.judging.questions import as_text, conversation
from hookline_plugins.rewards.function import name_of
from hookline_plugins.rewards.signatures import ABSENT, at, prompt_of

OTHER = "the other answer"
"""The text that an answer is compared with; no column of a template can have this name."""


class LLMJudge(Asks["LLMJudge.Config"]):
    """What a language model says of each answer: a number on `scale`, or with `against` 1, 0.5 or 0 for a comparison.

    A row whose reply has no verdict, or that the service does not answer, is not judged. A wrong key, model or address ends the run.
    """

    better = "higher"

    class Config(JudgeOptions):
        scale: tuple[float, float] = (1, 10)
        """The lowest and the highest rating; a number outside it is not a verdict."""
        axes: dict[str, str] = Field(default_factory=lambda: {"score": "how good the answer is"}, min_length=1)
        """What is rated: name → meaning. The reward is the mean; with several, each is a figure of its own."""
        reference: str | None = None
        """The column of a reference answer that the judge sees; `a.b` looks into objects."""
        against: str | None = None
        """The column of an answer that each answer is compared with, in both orders, in place of a rating. `reference` is the
        column that `reference` names; the judge is not told which of the two it is."""

        @model_validator(mode="after")
        def _can_be_read(self) -> Self:
            if not self.scale[0] < self.scale[1]:
                raise ValueError("has a `scale` whose first number is not below its second")
            if wrong := next((axis for axis in self.axes if not axis.isidentifier() or axis == "code"), ""):
                raise ValueError(f"has an axis '{wrong}'; its name must be letters, digits and `_`, and not `code`")
            several = self.axes if self.pattern is not None and self.against is None and len(self.axes) > 1 else ()
            if missing := [axis for axis in several if f"(?P<{axis}>" not in str(self.pattern)]:
                raise ValueError(f"has several axes, and `pattern` has no group (?P<{missing[0]}>…)")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        compares = config.against is not None
        self.judge = Judge(config, axes=config.axes, scale=config.scale, compares=compares)

    @cached_property
    def columns(self) -> dict[str, str]:
        """Text of the question → the column that it comes from."""
        c = self.config
        found = {name: name for name in self.judge.questions.columns}
        if c.against is not None:
            found[OTHER] = (c.reference or "reference") if c.against == "reference" else c.against
        if c.reference is not None and c.reference != found.get(OTHER):
            found["reference"] = c.reference
        return found

    def check_row(self, record: Record, where: str) -> None:
        for name in self.columns:
            self._column(record, name, where)

    @hookimpl
    async def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        verdicts = await together(self._verdict(ctx, rollout, row) for row in range(len(rollout)))
        self.judge.log(ctx, self.instance, verdicts)
        failed = next((row for row, verdict in enumerate(verdicts) if verdict.value is None), None)
        if failed is not None:
            self.tell(ctx, f"{name_of(rollout, failed)}: {verdicts[failed].failed}; such rows")

        async def value(row: int) -> float:
            if (found := verdicts[row].value) is None:
                raise ServiceError(verdicts[row].failed)
            return found

        return await ctx.each(rollout, value)  # the run then knows the first failure, should no row be judged

    async def _verdict(self, ctx: Context, rollout: Rollout, row: int) -> Verdict:
        record, where = rollout.records[row], name_of(rollout, row)
        texts = {name: self._column(record, name, where) for name in self.columns}
        other = texts.pop(OTHER, None)
        said, key = rollout.response_text(row), (int(rollout.sample_B[row]),)
        texts["prompt"] = _prompt(rollout, row)
        if other is not None:
            return await self.judge.compare(ctx, key, texts, said, other)
        return await self.judge.rate(ctx, key, {**texts, "answer": said})

    def _column(self, record: Record, name: str, where: str) -> str:
        column = self.columns[name]
        value = at(record, column)
        if value is ABSENT or value is None:
            option = {OTHER: "`against`", "reference": "`reference`"}.get(name, "the question")
            what = f"column '{column}', which {option} of '{self.instance}' names"
            has = ", ".join(str(key) for key in record) or "none"
            raise DataError(f"{where}: there is no {what}; the row has {has}", "name one of these")
        return as_text(value)


def _prompt(rollout: Rollout, row: int) -> str:
    """A row's prompt as text; of an episode with several rows, what the policy saw in that row."""
    if int((rollout.episode_B == rollout.episode_B[row]).sum()) > 1:
        return rollout.prompt_text(row)
    prompt = prompt_of(rollout, row)
    return prompt if isinstance(prompt, str) else conversation(prompt)
