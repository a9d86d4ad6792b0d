"""NVIDIA's HelpSteer: the ratings and preferences of HelpSteer2, and preferences, feedback, edits and their quality of HelpSteer3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import Candidate, Comment, Comparison, Correction, Event, EventFormat, Rating, Record
from hookline_plugins.formats.naming import rest

__all__ = [
    "HelpSteer2", "HelpSteer2Preference", "HelpSteer3", "HelpSteer3Edit", "HelpSteer3EditQuality", "HelpSteer3Feedback",
]  # fmt: skip

AXES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
NOBODY = "unknown"
OVERALL = "overall"
"""The annotator of a preference that several annotators together came to."""


class HelpSteer2(EventFormat):
    """HelpSteer2's ratings from 0 to 4; the rows of one prompt, one after another, are the answers of one item."""

    columns = {"prompt": str, "response": str, **dict.fromkeys(AXES, (int, float))}
    holds = frozenset({"rating"})

    def together(self, row: Record) -> Any:
        return row["prompt"]

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        candidates = [Candidate.of(row["response"]) for row in rows]
        for place, row in enumerate(rows):
            more = rest(row, *self.columns)
            yield {
                "prompt": row["prompt"],
                "candidates": candidates,
                "answer": {
                    "kind": "rating",
                    "of": place,
                    "marks": {axis: row[axis] for axis in AXES},
                    "low": 0,
                    "high": 4,
                },
                "annotator": NOBODY,
                "extra": {"row": more} if more else {},
            }

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        for event in events:
            assert isinstance(event.answer, Rating)
            if event.answer.marks.keys() != set(AXES) or (event.answer.low, event.answer.high) != (0, 4):
                raise ValueError(f"a row has marks from 0 to 4 for {', '.join(AXES)}")
            marks = {axis: _whole(event.answer.marks[axis]) for axis in AXES}
            said = event.candidates[event.answer.of].text
            yield {"prompt": _text(event), "response": said, **marks, **event.extra.get("row", {})}


class Preference(EventFormat):
    """Two answers and a number from -3 to 3: below 0 the first is better, above 0 the second, at 0 neither."""

    holds = frozenset({"comparison"})
    answers: tuple[str, str]
    """The columns of the answers."""

    def pair(self, row: Record) -> dict[str, Any]:
        return {"candidates": [Candidate.of(row[name]) for name in self.answers]}

    def written(self, event: Event) -> dict[str, Any]:
        if len(event.candidates) != 2:
            raise ValueError(f"a row has two answers, and there are {len(event.candidates)}")
        return {name: one.text for name, one in zip(self.answers, event.candidates)}


def _compared(score: Any) -> dict[str, Any]:
    if not isinstance(score, int | float) or score != int(score) or abs(score) > 3:
        raise ValueError(f"a preference is {score!r}, not a whole number from -3 to 3")
    if score == 0:
        return {"kind": "comparison", "better": "tie"}
    return {"kind": "comparison", "better": 0 if score < 0 else 1, "strength": abs(int(score))}


def _score(event: Event) -> int:
    assert isinstance(event.answer, Comparison)
    if event.answer.better == "both-bad":
        raise ValueError("a number from -3 to 3 cannot say that both answers are bad")
    if event.answer.better == "tie":
        return 0
    return (event.answer.strength or 1) * (-1 if event.answer.better == 0 else 1)


class HelpSteer2Preference(Preference):
    """HelpSteer2's preferences between the two answers to a prompt, with the annotators' reasons."""

    columns = {"prompt": str, "response_1": str, "response_2": str, "preference_strength": (int, float)}
    answers = ("response_1", "response_2")

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        more = rest(row, *self.columns)
        said = {"answer": _compared(row["preference_strength"]), "annotator": OVERALL}
        yield {"prompt": row["prompt"], **self.pair(row), **said, "extra": {"row": more} if more else {}}

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        made = {"prompt": _text(event), **self.written(event), "preference_strength": _score(event)}
        yield {**made, **event.extra.get("row", {})}


