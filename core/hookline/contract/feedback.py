"""Feedback: what an annotator said about answers to a prompt. One record for every kind of it, which is never changed.

An annotator is a person, a model or a simulation. An `Event` holds the prompt and the answers themselves; phases, files and
stores keep it. A correction of an event is another event that names it in `supersedes`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from hookline.contract.fields import Strict
from hookline.errors import DataError
from hookline.storage.lines import not_finite

__all__ = [
    "ANSWERS",
    "Answer",
    "Candidate",
    "Comment",
    "Comparison",
    "Correction",
    "Event",
    "Kept",
    "Producer",
    "Ranking",
    "Rating",
    "Skip",
    "Span",
    "Spans",
    "Thumb",
]

Index = Annotated[int, Field(ge=0)]
"""A candidate by its place in the event's `candidates`."""
TokenId = Annotated[int, Field(strict=True, ge=0)]


def _no_truth(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"is {str(value).lower()}; it must be 0, 1, tie or both-bad")
    return value


class _Recorded(Strict):
    """A part of an event: every number is finite, because JSON has no others."""

    model_config = ConfigDict(allow_inf_nan=False)

    @field_validator("prompt", "messages", "record", "extra", check_fields=False)
    @classmethod
    def _finite(cls, value: Any) -> Any:
        """Of the fields that hold any JSON, whose numbers pydantic does not look at and would write as null."""
        if odd := not_finite(value):
            raise ValueError(f"holds {odd}, a number that JSON does not have")
        return value


class Kept(_Recorded):
    """What stores and files keep: it has an id, and is read as it was written."""

    @field_validator("id", "item", check_fields=False)
    @classmethod
    def _plain(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError("has characters that cannot be printed")
        return value

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str) -> Self:
        """What `written` wrote. Raises DataError that names `where` for anything else."""
        try:
            return cls.model_validate(values)
        except ValidationError as err:
            first = err.errors()[0]
            place = ".".join(map(str, first["loc"]))
            why = first["msg"].removeprefix("Value error, ")
            what = f"{place}: " if place else f"the {cls.__name__.lower()} "
            raise DataError(f"{where}: {what}{why}", f"see the fields of hookline.{cls.__name__}") from None


class _OfOne(_Recorded):
    """An answer about one candidate."""

    of: Index = 0
    """The candidate, by its place."""


class Comparison(_Recorded):
    """Which of the first two candidates is better."""

    kind: Literal["comparison"] = "comparison"
    """Names this sort of answer in JSON."""
    better: Annotated[Literal[0, 1, "tie", "both-bad"], BeforeValidator(_no_truth)]
    """The better candidate; `tie`: both are as good; `both-bad`: neither is acceptable."""
    strength: int | None = Field(None, ge=1, le=3)
    """How much better: 1 slightly, 2 clearly, 3 by far."""


class Ranking(_Recorded):
    """Candidates in order; several may be as good as one another, and some may have no place."""

    kind: Literal["ranking"] = "ranking"
    """Names this sort of answer in JSON."""
    order: tuple[tuple[Index, ...], ...] = Field(min_length=1)
    """Groups of candidates, the best group first; the candidates of a group tie. Candidates in no group were not ranked."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        ranked = [i for group in self.order for i in group]
        if len(set(ranked)) < len(ranked) or not all(self.order):
            raise ValueError(
                f"ranks {[list(group) for group in self.order]}; each candidate has one place, and no place is empty"
            )
        return self


class Rating(_OfOne):
    """Marks for one candidate, on a scale, for one axis or several."""

    kind: Literal["rating"] = "rating"
    """Names this sort of answer in JSON."""
    marks: dict[str, float] = Field(min_length=1)
    """Axis → mark; an axis without a mark is absent. A single axis is usually called `overall`."""
    low: float = 1.0
    """The lower end of the scale."""
    high: float = 5.0
    """The upper end of the scale."""
    step: float = Field(1.0, ge=0)
    """The distance between neighbouring marks; 0: any number between the ends."""

    @model_validator(mode="after")
    def _on_the_scale(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"has a scale from {self.low:g} to {self.high:g}")
        for axis, mark in self.marks.items():
            steps = (mark - self.low) / self.step if self.step else 0.0
            if not self.low <= mark <= self.high or abs(steps - round(steps)) > 1e-6:
                by = f" in steps of {self.step:g}" if self.step else ""
                raise ValueError(
                    f"has the mark {mark:g} for '{axis}', which is not on the scale {self.low:g} to {self.high:g}{by}"
                )
        return self


class Correction(_OfOne):
    """A better text in place of a candidate's."""

    kind: Literal["correction"] = "correction"
    """Names this sort of answer in JSON."""
    text: str
    """The whole text after the correction."""

    def changes(self, before: str) -> list[tuple[int, int, str]]:
        """What was changed in `before`, the candidate's text: (start, end, new text), in code points, from left to right."""
        found = SequenceMatcher(None, before, self.text, autojunk=False).get_opcodes()
        return [(i, j, self.text[k:m]) for tag, i, j, k, m in found if tag != "equal"]


