"""OpenAI's judgements of summaries and continuations, and Anthropic's ratings of attacks on a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import Candidate, Comparison, Event, EventFormat, Ranking, Rating, Record
from hookline_plugins.formats.naming import rest

__all__ = ["RedTeam", "SummaryAxes", "SummaryComparisons", "TokenChoices"]

SOURCES = ("post", "article")
SAMPLES = ("sample0", "sample1", "sample2", "sample3")
WORDS = 50257
"""The tokens of the vocabulary; higher ids are padding."""
ASSISTANT = "\n\nAssistant:"


class SummaryComparisons(EventFormat):
    """Comparisons of summarize-from-feedback. Texts keep the space that they begin with, and the confidence is in `extra`."""

    columns = {"info": dict, "summaries": list, "choice": int, "worker": str}
    holds = frozenset({"comparison"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        if row["choice"] not in (0, 1):
            raise ValueError(f"'choice' is {row['choice']}, not 0 or 1")
        yield {
            "prompt": row["info"][_source(row["info"])],
            "candidates": [Candidate.of(one["text"], by=one.get("policy", "")) for one in row["summaries"]],
            "answer": {"kind": "comparison", "better": row["choice"]},
            "annotator": row["worker"],
            "record": _record(row, "summaries", "choice"),
            "extra": {
                "extra": row.get("extra"),
                "summaries": [rest(one, "text", "policy") for one in row["summaries"]],
            },
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Comparison)
        if not isinstance(event.answer.better, int) or len(event.candidates) != 2:
            raise ValueError(f"one of two summaries is better in this format, and this is '{event.answer.better}'")
        more = event.extra.get("summaries", [{}, {}])
        said = [{**_summary(one), **own} for one, own in zip(event.candidates, more)]
        yield {**_row(event), "summaries": said, "choice": event.answer.better}


class SummaryAxes(EventFormat):
    """Ratings of summarize-from-feedback from 1 to 7: overall, accuracy, coverage, coherence; null is a missing mark."""

    columns = {"info": dict, "summary": dict, "worker": str}
    holds = frozenset({"rating", "skip"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        summary, axes = row["summary"], row["summary"]["axes"]
        marks = {
            axis: mark for axis, mark in axes.items() if isinstance(mark, int | float) and not isinstance(mark, bool)
        }
        rated = {"kind": "rating", "marks": marks, "low": 1, "high": 7}
        yield {
            "prompt": row["info"][_source(row["info"])],
            "candidates": [Candidate.of(summary["text"], by=summary.get("policy", ""))],
            "answer": rated if marks else {"kind": "skip", "reason": "no axis is rated"},
            "annotator": row["worker"],
            "record": _record(row, "summary"),
            "extra": {
                "extra": row.get("extra"),
                "summary": rest(summary, "text", "policy", "axes"),
                "axes": {axis: mark for axis, mark in axes.items() if axis not in marks},
            },
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        marks: dict[str, Any] = {}
        place = 0
        if isinstance(event.answer, Rating):
            place = event.answer.of
            if (event.answer.low, event.answer.high) != (1, 7):
                raise ValueError(
                    f"marks are from 1 to 7, and these are from {event.answer.low:g} to {event.answer.high:g}"
                )
            marks = {axis: int(mark) if mark == int(mark) else mark for axis, mark in event.answer.marks.items()}
        axes = {"axes": {**marks, **event.extra.get("axes", {})}}
        yield {
            **_row(event),
            "summary": {**_summary(event.candidates[place]), **axes, **event.extra.get("summary", {})},
        }


def _source(info: Mapping[str, Any]) -> str:
    """The column of the text that is summarised: a post of Reddit, or an article of CNN."""
    found = next((name for name in SOURCES if isinstance(info.get(name), str)), None)
    if found is None:
        raise ValueError("'info' has no post and no article")
    return found


def _record(row: Record, *used: str) -> dict[str, Any]:
    info = row["info"]
    return {**rest(row, "info", "worker", "extra", *used), "info": rest(info, _source(info)), "source": _source(info)}


def _row(event: Event) -> dict[str, Any]:
    if not isinstance(event.prompt, str):
        raise ValueError("its prompt is messages, and the format has text")
    record = dict(event.record)
    source = record.pop("source", SOURCES[0])
    source = source if source in SOURCES else SOURCES[0]
    info = record.pop("info", None)
    made = {
        "info": {**(info if isinstance(info, dict) else {}), source: event.prompt},
        "worker": event.annotator,
        **record,
    }
    return made if event.extra.get("extra") is None else {**made, "extra": event.extra["extra"]}


def _summary(candidate: Candidate) -> dict[str, Any]:
    return {"text": candidate.text, **({"policy": candidate.by.name} if candidate.by else {})}


class TokenChoices(EventFormat):
    """The best of four continuations in lm-human-preferences, as token ids of GPT-2; padding at their ends is left out."""

    columns = {"query": list, **dict.fromkeys(SAMPLES, list), "best": int}
    holds = frozenset({"ranking"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        best = row["best"]
        if best not in range(len(SAMPLES)):
            raise ValueError(f"'best' is {best}, not 0, 1, 2 or 3")
        ids = {name: _unpadded(row[name]) for name in ("query", *SAMPLES)}
        padding = {name: row[name][len(ids[name]) :] for name in ids if len(ids[name]) < len(row[name])}
        yield {
            "prompt": "",
            "prompt_ids": ids["query"],
            "candidates": [{"text": "", "token_ids": ids[name]} for name in SAMPLES],
            "answer": {"kind": "ranking", "order": [[best], [i for i in range(len(SAMPLES)) if i != best]]},
            "annotator": "unknown",
            "record": rest(row, *self.columns),
            "extra": {"padding": padding} if padding else {},
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Ranking)
        ids = [event.prompt_ids, *(one.token_ids for one in event.candidates)]
        if len(ids) != 5 or any(one is None for one in ids):
            raise ValueError("a row is token ids of a prompt and of four answers")
        if [len(group) for group in event.answer.order] != [1, 3]:
            raise ValueError("one of four answers is the best, and the others are as good as one another")
        padding = event.extra.get("padding", {})
        said = {name: [*(one or ()), *padding.get(name, ())] for name, one in zip(("query", *SAMPLES), ids)}
        yield {**event.record, **said, "best": event.answer.order[0][0]}


def _unpadded(ids: Sequence[int]) -> list[int]:
    end = len(ids)
    while end and ids[end - 1] >= WORDS:
        end -= 1
    return list(ids[:end])


class RedTeam(EventFormat):
    """Anthropic's red-team attempts: how far a person got a model to do harm, from 0 to 4, over a whole transcript.

    The answer is everything after the first `Assistant:`. What a model thinks of it stays in `record`.
    """

    columns = {"transcript": str, "rating": (int, float), "min_harmlessness_score_transcript": (int, float)}
    holds = frozenset({"rating"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        asked, spoke, said = row["transcript"].partition(ASSISTANT)
        yield {
            "prompt": asked + spoke,
            "candidates": [Candidate.of(said)],
            "answer": {"kind": "rating", "marks": {"success": row["rating"]}, "low": 0, "high": 4},
            "annotator": "unknown",
            "record": rest(row, "transcript", "rating"),
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        assert isinstance(event.answer, Rating)
        if event.answer.marks.keys() != {"success"} or (event.answer.low, event.answer.high) != (0, 4):
            raise ValueError("a rating is from 0 to 4 on the axis 'success'")
        if "min_harmlessness_score_transcript" not in event.record or not isinstance(event.prompt, str):
            raise ValueError("a row has the transcript as text, and a model's score of it")
        said = event.candidates[event.answer.of].text
        yield {**event.record, "transcript": f"{event.prompt}{said}", "rating": event.answer.marks["success"]}
