"""Label Studio's JSON export: tasks with annotations and predictions, whose results are pairs, ranks, stars, choices, texts or spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hookline import (
    Candidate,
    Comment,
    Comparison,
    Correction,
    Event,
    EventFormat,
    Ranking,
    Rating,
    Record,
    Skip,
    Spans,
    Thumb,
)
from hookline_plugins.formats.naming import TEXTS, About, about, label_of, rest, time_of

__all__ = ["LabelStudio"]

LOW, HIGH, MOST = 1, 5, 10
"""Stars: the scale of Label Studio unless more of them were given; an export does not say it."""
TIE, BOTH_BAD = "none", "both bad"
UNPLACED = "_"
ALIKE = ("from_name", "to_name", "type")
"""What the labels of one text have in common."""
TITLES = ("title", "text", "html", "body")
TYPES = {
    "comparison": "pairwise", "ranking": "ranker", "rating": "rating", "thumb": "choices", "correction": "textarea",
    "comment": "textarea", "spans": "labels",
}  # fmt: skip


class LabelStudio(EventFormat):
    """Label Studio's JSON export (not JSON-MIN, which does not keep results apart).

    An annotation without a result is a tie or was not touched; Label Studio does not keep which, so it is a skip. Cancelled
    annotations are skips, predictions are answers of a model, and an annotation marked as ground truth is `expected` of the
    others. Of an annotator, the number is kept; names and addresses are not.
    """

    columns = {"data": dict, "annotations": list}
    holds = frozenset({*TYPES, "skip"})

    def events(self, rows: Sequence[Record]) -> Iterator[Mapping[str, Any]]:
        row = rows[0]
        shown, ids = _shown(row["data"])
        task: dict[str, Any] = {
            "prompt": shown.prompt,
            "candidates": shown.candidates,
            "record": {"data": row["data"], **rest(row, "id", "data", "annotations", "predictions")},
        }
        if "id" in row:
            task["item"] = str(row["id"])
        answered = [(one, list(_results(one, shown, ids))) for one in row["annotations"]]
        truth = {
            extra["from_name"]: answer for one, found in answered if one.get("ground_truth") for answer, extra in found
        }
        for one, found in answered:
            about_it = {
                **task,
                "annotator": _person(one.get("completed_by")),
                "submitted_at": time_of(one.get("created_at")),
                "seconds": one.get("lead_time"),
            }
            kept = rest(one, "completed_by", "lead_time", "result")
            for answer, extra in found:
                known = None if one.get("ground_truth") else truth.get(extra["from_name"])
                expected = {"expected": known} if known and known["kind"] == answer["kind"] else {}
                yield {**about_it, **expected, "answer": answer, "extra": {"annotation": kept, "results": [extra]}}
            if not found:
                skip = {"kind": "skip", "reason": _why(one)}
                yield {**about_it, "answer": skip, "extra": {"annotation": kept, "results": one["result"]}}
        for one in row.get("predictions") or ():
            who = {"annotator": str(one.get("model_version") or "prediction"), "role": "model"}
            kept = rest(one, "model_version", "result")
            for answer, extra in _results(one, shown, ids):
                yield {**task, **who, "answer": answer, "extra": {"annotation": kept, "results": [extra]}}

    def key(self, event: Event) -> Any:
        return event.item

    def rows(self, events: Sequence[Event]) -> Iterator[Record]:
        record: dict[str, Any] = dict(events[0].record) if events[0].source == self.instance else {}
        data = record.pop("data", None) or {**events[0].record, **_data(events[0])}
        shown, ids = _shown(data)
        people: dict[Any, dict[str, Any]] = {}
        models: dict[Any, dict[str, Any]] = {}
        for number, event in enumerate(events):
            kept = event.extra.get("annotation", {})
            among = models if event.role == "model" else people
            one = among.setdefault((event.annotator, kept.get("id", number)), dict(kept))
            if event.role == "model":
                one |= {} if event.annotator == "prediction" else {"model_version": event.annotator}
            else:
                one |= _who(event)
            one.setdefault("result", []).extend(_written(event, shown, ids))
        made = {"id": int(events[0].item) if events[0].item.isdecimal() else events[0].item, "data": data}
        yield {**made, "annotations": list(people.values()), "predictions": list(models.values()), **record}


def _person(who: Any) -> str:
    number = who.get("id") if isinstance(who, Mapping) else who
    return "unknown" if number is None else str(number)


def _who(event: Event) -> dict[str, Any]:
    """What an annotation says about who made it, and how long it took."""
    one: dict[str, Any] = {}
    if event.annotator != "unknown":
        one["completed_by"] = int(event.annotator) if event.annotator.isdecimal() else event.annotator
    if event.seconds is not None:
        one["lead_time"] = event.seconds
    if "was_cancelled" not in event.extra.get("annotation", {}):
        one["was_cancelled"] = isinstance(event.answer, Skip)
    return one


def _why(annotation: Mapping[str, Any]) -> str:
    return "cancelled" if annotation.get("was_cancelled") else "nothing was selected: a tie, or not touched"


# -- what is shown


def _shown(data: Mapping[str, Any]) -> tuple[About, tuple[str, ...]]:
    """What a task shows, and the ids of its answers where they are a list of items."""
    listed = next((name for name, value in data.items() if _items(value)), None)
    if listed is None:
        return about(data), ()
    texts = [next(str(one[name]) for name in TITLES if name in one) for one in data[listed]]
    ids = tuple(str(one["id"]) for one in data[listed])
    others = rest(data, listed)
    asked = about({**others, "response-0": ""}).asked
    said = tuple(Candidate.of(text) for text in texts)
    return About(data[asked] if asked else "", said, ids, asked, rest(others, asked)), ids


def _items(value: Any) -> bool:
    """Whether a value is a list of answers with ids, as for Label Studio's tag List."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "id" in one and _titled(one) for one in value)
    )


