"""What is asked about an item, what a browser learns of it, and what an answer means.

A browser gets the candidates in an order of its annotator's own, as positions 0, 1, …, and answers about positions. Which candidate
stands where, and what wrote it, stays here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

import hookline
from hookline import Comparison, Correction, DataError, ExperimentError, Item, Ranking, Rating, Skip, Span, Spans, Thumb
from hookline_plugins.page.rendering import Media, conversation, rendered, visible

__all__ = ["Kind", "Question", "answer_of", "given_of", "order_of", "question_by_options", "question_of", "shown"]

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


def question_of(item: Item, default: Question) -> Question:
    """The question about an item. Raises DataError for one that cannot be asked about its candidates."""
    own = item.extra.get("ask")
    try:
        found = Question.model_validate({**default.model_dump(), **own}) if isinstance(own, Mapping) else default
    except ValidationError as err:
        first = err.errors()[0]
        raise DataError(
            f"item {item.id}: ask.{'.'.join(map(str, first['loc']))}: {first['msg']}", "see docs/collect.md"
        ) from None
    count = len(item.candidates)
    kind = found.kind or ("rating" if count == 1 else "comparison" if count == 2 else "ranking")
    if count < NEEDS.get(kind, 1) or (kind == "comparison" and count > 2):
        raise DataError(
            f"item {item.id}: a {kind} is asked about {count} candidate{'s' * (count > 1)}", "choose another kind"
        )
    return found.model_copy(update={"kind": kind})


def order_of(secret: bytes, item: str, annotator: str, count: int) -> tuple[int, ...]:
    """The candidates as an annotator sees them, by their places: a fair shuffle that is the same whenever it is asked for."""
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        drawn = hmac.digest(secret, f"{item}\0{annotator}\0{i}".encode("utf-8", "surrogatepass"), "sha256")
        j = int.from_bytes(drawn[:16], "big") % (i + 1)
        order[i], order[j] = order[j], order[i]
    return tuple(order)


def shown(item: Item, asked: Question, order: Sequence[int], media: Media) -> dict[str, Any]:
    """What a browser learns: the conversation and the candidates' texts, by position."""
    plain = asked.kind in ("correction", "spans")
    texts = [item.candidates[place].text for place in order]
    return {
        "kind": asked.kind,
        "question": asked.text,
        "turns": conversation(item.prompt, media, markdown=asked.markdown),
        "candidates": [
            {
                "html": rendered(text, markdown=asked.markdown and not plain),
                "text": _exact(text, asked.kind) if plain else "",
            }
            for text in texts
        ],
        "axes": list(asked.axes),
        "scale": [asked.low, asked.high, asked.step],
        "strength": asked.strength,
        "ties": asked.ties,
        "bothBad": asked.both_bad,
        "labels": list(asked.labels),
    }


def _exact(text: str, kind: str | None) -> str:
    """A text with the same code points as the candidate's, so that positions mean the same; what JSON cannot hold is marked."""
    whole = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
    return (
        "".join(visible(c) if c != "\r" else "\u240d" for c in whole)
        if kind == "spans"
        else whole.replace("\r\n", "\n")
    )


def answer_of(asked: Question, order: Sequence[int], given: Mapping[str, Any]) -> Any:
    """An answer about places, from one about positions. Raises ValueError or pydantic's error for one that is none."""
    if "skip" in given:
        return Skip(reason=str(given["skip"])[:200])

    def place(value: Any) -> int:
        if type(value) is not int or not 0 <= value < len(order):
            raise ValueError(f"names the candidate {value!r}; there are {len(order)}, counted from 0")
        return order[value]

    if asked.kind == "comparison":
        better = given.get("better")
        if (better == "tie" and asked.ties) or (better == "both-bad" and asked.both_bad):
            return Comparison(better=better)
        strength = given.get("strength") if asked.strength else None
        if asked.strength and strength not in (1, 2, 3):
            raise ValueError("has no strength from 1 to 3")
        return Comparison(better=place(better), strength=strength)
    if asked.kind == "ranking":
        groups = given.get("order")
        if not isinstance(groups, list) or not all(isinstance(group, list) for group in groups):
            raise ValueError("has no order: a list of lists of candidates, the best first")
        return Ranking(order=tuple(tuple(sorted(map(place, group))) for group in groups))
    of = place(given.get("of", 0))
    if asked.kind == "rating":
        marks = given.get("marks")
        if not isinstance(marks, dict) or set(marks) != set(asked.axes):
            raise ValueError(f"must have a mark for {', '.join(asked.axes)}")
        return Rating(of=of, marks=marks, low=asked.low, high=asked.high, step=asked.step)
    if asked.kind == "thumb":
        return Thumb(of=of, up=given.get("up"))
    if asked.kind == "correction":
        return Correction(of=of, text=given.get("text"))
    spans = given.get("spans")
    if not isinstance(spans, list) or not all(
        isinstance(span, dict) and span.get("label") in asked.labels for span in spans
    ):
        raise ValueError(f"has no spans: a list of start, end and label, one of {', '.join(asked.labels)}")
    return Spans(of=of, spans=tuple(Span(start=s.get("start"), end=s.get("end"), label=s["label"]) for s in spans))


def given_of(answer: Any, order: Sequence[int]) -> dict[str, Any]:
    """An answer about places as a browser gave it, about positions: to be changed."""
    where = {place: position for position, place in enumerate(order)}
    if isinstance(answer, Skip):
        return {"skip": answer.reason}
    if isinstance(answer, Comparison):
        better = answer.better if isinstance(answer.better, str) else where[answer.better]
        return {"better": better, "strength": answer.strength}
    if isinstance(answer, Ranking):
        return {"order": [[where[place] for place in group] for group in answer.order]}
    values = answer.model_dump(mode="json", exclude={"kind", "low", "high", "step"})
    return {**values, "of": where[answer.of]}


def handle_of(secret: bytes, item: str, annotator: str) -> str:
    """The name of an item for an annotator's browser, which says nothing of the item's own name."""
    text = f"{item}\0{annotator}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(secret + text).hexdigest()[:24]