class Thumb(_OfOne):
    """A candidate was liked or disliked."""

    kind: Literal["thumb"] = "thumb"
    """Names this sort of answer in JSON."""
    up: bool
    """True if it was liked."""


class Span(_Recorded):
    """A part of a candidate's text."""

    start: int = Field(ge=0)
    """The first code point of the part, counted from 0."""
    end: int = Field(ge=1)
    """The code point after the last."""
    label: str = Field(min_length=1)
    """What the part is, e.g. `wrong`."""
    worth: float | None = None
    """What the part is worth as a reward, where the label says it."""

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end <= self.start:
            raise ValueError(f"begins at {self.start} and ends at {self.end}")
        return self


class Spans(_OfOne):
    """Marked parts of a candidate's text; no parts: none had to be marked."""

    kind: Literal["spans"] = "spans"
    """Names this sort of answer in JSON."""
    spans: tuple[Span, ...]
    """The marked parts, in any order; they may overlap."""


class Comment(_Recorded):
    """Words about a candidate, or about the item if `of` is None. They are kept as they are, and nothing acts on them."""

    kind: Literal["comment"] = "comment"
    """Names this sort of answer in JSON."""
    of: Index | None = None
    """The candidate, by its place."""
    text: str
    """The words."""


class Skip(_Recorded):
    """The annotator did not want to answer: missing data, not a tie."""

    kind: Literal["skip"] = "skip"
    """Names this sort of answer in JSON."""
    reason: str = ""
    """Why, in the words of the annotator or of a list."""


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)


Answer = Annotated[
    Annotated[Comparison, Tag("comparison")]
    | Annotated[Ranking, Tag("ranking")]
    | Annotated[Rating, Tag("rating")]
    | Annotated[Correction, Tag("correction")]
    | Annotated[Thumb, Tag("thumb")]
    | Annotated[Spans, Tag("spans")]
    | Annotated[Comment, Tag("comment")]
    | Annotated[Skip, Tag("skip")],
    Discriminator(
        _kind,
        custom_error_type="kind",
        custom_error_message="is not an answer; its `kind` must be comparison, ranking, rating, correction, thumb, spans, comment or skip",
    ),
]
"""What an annotator said."""
ANSWERS: Mapping[str, type[Strict]] = {
    cls.model_fields["kind"].default: cls
    for cls in (Comparison, Ranking, Rating, Correction, Thumb, Spans, Comment, Skip)
}
"""What an annotator can answer, by its `kind`."""


class Producer(_Recorded):
    """What wrote a candidate: the policy of a run at a step, or something outside of runs."""

    name: str = "policy"
    """`policy`, or e.g. the name of a model or a data set."""
    run: str = ""
    """The run's id; empty in the data of the run itself."""
    phase: str = ""
    """With rounds, NAME@ROUND."""
    step: int | None = None
    """The number of finished steps of the phase when the candidate was drawn."""
    version: int | None = None
    """The optimiser steps that its weights had taken in the phase."""
    weights: str = ""
    """The beginning of the hash of its weights, if that is known."""


class Candidate(_Recorded):
    """One answer to the prompt."""

    text: str
    """The answer, without the token that ended it."""
    messages: tuple[dict[str, Any], ...] | None = None
    """The answer as messages, where it is not one text of the assistant; `text` is then the last of their texts."""
    token_ids: tuple[TokenId, ...] | None = None
    """The tokens as they were sampled."""
    sample: int | None = None
    """The sample id in the run that drew it."""
    by: Producer | None = None
    """What wrote it, if that is known."""
    gold: float | None = None
    """Its true reward, where a simulation knows it."""

    @classmethod
    def of(cls, said: Any, by: str = "") -> Candidate:
        """The candidate that an answer is, given as text, a message, or messages. by: the name of the model that wrote it."""
        producer = Producer(name=by) if by else None
        if not isinstance(said, Sequence | Mapping) or isinstance(said, str):
            return cls(text=said, by=producer)
        turns = (said,) if isinstance(said, Mapping) else tuple(said)
        last = turns[-1] if turns and isinstance(turns[-1], Mapping) else {}
        text = last.get("content")
        if turns == ({"role": "assistant", "content": text},) and isinstance(text, str):
            return cls(text=text, by=producer)
        return cls(text=text if isinstance(text, str) else "", messages=turns, by=producer)

    def said(self, *, as_messages: bool) -> Any:
        """The answer as `of` takes it: messages if it has them or if they are asked for, else its text."""
        if self.messages is None:
            return [{"role": "assistant", "content": self.text}] if as_messages else self.text
        return list(self.messages)


