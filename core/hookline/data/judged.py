"""Rows as events and events as rows: which event format a file has, and events of rows that compare, like or mark answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hookline.batch.stages import Record
from hookline.contract.event_format import EventFormat
from hookline.contract.feedback import Candidate, Comparison, Correction, Event, Ranking, Spans, Thumb
from hookline.data.shapes import FIELDS, shape_of
from hookline.errors import DataError
from hookline.files.formats import event_formats
from hookline.registry.offers import Offer

__all__ = ["EVENTS", "as_event", "as_row", "event_format"]

EVENTS = "events"
"""The shape by which users ask for events: `rows.jsonl?shape=events`."""
NOBODY = "unknown"
"""The annotator of a row that does not say who judged."""
RIGHT, WRONG = "right", "wrong"
"""The labels of steps."""
Fields = dict[str, Any]


def event_format(
    first: Sequence[Record], name: str, loose: tuple[Offer, ...] = (), asked: bool = False
) -> EventFormat | None:
    """The event format of the first rows of a file; None if they have none, or if they are events already.

    asked: whether the user wants events; else rows that Hookline reads as something else stay what they are. Raises
    DataError if the columns are those of two formats.
    """
    if not first or any({"answer", "candidates"} <= row.keys() for row in first):
        return None
    if not asked and (any(field in row for row in first for field in FIELDS) or shape_of(first, name)):
        return None
    fitting = [one for one in event_formats(loose) if all(map(one.fits, first))]
    fitting = [one for one in fitting if not any(one.columns.keys() < other.columns.keys() for other in fitting)]
    if len(fitting) > 1:
        which = " or ".join(f"'{one.instance}' ({', '.join(one.columns)})" for one in fitting)
        raise DataError(f"{name}: its columns are those of {which}", f"say which: {fitting[0].instance}:{name}")
    return fitting[0] if fitting else None


# -- a row with Hookline's fields as an event


def as_event(record: Record, where: str) -> Event | None:
    """The event of a row: one that was written, or what `chosen` and `rejected`, a `label` or `labels` of steps say.

    None for a row that judges nothing. Raises DataError that names `where` for a row that is damaged.
    """
    row = {name: value for name, value in record.items() if value is not None}
    if {"answer", "candidates"} <= row.keys():
        return Event.read(row, where)
    if {"chosen", "rejected"} <= row.keys():
        prompt, said = _asked(row, ("chosen", "rejected"))
        made: Fields = {"candidates": said, "answer": {"kind": "comparison", "better": 0}}
    elif {"completions", "labels"} <= row.keys() and "prompt" in row:
        prompt, made = row["prompt"], _steps(row, where)
    elif "completion" in row and isinstance(row.get("label"), bool | int | float):
        prompt, said = _asked(row, ("completion",))
        made = {"candidates": said, "answer": {"kind": "thumb", "up": row["label"] > 0}}
    else:
        return None
    used = {"prompt", "chosen", "rejected", "completion", "completions", "label", "labels", "annotator"}
    rest = {name: value for name, value in row.items() if name not in used}
    given = {"prompt": prompt, "annotator": str(row.get("annotator") or NOBODY), "record": rest, **made}
    return Event.read(given, where)


def _asked(row: Record, answers: Sequence[str]) -> tuple[Any, list[Candidate]]:
    """The prompt, and the candidates; without a prompt, the messages with which all answers begin are the prompt."""
    said = [row[name] for name in answers]
    if "prompt" in row:
        return row["prompt"], [Candidate.of(one) for one in said]
    if not all(isinstance(one, list) for one in said):
        return "", [Candidate.of(one) for one in said]
    before, rests = EventFormat.apart(said)
    return before, [Candidate.of(one) for one in rests]


def _steps(row: Record, where: str) -> Fields:
    """Steps with labels, as TRL has them: spans of the text in which the steps are joined by line ends."""
    steps, labels, spans, at = row["completions"], row["labels"], [], 0
    if not (isinstance(steps, list) and isinstance(labels, list) and len(steps) == len(labels)):
        raise DataError(
            f"{where}: 'completions' and 'labels' are not lists of equal length", "give a label for each step"
        )
    for step, label in zip(steps, labels):
        if not isinstance(step, str) or not step:
            raise DataError(f"{where}: a step of 'completions' is not text, or empty", "write each step as text")
        spans.append({"start": at, "end": at + len(step), "label": RIGHT if label else WRONG})
        at += len(step) + 1
    return {"candidates": [{"text": "\n".join(steps)}], "answer": {"kind": "spans", "spans": spans}}


# -- an event as a row with Hookline's fields


def as_row(event: Event, where: str) -> Record:
    """A row with `chosen` and `rejected`, with `completion` and `label`, or with `completions` and `labels` of steps.

    Raises DataError that names `where` for an answer that these fields cannot hold, such as a tie.
    """
    made = _fields(event)
    if made is None:
        said = event.answer.kind if not isinstance(event.answer, Comparison) else f"'{event.answer.better}'"
        raise DataError(
            f"{where}: {said} of {len(event.candidates)} answers does not prefer one of two, and likes or dislikes none",
            "leave it out, or convert it to a format that holds it: see docs/feedback.md",
        )
    prompt = event.prompt if isinstance(event.prompt, str) else list(event.prompt)
    who = {} if event.annotator == NOBODY else {"annotator": event.annotator}
    return {**event.record, "prompt": prompt, **made, **who}


def _fields(event: Event) -> Fields | None:
    answer, said = event.answer, [one.said(as_messages=not isinstance(event.prompt, str)) for one in event.candidates]
    if isinstance(answer, Comparison) and isinstance(answer.better, int):
        return {"chosen": said[answer.better], "rejected": said[1 - answer.better]}
    if isinstance(answer, Ranking) and [len(group) for group in answer.order] == [1, 1]:
        return {"chosen": said[answer.order[0][0]], "rejected": said[answer.order[1][0]]}
    if isinstance(answer, Correction):
        better = Candidate(text=answer.text).said(as_messages=not isinstance(event.prompt, str))
        return {"chosen": better, "rejected": said[answer.of]}
    if isinstance(answer, Thumb):
        return {"completion": said[answer.of], "label": answer.up}
    if isinstance(answer, Spans):
        return _marked(answer, event.candidates[answer.of].text)
    return None


def _marked(answer: Spans, text: str) -> Fields | None:
    """Spans as steps; None if they are not lines that are right or wrong."""
    spans, at = sorted(answer.spans, key=lambda span: span.start), 0
    for span in spans:
        if span.start != at or span.label not in (RIGHT, WRONG):
            return None
        at = span.end + 1
    if at != len(text) + 1 or any(text[span.end : span.end + 1] not in ("", "\n") for span in spans):
        return None
    return {
        "completions": [text[span.start : span.end] for span in spans],
        "labels": [span.label == RIGHT for span in spans],
    }