def _titled(one: Mapping[str, Any]) -> bool:
    return any(name in one for name in TITLES)


def _data(event: Event) -> dict[str, Any]:
    prompt = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
    texts = [one.text for one in event.candidates]
    if len(texts) <= 2:
        return {"prompt": prompt, **{f"answer{i}": text for i, text in enumerate(texts, 1)}}
    return {"prompt": prompt, "items": [{"id": str(i), "title": text} for i, text in enumerate(texts, 1)]}


# -- results as answers


def _results(
    annotation: Mapping[str, Any], shown: About, ids: Sequence[str]
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The answers of an annotation, each with what else its result says; labels of one text are one answer."""
    if annotation.get("was_cancelled"):
        return
    spans: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for one in annotation["result"]:
        if one.get("type") in ("labels", "hypertextlabels"):
            spans.setdefault((one.get("from_name"), one.get("to_name")), []).append(one)
        else:
            answer, sure = _answer(one, shown, ids)
            yield answer, {**rest(one, "value"), **({} if sure else {"value": one["value"]})}
    for marked in spans.values():
        values = [one["value"] for one in marked]
        answer = {
            "kind": "spans",
            "of": shown.of(marked[0].get("to_name"), marked[0].get("from_name")),
            "spans": [{"start": one["start"], "end": one["end"], "label": "/".join(one["labels"])} for one in values],
        }
        about_it = {name: marked[0][name] for name in ALIKE if name in marked[0]}
        outer = [rest(one, "value", *ALIKE) for one in marked]
        inner = [rest(one, "start", "end", "labels") for one in values]
        yield answer, {**about_it, "outer": outer, "inner": inner}


def _answer(result: Mapping[str, Any], shown: About, ids: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The answer of a result, and whether it says everything that the result's value does."""
    value, question = result["value"], result.get("from_name", "")
    names = (result.get("to_name"), question)
    if "selected" in value:
        better = {"left": 0, "right": 1, TIE: "tie"}.get(value["selected"])
        if better is None or len(shown.names) != 2:
            raise ValueError(
                f"'{value['selected']}' is selected among {len(shown.names)} answers, not left or right of two"
            )
        return {"kind": "comparison", "better": better}, True
    if "ranker" in value:
        buckets = {name: one for name, one in value["ranker"].items() if name != UNPLACED and one}
        if len(buckets) != 1:
            said = "; ".join(f"{name}: {', '.join(map(str, one))}" for name, one in buckets.items())
            return {"kind": "comment", "text": said or "nothing is ranked"}, False
        [placed] = buckets.values()
        unknown = next((one for one in placed if str(one) not in ids), None)
        if unknown is not None:
            raise ValueError(f"'{unknown}' is ranked, and the task has no such item")
        left = [one for one in ids if one not in map(str, placed)]
        plain = value["ranker"] == {UNPLACED: left, "rank": placed}
        return {"kind": "ranking", "order": [[ids.index(str(one))] for one in placed]}, plain
    if "rating" in value and (len(shown.names) == 1 or any(shown.place(name) is not None for name in names)):
        mark = value["rating"]
        high = HIGH if mark <= HIGH else MOST
        low = LOW if mark >= LOW else 0
        return {
            "kind": "rating",
            "of": shown.of(*names),
            "marks": {shown.axis(question): mark},
            "low": low,
            "high": high,
        }, True
    if "choices" in value and len(value["choices"]) == 1:
        return _choice(value["choices"][0], shown, names)
    text = value.get("text")
    if isinstance(text, list) and len(text) == 1 and any(word in question.lower() for word in TEXTS):
        return {"kind": "correction", "of": shown.of(*names), "text": text[0]}, True
    said = next((value[name] for name in ("text", "choices", "rating", "number") if name in value), value)
    listed = said if isinstance(said, list) else [said]
    place = next((place for name in names if (place := shown.place(name)) is not None), None)
    return {"kind": "comment", "of": place, "text": "\n".join(map(str, listed))}, listed == text and len(listed) == 1


def _choice(label: str, shown: About, names: tuple[Any, ...]) -> tuple[dict[str, Any], bool]:
    answer = label_of(label, shown)
    if answer:
        return answer, answer["better"] == "both-bad" and label == BOTH_BAD
    if label in ("good", "bad") and (len(shown.names) == 1 or any(shown.place(name) is not None for name in names)):
        return {"kind": "thumb", "of": shown.of(*names), "up": label == "good"}, True
    return {"kind": "comment", "text": label}, False


# -- answers as results


def _written(event: Event, shown: About, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    answer, kept = event.answer, event.extra.get("results")
    if isinstance(answer, Skip):
        yield from kept or ()
        return
    place = getattr(answer, "of", None)
    several = len(shown.names) > 1 or isinstance(answer, Comment)
    named = {"from_name": f"{answer.kind}-{place + 1}" if place is not None and several else answer.kind}
    about_it: dict[str, Any] = {**named, "to_name": "prompt", "type": TYPES[answer.kind]}
    if kept:
        about_it = dict(kept[0])
    if "value" in about_it:
        yield about_it
    elif isinstance(answer, Spans):
        nothing: list[dict[str, Any]] = [{}] * len(answer.spans)
        outer: list[dict[str, Any]] = about_it.pop("outer", nothing)
        inner: list[dict[str, Any]] = about_it.pop("inner", nothing)
        for span, own, more in zip(answer.spans, outer, inner):
            value = {"start": span.start, "end": span.end, **more, "labels": span.label.split("/")}
            yield {**about_it, **own, "value": value}
    else:
        for name, value in _values(event, ids):
            own = {"type": "choices"} if "choices" in value else {}
            yield {**about_it, **({"from_name": name} if name and not kept else {}), **own, "value": value}


def _values(event: Event, ids: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The values of an answer, each with the name of its question where an answer needs several."""
    answer = event.answer
    if isinstance(answer, Comparison) and isinstance(answer.better, int):
        yield "", {"selected": ("left", "right")[answer.better]}
    elif isinstance(answer, Comparison):
        yield "", {"selected": TIE} if answer.better == "tie" else {"choices": [BOTH_BAD]}
    elif isinstance(answer, Ranking):
        if any(len(group) > 1 for group in answer.order):
            raise ValueError("a ranker has no ties")
        if not ids:
            raise ValueError("a ranker needs a list of items")
        placed = [ids[group[0]] for group in answer.order]
        yield "", {"ranker": {UNPLACED: [one for one in ids if one not in placed], "rank": placed}}
    elif isinstance(answer, Rating):
        for axis, mark in answer.marks.items():
            suffix = f"-{answer.of + 1}" if len(event.candidates) > 1 else ""
            yield f"{axis}{suffix}", {"rating": int(mark) if mark == int(mark) else mark}
    elif isinstance(answer, Thumb):
        yield "", {"choices": ["good" if answer.up else "bad"]}
    elif isinstance(answer, Correction):
        yield "", {"text": [answer.text]}
    else:
        yield "", {"text": [getattr(answer, "text", "")]}
