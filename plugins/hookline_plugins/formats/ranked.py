"""Answers of many models, rated or ranked by another model: UltraFeedback and Nectar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import Candidate, Comparison, Event, EventFormat, Rating, Record
from hookline_plugins.formats.naming import rest

__all__ = ["Nectar", "UltraFeedback", "mended"]

JUDGE = "gpt-4"
OVERALL = "overall"


class UltraFeedback(EventFormat):
    """UltraFeedback: for each answer its ratings from 1 to 5, and an overall score from 1 to 10, both by GPT-4.

    Some thousand overall scores of 10 stand for 1. Where the mean of the ratings is 2 or less, 10 is read as 1; where it is
    above 4, it stays; between, nobody knows, and the score is left out.
    """

    columns = {"instruction": str, "completions": list}
    holds = frozenset({"rating"})

    def fits(self, row: Record) -> bool:
        return super().fits(row) and all(isinstance(one, dict) and "response" in one for one in row["completions"])

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        said = row["completions"]
        item = {
            "prompt": row["instruction"],
            "candidates": [Candidate.of(one["response"], by=one.get("model", "")) for one in said],
            "record": rest(row, *self.columns),
            "annotator": JUDGE,
            "role": "model",
        }
        for place, one in enumerate(said):
            marks = {
                axis: mark
                for axis, given in (one.get("annotations") or {}).items()
                if (mark := _mark(given)) is not None
            }
            kept = rest(one, "model", "response", "annotations", "overall_score")
            rationales = {axis: _without_mark(given) for axis, given in (one.get("annotations") or {}).items()}
            extra = {"completion": kept, "annotations": rationales}
            if marks:
                yield {**item, "answer": {"kind": "rating", "of": place, "marks": marks}, "extra": extra}
            overall = mended(one.get("overall_score"), list(marks.values()))
            if overall is not None:
                answer = {"kind": "rating", "of": place, "marks": {OVERALL: overall}, "low": 1, "high": 10, "step": 0}
                yield {**item, "answer": answer, "extra": {} if marks else extra}

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        if not isinstance(event.prompt, str):
            raise ValueError("its prompt is messages, and the format has text")
        said: list[dict[str, Any]] = [
            {**({"model": one.by.name} if one.by else {}), "response": one.text, "annotations": {}}
            for one in event.candidates
        ]
        for one in events:
            assert isinstance(one.answer, Rating)
            about_it = said[one.answer.of]
            if one.answer.marks.keys() == {OVERALL} and one.answer.high == 10:
                about_it["overall_score"] = one.answer.marks[OVERALL]
                marks: Mapping[str, float] = {}
            elif (one.answer.low, one.answer.high) != (1, 5):
                raise ValueError(
                    f"ratings are from 1 to 5, and these are from {one.answer.low:g} to {one.answer.high:g}"
                )
            else:
                marks = one.answer.marks
            about_it |= one.extra.get("completion", {})
            about_it["annotations"] |= one.extra.get("annotations", {})
            for axis, mark in marks.items():
                about_it["annotations"][axis] = {"Rating": f"{mark:g}", **about_it["annotations"].get(axis, {})}
        models = {"models": [one["model"] for one in said]} if all("model" in one for one in said) else {}
        yield {**models, **event.record, "instruction": event.prompt, "completions": said}


def mended(score: Any, ratings: Sequence[float]) -> float | None:
    """An overall score of UltraFeedback; None for a 10 that may stand for 1, and for anything that is not from 1 to 10."""
    try:
        number = float(score)
    except (TypeError, ValueError):
        return None
    if not 1 <= number <= 10:
        return None
    if number < 10:
        return number
    mean = sum(ratings) / len(ratings) if ratings else 3.0
    return 1.0 if mean <= 2 else number if mean > 4 else None


def _mark(given: Any) -> float | None:
    """A rating from 1 to 5; None where it is missing, `N/A`, or no such number, e.g. "10" for "1."."""
    value: Any = given.get("Rating") if isinstance(given, Mapping) else given
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 1 <= number <= 5 and number == int(number) else None


def _without_mark(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        return {}
    return rest(given, *(["Rating"] if _mark(given) is not None else []))


class Nectar(EventFormat):
    """Nectar: answers of up to seven models, ranked by GPT-4; rank 1 is the best, and ranks may be equal or missing."""

    columns = {"prompt": str, "answers": list}
    holds = frozenset({"ranking", "comparison"})

    def fits(self, row: Record) -> bool:
        said = row["answers"] if super().fits(row) else []  # in Parquet, an answer without a rank has no such key
        return all(isinstance(one, dict) and "answer" in one for one in said) and any("rank" in one for one in said)

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        ranks = [one.get("rank") for one in row["answers"]]
        known = sorted({rank for rank in ranks if rank is not None})
        order = [[i for i, rank in enumerate(ranks) if rank == one] for one in known]
        kept = [rest(one, "answer", "model", "rank") for one in row["answers"]]
        extra: dict[str, Any] = {"answers": kept} if any(kept) else {}
        if ranks != _ranks(order, len(ranks)):
            extra["ranks"] = ranks
        yield {
            "prompt": row["prompt"],
            "candidates": [Candidate.of(one["answer"], by=one.get("model", "")) for one in row["answers"]],
            "answer": {"kind": "ranking", "order": order} if order else {"kind": "skip", "reason": "no ranks"},
            "annotator": JUDGE,
            "role": "model",
            "record": rest(row, *self.columns),
            "extra": extra,
        }

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        if not isinstance(event.prompt, str):
            raise ValueError("its prompt is messages, and the format has text")
        if isinstance(event.answer, Comparison) and event.answer.better == "both-bad":
            raise ValueError("ranks cannot say that both answers are bad")
        levels = event.levels() or {}
        order = [[i for i in levels if levels[i] == level] for level in sorted(set(levels.values()), reverse=True)]
        ranks = event.extra.get("ranks") or _ranks(order, len(event.candidates))
        kept = event.extra.get("answers") or [{}] * len(ranks)
        answers = [
            {"answer": one.text, **({"model": one.by.name} if one.by else {}), "rank": rank, **more}
            for one, rank, more in zip(event.candidates, ranks, kept)
        ]
        yield {**event.record, "prompt": event.prompt, "answers": answers}


def _ranks(order: Sequence[Sequence[int]], count: int) -> list[int | None]:
    """The rank of each answer: one more than the number of better ones; None where it has none."""
    ranks: list[int | None] = [None] * count
    for place, group in enumerate(order):
        for i in group:
            ranks[i] = 1 + sum(map(len, order[:place]))
    return ranks
