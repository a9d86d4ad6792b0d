"""What is asked about an item: of people on a page, and of a judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

import hookline
from hookline import DataError, ExperimentError, Item

__all__ = ["ABOUT_ONE", "Kind", "Question", "asked_anew", "question_by_options", "question_of"]

Kind = Literal["comparison", "rating", "ranking", "correction", "thumb", "spans"]


class Question(hookline.Config):
    """What is asked about items; an item's `extra.ask` may say it for that item."""

    kind: Kind | None = None
    """Default: a rating of one candidate, a comparison of two, a ranking of more."""
    axes: tuple[str, ...] = Field(("overall",), min_length=1, max_length=20)
    """Of a rating: what is marked."""
    low: float = 1.0
    """Of a rating: the lower end of the scale."""
    high: float = 5.0
    """Of a rating: the upper end."""
    step: float = Field(1.0, ge=0)
    """Of a rating: the distance of neighbouring marks; 0: a slider."""
    strength: bool = False
    """Of a comparison: ask how much better the better one is, from 1 to 3."""
    ties: bool = True
    """Of a comparison: whether a tie can be said."""
    both_bad: bool = True
    """Of a comparison: whether `both are bad` can be said."""
    labels: tuple[str, ...] = Field(("wrong", "good"), min_length=1, max_length=9)
    """Of spans: what a part can be marked as."""
    text: str = ""
    """The question in words; default: the page's own, in the annotator's language."""
    markdown: bool = True
    """Show texts as Markdown; spans and corrections are always plain."""

    @model_validator(mode="after")
    def _scale(self) -> Self:
        count = (self.high - self.low) / self.step if self.step else 1.0
        if not self.low < self.high or count > 100 or abs(count - round(count)) > 1e-9:
            by = f" by {self.step:g}" if self.step else ""
            raise ValueError(f"the scale from {self.low:g} to {self.high:g}{by} has no marks; write e.g. 1-5")
        return self


def question_by_options(given: Mapping[str, Any], scale: str) -> Question:
    """The question that options of the command line describe. Raises ExperimentError that names a wrong option."""
    low, _, high = scale.partition("-")
    try:
        ends = {"low": float(low), "high": float(high)}
    except ValueError:
        raise ExperimentError(f"--scale {scale} is not a scale", "write e.g. 1-5 or 0-1") from None
    values = {**given, **ends, "step": 0.0 if ends == {"low": 0.0, "high": 1.0} else 1.0}
    try:
        return Question.model_validate({key: value for key, value in values.items() if value not in (None, ())})
    except ValidationError as err:
        first = err.errors()[0]
        name = {"kind": "ask"}.get(str(first["loc"][0]), str(first["loc"][0])) if first["loc"] else "scale"
        raise ExperimentError(f"--{name}: {first['msg'].removeprefix('Value error, ')}", "see docs/collect.md") from None


NEEDS = {"comparison": 2, "ranking": 2}
ABOUT_ONE = frozenset({"rating", "thumb", "spans"})
"""Kinds that judge one text: of several, nobody would know which is meant."""


def question_of(item: Item, default: Question) -> Question:
    """The question about an item. Raises DataError for one that cannot be asked about its candidates."""
    own = item.extra.get("ask")
    try:
        found = Question.model_validate({**default.model_dump(), **own}) if isinstance(own, Mapping) else default
    except ValidationError as err:
        first = err.errors()[0]
        where, why = ".".join(map(str, ("ask", *first["loc"]))), first["msg"].removeprefix("Value error, ")
        raise DataError(f"item {item.id}: {where}: {why}", "see docs/collect.md") from None
    count = len(item.candidates)
    kind = found.kind or ("rating" if count == 1 else "comparison" if count == 2 else "ranking")
    if count < NEEDS.get(kind, 1) or (kind == "comparison" and count > 2):
        raise DataError(
            f"item {item.id}: a {kind} is asked about {count} candidate{'s' * (count > 1)}", "choose another kind"
        )
    return found.model_copy(update={"kind": kind})


def asked_anew(item: Item, default: Question) -> Question:
    """The question about an item that nobody has answered. Raises DataError as `question_of` does, and for a question about one
    text where there are several; answers of that shape come from elsewhere, and name theirs."""
    found = question_of(item, default)
    if found.kind in ABOUT_ONE and len(item.candidates) > 1:
        raise DataError(
            f"item {item.id}: a {found.kind} is asked about {len(item.candidates)} candidates", "make an item of each"
        )
    return found
