"""Whether two rewards put answers into the same order. For evaluations, e.g. of a reward model against the true rewards."""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import Component, ExperimentError, Rollout, Scored, Term, hookimpl


class RankCorrelation(Component):
    """Spearman's rank correlation of two other rewards of the evaluation, over its different answers; its weight is 0.

    Answers that come several times count once. The interval is that of Bonett and Wright (2000), for 95 %.
    """

    better = "higher"

    class Config(hookline.Config):
        of: str
        """The name of one reward of this evaluation, e.g. `reward-model`."""
        with_: str = Field(alias="with")
        """The name of the other one, e.g. `task`."""
        figure: Literal["value", "low", "high"] = "value"
        """The correlation, or an end of its interval."""
        over: Literal["answers", "prompts"] = "answers"
        """`answers`: all of them are put into one order. `prompts`: the answers to each prompt are, and the mean over prompts is taken;
        this is what an algorithm sees that compares the answers to a prompt with each other."""

        @model_validator(mode="after")
        def _interval_of_one_correlation(self) -> Self:
            if self.over == "prompts" and self.figure != "value":
                raise ValueError("has an end of an interval of a mean over prompts; leave out `figure` or `over`")
            return self

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> Tensor:
        return torch.zeros(len(rollout))

    def summarise(self, term: Term, scored: Scored) -> float:
        c = self.config
        missing = next((name for name in (c.of, c.with_) if name not in scored.terms), None)
        if missing:
            raise ExperimentError(
                f"'{self.instance}' compares with '{missing}', which this evaluation does not name",
                f"name one of its rewards: {', '.join(name for name in scored.terms if name != self.instance)}",
            )
        different = {(*scored.prompt_ids(row), -1, *scored.response_ids(row)): row for row in range(len(scored))}
        rows = torch.tensor(list(different.values()), dtype=torch.long)
        of_N, with_N = scored.terms[c.of][rows], scored.terms[c.with_][rows]
        if c.over == "prompts":
            prompt_N = [tuple(scored.prompt_ids(int(row))) for row in rows]
            places = [torch.tensor([one == prompt for one in prompt_N]) for prompt in dict.fromkeys(prompt_N)]
            each = [spearman(of_N[place], with_N[place]) for place in places]
            known = [value for value in each if not math.isnan(value)]
            return sum(known) / len(known) if known else math.nan
        value = spearman(of_N, with_N)
        if c.figure == "value" or len(rows) < 5 or not abs(value) < 1:
            return value
        half = 1.959964 * math.sqrt((1 + value * value / 2) / (len(rows) - 3))
        return math.tanh(math.atanh(value) + (half if c.figure == "high" else -half))


def spearman(a_N: Tensor, b_N: Tensor) -> float:
    """The correlation of ranks, in which equal values share the mean of their ranks; NaN if all values of one are equal."""
    if len(a_N) < 2:
        return math.nan
    ranks = torch.stack([mean_ranks(x_N) for x_N in (a_N, b_N)])
    return float(torch.corrcoef(ranks)[0, 1])


def mean_ranks(x_N: Tensor) -> Tensor:
    """Ranks from 0, float64 [N]; equal values have the mean of their ranks."""
    _, which_N, count = torch.unique(x_N, sorted=True, return_inverse=True, return_counts=True)
    last = count.cumsum(0)
    mean: Tensor = (last - count + last - 1).double() / 2
    return mean[which_N]
