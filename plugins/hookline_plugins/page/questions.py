"""What a browser learns of an item and its question, and what an answer means.

A browser gets the candidates in an order of its annotator's own, as positions 0, 1, …, and answers about positions. Which candidate
stands where, and what wrote it, stays here.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from hookline import Comparison, Correction, Item, Ranking, Rating, Skip, Span, Spans, Thumb
from hookline_plugins.asking import Question
from hookline_plugins.page.rendering import Media, conversation, rendered, visible

__all__ = ["answer_of", "given_of", "handle_of", "order_of", "shown"]

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
