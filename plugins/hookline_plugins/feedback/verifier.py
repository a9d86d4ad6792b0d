"""A program as a source of feedback: what the phase's rewards say of the answers, as comparisons, rankings, ratings or thumbs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

import hookline
from hookline import Comparison, Component, Context, Judgement, Metric, Ranking, Rating, Scored, Thumb, hookimpl
from hookline_plugins.feedback.waiting import different


class Verifier(Component):
    """Judges by the sum of the phase's rewards, e.g. `reward: checks.py:compiles`, without noise.

    What it says is stored as events: a reward model or DPO can learn from a check that is too slow for training, or from checks and
    people together.
    """

    needs = frozenset({"groups"})
    metrics = (Metric("decided", "share of comparisons and rankings in which one answer is better than another"),)

    class Config(hookline.Config):
        kind: Literal["comparison", "ranking", "rating", "thumb"] = "comparison"
        """A `comparison` of the best with the worst answer to a prompt, a `ranking` of all of them, or a `rating` or `thumb` of each."""
        least: float = Field(0.0, ge=0)
        """Rewards that differ by no more than this are as good as one another."""
        passes: float = 0.5
        """Of thumbs: the lowest reward that is liked."""
        scale: tuple[float, float] = (0, 1)
        """Of ratings: the ends of the scale; rewards beyond them get the mark of the end."""

        @model_validator(mode="after")
        def _a_scale(self) -> Self:
            if not self.scale[0] < self.scale[1]:
                raise ValueError("has a `scale` whose first number is not below its second")
            return self

    @hookimpl
    def hookline_judge(self, ctx: Context, scored: Scored) -> Sequence[Judgement]:
        said: list[Judgement] = []
        for rows in different(scored):
            worth = {row: float(scored.reward_B[row]) for row in rows}
            said += [
                Judgement(rows=judged, answer=answer, annotator=self.instance, role="model")
                for judged, answer in self._answers(worth)
            ]
        decided = [_decides(one.answer) for one in said if isinstance(one.answer, Comparison | Ranking)]
        if decided:
            ctx.log("decided", sum(decided) / len(decided), len(decided))
        return said

    def _answers(self, worth: dict[int, float]) -> Iterator[tuple[tuple[int, ...], Any]]:
        """Rows, and what is said of them; worth: row → reward."""
        c, order = self.config, sorted(worth, key=lambda row: (-worth[row], row))
        match c.kind:
            case "comparison" if len(order) > 1:
                # in the order in which they were drawn, so that the better one is not always the first
                one, two = sorted((order[0], order[-1]))
                gap = worth[one] - worth[two]
                yield (one, two), Comparison(better="tie" if abs(gap) <= c.least else int(gap < 0))
            case "ranking" if len(order) > 1:
                rows = tuple(worth)
                yield rows, Ranking(order=tuple(tuple(map(rows.index, group)) for group in self._places(order, worth)))
            case "rating":
                low, high = c.scale
                for row, value in worth.items():
                    yield (row,), Rating(marks={"overall": min(max(value, low), high)}, low=low, high=high, step=0)
            case "thumb":
                for row, value in worth.items():
                    yield (row,), Thumb(up=value >= c.passes)

    def _places(self, order: list[int], worth: dict[int, float]) -> list[list[int]]:
        """Rows by place; a place holds those that differ from its best row by `least` or less."""
        places = [[order[0]]]
        for row in order[1:]:
            if worth[places[-1][0]] - worth[row] <= self.config.least:
                places[-1].append(row)
            else:
                places.append([row])
        return places


def _decides(answer: Comparison | Ranking) -> bool:
    return answer.better != "tie" if isinstance(answer, Comparison) else len(answer.order) > 1
