"""Potato's annotated instances: a row for each instance and annotator, with the answers of each scheme."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import Comment, Comparison, Event, EventFormat, Rating, Record, Skip
from hookline_plugins.formats.naming import About, about, label_of, rest

__all__ = ["Potato"]

ANSWERED = "label_annotations"
LETTERS = "AB"
MOST = 3
"""A comparison on a scale is a number from -3 (the first is by far better) to 3."""
CLICKED = ("true", "True", True, "on", "1")
"""The values that versions of Potato write for a label that was chosen."""


class Potato(EventFormat):
    """Potato's `annotated_instances.jsonl`: `{"preference": {"selection": "A"}}`, `{"scale_value": "-2"}`, and older forms.

    A scheme of one choice in which several were stored is a skip: nobody knows which was meant. A text is a comment, a number
    a rating where there is one answer. The column `user` names the annotator; Potato has it in the folder's name.
    """

    columns = {ANSWERED: dict}
    holds = frozenset({"comparison", "rating", "comment", "skip"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        shown = about(rest(row, "id", "instance_id", "user", ANSWERED))
        record = {name: value for name, value in row.items() if name in shown.others}
        if (shown.asked, shown.names) != _names(len(shown.names)):
            record["names"] = [shown.asked, *shown.names]
        item = {"prompt": shown.prompt, "candidates": shown.candidates, "record": record}
        if "id" in row or "instance_id" in row:
            item["item"] = str(row.get("id", row.get("instance_id")))
        for scheme, given in row[ANSWERED].items():
            answer = _answer(scheme, given, shown)
            extra = {"scheme": scheme}
            event = Event.read(
                {"prompt": "", "candidates": shown.candidates, "annotator": "-", "answer": answer},
                f"the answer to '{scheme}'",
            )
            if _value(event) != given:
                extra["value"] = given
            yield {**item, "answer": answer, "annotator": str(row.get("user") or "unknown"), "extra": extra}

    def key(self, event: Event) -> Any:
        return event.item, event.annotator

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        event = events[0]
        own = dict(event.record)
        asked, names = _names(len(event.candidates))
        if event.source == self.instance and "names" in own:
            asked, *names = own.pop("names")
        prompt = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
        shown = {**({asked: prompt} if asked else {}), **{name: one.text for name, one in zip(names, event.candidates)}}
        answers = {one.extra.get("scheme") or _scheme(one): one.extra.get("value", _value(one)) for one in events}
        who = {} if event.annotator == "unknown" else {"user": event.annotator}
        yield {**own, "id": event.item, **who, **shown, ANSWERED: answers}


def _names(count: int) -> tuple[str, tuple[str, ...]]:
    """The columns of the prompt and the answers where events do not say them."""
    return "prompt", tuple(f"response_{letter}" for letter in "abcdefgh"[:count]) if count > 1 else ("response",)


def _scheme(event: Event) -> str:
    """The scheme of an answer that does not say it."""
    if isinstance(event.answer, Comment) and event.answer.of is not None:
        return f"comment-{event.answer.of + 1}"
    return next(iter(event.answer.marks)) if isinstance(event.answer, Rating) else event.answer.kind


def _answer(scheme: str, given: Mapping[str, Any], shown: About) -> dict[str, Any]:
    if not given:
        return {"kind": "skip", "reason": "nothing is stored"}
    if "scale_value" in given:
        return _scaled(scheme, given["scale_value"], shown)
    if "selection" in given:
        label = given["selection"]
    else:
        chosen = [name for name, value in given.items() if value in CLICKED or value == name]
        if len(chosen) > 1:
            return {"kind": "skip", "reason": f"several labels are stored: {', '.join(chosen)}"}
        label = chosen[0] if chosen else next(iter(given.values()), None)
    compared = label_of(label, shown)
    if compared:
        return compared
    number = _number(label)
    if number is not None and len(shown.names) == 1:
        return {"kind": "rating", "marks": {scheme: number}, "low": min(number, 1), "high": max(number, 5), "step": 0}
    return {"kind": "comment", "of": shown.place(scheme), "text": "" if label is None else str(label)}


def _scaled(scheme: str, value: Any, shown: About) -> dict[str, Any]:
    """A number, which Potato writes as text, as a comparison with strength, or as a rating of the only answer."""
    number = _number(value)
    if number is None or number != int(number):
        raise ValueError(f"the value of the scale '{scheme}' is {value!r}, not a whole number")
    if len(shown.names) != 2:
        return {
            "kind": "rating",
            "of": shown.of(scheme),
            "marks": {scheme: number},
            "low": min(number, 1),
            "high": max(number, 5),
        }
    if abs(number) > MOST:
        raise ValueError(f"the value of the scale '{scheme}' is {number:g}, and comparisons are from -{MOST} to {MOST}")
    if number == 0:
        return {"kind": "comparison", "better": "tie"}
    return {"kind": "comparison", "better": 0 if number < 0 else 1, "strength": abs(int(number))}


def _number(value: Any) -> float | None:
    try:
        return float(str(value).replace("\N{MINUS SIGN}", "-"))
    except ValueError:
        return None


def _value(event: Event) -> dict[str, Any]:
    """What Potato stores for an answer."""
    answer = event.answer
    if isinstance(answer, Comparison):
        if answer.strength and isinstance(answer.better, int):
            return {"scale_value": str(answer.strength if answer.better else -answer.strength)}
        return {
            "selection": LETTERS[answer.better]
            if isinstance(answer.better, int)
            else str(answer.better).replace("-", "_")
        }
    if isinstance(answer, Rating):
        if len(event.candidates) > 1 or len(answer.marks) > 1:
            raise ValueError("a rating is one number for the only answer")
        [mark] = answer.marks.values()
        return {"scale_value": f"{mark:g}"}
    if isinstance(answer, Comment):
        return {"text_box": answer.text}
    assert isinstance(answer, Skip)
    return {}
