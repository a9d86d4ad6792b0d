"""A language model judges each answer, over HTTP: a number on a scale, or which of two answers is better.

docs/rewards.md shows how it is asked, how an answer is kept from deciding its own verdict, and what happens when the service fails.
"""

from __future__ import annotations

from functools import cached_property

from pydantic import Field

from hookline import Context, Record, Rollout, ServiceError, Term, hookimpl
from hookline_plugins.judging import Asks, RatingOptions, Verdict, together
from hookline_plugins.judging.questions import conversation, text_of
from hookline_plugins.rewards.function import name_of
from hookline_plugins.rewards.signatures import ABSENT, at, prompt_of

OTHER = "the other answer"
"""The text that an answer is compared with; no column of a template can have this name."""


class LLMJudge(Asks["LLMJudge.Config"]):
    """What a language model says of each answer: a number on `scale`, or with `against` 1, 0.5 or 0 for a comparison.

    A row whose reply has no verdict, or that the service does not answer, is not judged. A wrong key, model or address ends the run.
    """

    better = "higher"

    class Config(RatingOptions):
        axes: dict[str, str] = Field(default_factory=lambda: {"score": "how good the answer is"}, min_length=1)
        """What is rated: name → meaning. The reward is the mean; with several, each is a figure of its own."""
        reference: str | None = None
        """The column of a reference answer that the judge sees; `a.b` looks into objects."""
        against: str | None = None
        """The column of an answer that each answer is compared with, in both orders, in place of a rating. `reference` is the
        column that `reference` names; the judge is not told which of the two it is."""

        @property
        def compares(self) -> bool:
            return self.against is not None

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
        option = {OTHER: "`against`", "reference": "`reference`"}.get(name, "the question")
        return text_of(None if value is ABSENT else value, column, record, where, f"{option} of '{self.instance}'")


def _prompt(rollout: Rollout, row: int) -> str:
    """A row's prompt as text; of an episode with several rows, what the policy saw in that row."""
    if int((rollout.episode_B == rollout.episode_B[row]).sum()) > 1:
        return rollout.prompt_text(row)
    prompt = prompt_of(rollout, row)
    return prompt if isinstance(prompt, str) else conversation(prompt)