class Event(Kept):
    """One answer of one annotator about one item: a prompt with one candidate or more."""

    schema_: Literal[1] = Field(1, alias="schema")
    """The version of this record."""
    id: str = Field("", max_length=200)
    """Who writes an event chooses its id; the same event again is the same id. Default: a hash of everything else."""
    item: str = Field("", max_length=200)
    """The same for all events about the same prompt and candidates. Default: a hash of these."""
    prompt: str | tuple[dict[str, Any], ...]
    """A text, or messages."""
    prompt_ids: tuple[TokenId, ...] | None = None
    """The prompt's tokens, where the candidates have theirs."""
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    """The answers to the prompt, which `answer` names by their places."""
    answer: Answer
    """What the annotator said."""
    annotator: str = Field(min_length=1, max_length=200)
    """A name that is not the person's own: a pseudonym, or the name of a component or model."""
    role: Literal["person", "model", "simulated"] = "person"
    """What the annotator is."""
    source: str = ""
    """Where the answer was given: the component's name in the experiment, or a program."""
    shown: tuple[Index, ...] = ()
    """The candidates in the order in which the annotator saw them; empty if that is not known."""
    shown_at: float | None = None
    """When the item was shown, in seconds since 1970."""
    begun_at: float | None = None
    """When the annotator first touched it, in seconds since 1970."""
    submitted_at: float | None = None
    """When the answer was given, in seconds since 1970."""
    seconds: float | None = Field(None, ge=0)
    """How long the annotator was active on it."""
    expected: Answer | None = None
    """The right answer, for an item that checks annotators."""
    repeats: str | None = None
    """The id of the event whose item is shown once more, to check that the annotator says the same."""
    supersedes: str | None = None
    """The id of the event that this one replaces."""
    decides: bool = False
    """Whether it is the answer to its item, given by somebody who saw what the annotators said: only it counts then."""
    record: dict[str, Any] = Field(default_factory=dict)
    """The dataset row of the prompt."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Anything else, as JSON."""

    @model_validator(mode="after")
    def _about_its_candidates(self) -> Self:
        count = len(self.candidates)
        for answer in filter(None, (self.answer, self.expected)):
            highest = max(_places(answer), default=-1)
            if highest >= count:
                raise ValueError(f"answers about candidate {highest}, counted from 0, and has {count}")
            if isinstance(answer, Spans):
                ends = max((span.end for span in answer.spans), default=0)
                if ends > len(self.candidates[answer.of].text):
                    raise ValueError(
                        f"marks a span that ends at {ends}, beyond the {len(self.candidates[answer.of].text)} code points"
                    )
        if self.shown and (len(set(self.shown)) < len(self.shown) or max(self.shown) >= count):
            raise ValueError(f"was shown as {list(self.shown)}, which is not an order of its {count} candidates")
        if not self.item:
            object.__setattr__(self, "item", item_id(self.prompt, self.prompt_ids, self.candidates))
        if not self.id:
            object.__setattr__(self, "id", _digest(self.model_dump(mode="json", exclude={"id"})))
        return self

    @property
    def question(self) -> tuple[str, str, int | None]:
        """What it answers: the item, the kind of answer, and the candidate if the answer is about one."""
        return self.item, self.answer.kind, getattr(self.answer, "of", None)

    def written(self) -> dict[str, Any]:
        """The event as JSON, without the fields that say nothing."""
        dumped = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        answer = {"kind": self.answer.kind, **dumped["answer"]}
        expected = {"expected": {"kind": self.expected.kind, **dumped["expected"]}} if self.expected else {}
        return {"schema": 1, **dumped, "answer": answer, **expected}

    def levels(self) -> dict[int, int] | None:
        """Candidate → its level, higher is better, where the answer orders candidates; None where it does not.

        A tie is one level for both; `both-bad` orders nothing. A correction is above what it corrects, as an additional
        candidate with the number after the last.
        """
        answer = self.answer
        if isinstance(answer, Comparison):
            if answer.better == "both-bad":
                return None
            return {0: 0, 1: 0} if answer.better == "tie" else {answer.better: 1, 1 - answer.better: 0}
        if isinstance(answer, Ranking):
            return {i: len(answer.order) - 1 - place for place, group in enumerate(answer.order) for i in group}
        if isinstance(answer, Correction):
            return {len(self.candidates): 1, answer.of: 0}
        return None


def _places(answer: Any) -> Sequence[int]:
    """The candidates that an answer names."""
    if isinstance(answer, Comparison):
        return (0, 1)
    if isinstance(answer, Ranking):
        return [i for group in answer.order for i in group]
    of = getattr(answer, "of", None)
    return () if of is None else (of,)


def item_id(prompt: Any, prompt_ids: Sequence[int] | None, candidates: Sequence[Candidate]) -> str:
    """The id of an item that has no other: a hash of what is judged."""
    said = [[one.text, one.token_ids, *([one.messages] if one.messages else [])] for one in candidates]
    return _digest([prompt, prompt_ids, said])


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:32]