class HelpSteer3(Preference):
    """HelpSteer3's preferences: one event for each annotator; what they came to together is in `record.overall_preference`.

    A row without individual preferences is one event of the annotator `overall`.
    """

    columns = {"context": list, "response1": str, "response2": str, "overall_preference": (int, float)}
    answers = ("response1", "response2")

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        item = {"prompt": row["context"], **self.pair(row)}
        together = _compared(row["overall_preference"])
        alone = row.get("individual_preference") or ()
        if not alone:
            more = rest(row, "context", *self.answers, "overall_preference")
            yield {**item, "answer": together, "annotator": OVERALL, "record": more}
        for number, one in enumerate(alone, 1):
            yield {
                **item,
                "answer": _compared(one["score"]),
                "annotator": f"annotator-{number}",
                "record": rest(row, "context", *self.answers, "individual_preference"),
                "extra": rest(one, "score"),
            }

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        alone = [one for one in events if one.annotator != OVERALL]
        together = next((one for one in events if one.annotator == OVERALL), None)
        mean = sum(map(_score, alone)) / max(len(alone), 1)
        overall = {"overall_preference": _score(together) if together else round(mean)}
        individual = {"individual_preference": [{"score": _score(one), **one.extra} for one in alone]} if alone else {}
        yield {"context": _messages(event), **self.written(event), **overall, **event.record, **individual}


class HelpSteer3Feedback(EventFormat):
    """HelpSteer3's feedback: up to three comments on each of two answers."""

    columns = {"context": list, "response1": str, "response2": str, "feedback1": list, "feedback2": list}
    holds = frozenset({"comment"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        for place, name in enumerate(("feedback1", "feedback2")):
            for number, text in enumerate(row[name], 1):
                yield {
                    "prompt": row["context"],
                    "candidates": [Candidate.of(row[f"response{i}"]) for i in (1, 2)],
                    "answer": {"kind": "comment", "of": place, "text": text},
                    "annotator": f"annotator-{number}",
                    "record": rest(row, *self.columns),
                }

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        if len(event.candidates) != 2:
            raise ValueError(f"a row has two answers, and there are {len(event.candidates)}")
        said: list[list[str]] = [[], []]
        for one in events:
            assert isinstance(one.answer, Comment)
            if one.answer.of is None:
                raise ValueError("a comment is about one of the answers, and this one is about the item")
            said[one.answer.of].append(one.answer.text)
        texts = {f"response{i}": one.text for i, one in enumerate(event.candidates, 1)}
        yield {**event.record, "context": _messages(event), **texts, "feedback1": said[0], "feedback2": said[1]}


class HelpSteer3Edit(EventFormat):
    """HelpSteer3's edits: an answer, the feedback on it, and the answer after a person edited it."""

    columns = {"context": list, "original_response": str, "edited_response": str}
    holds = frozenset({"correction"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        yield {
            "prompt": row["context"],
            "candidates": [Candidate.of(row["original_response"])],
            "answer": {"kind": "correction", "text": row["edited_response"]},
            "annotator": NOBODY,
            "record": rest(row, *self.columns),
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Correction)
        before = event.candidates[event.answer.of].text
        edited = {"original_response": before, "edited_response": event.answer.text}
        yield {**event.record, "context": _messages(event), **edited}


class HelpSteer3EditQuality(Preference):
    """HelpSteer3's quality of edits: a good and a bad edit of one answer."""

    columns = {"context": list, "original_response": str, "good_edited_response": str, "bad_edited_response": str}
    answers = ("good_edited_response", "bad_edited_response")

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        said = {"answer": {"kind": "comparison", "better": 0}, "annotator": NOBODY}
        yield {"prompt": row["context"], **self.pair(row), **said, "record": rest(row, "context", *self.answers)}

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        score, texts = _score(event), list(self.written(event).values())
        if score == 0:
            raise ValueError("one of two edits is good and one is bad, and this is a tie")
        good, bad = texts if score < 0 else texts[::-1]
        before = {"original_response": event.record.get("original_response", "")}
        yield {
            "context": _messages(event),
            **before,
            "good_edited_response": good,
            "bad_edited_response": bad,
            **event.record,
        }


def _whole(mark: float) -> int | float:
    return int(mark) if mark == int(mark) else mark


def _text(event: Event) -> str:
    if not isinstance(event.prompt, str):
        raise ValueError("its prompt is messages, and the format has text")
    return event.prompt


def _messages(event: Event) -> list[Any]:
    return [{"role": "user", "content": event.prompt}] if isinstance(event.prompt, str) else list(event.prompt)
