"""What a browser sends when somebody has answered, and the events that it becomes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hookline import Comment, DataError, Event, Item, Store
from hookline_plugins.asking import Question
from hookline_plugins.page.questions import answer_of

__all__ = ["Given", "Wrong", "events_of", "given_in", "stored"]

ID = re.compile(r"[A-Za-z0-9-]{8,64}")
LONGEST_COMMENT = 100_000


class Wrong(ValueError):
    """An answer that cannot be stored. The first argument says why; the second is the status of the reply."""


@dataclass(frozen=True)
class Given:
    """An answer as a browser sent it."""

    number: str
    """New for each answer, and the same when it is sent again."""
    answer: Mapping[str, Any]
    """About positions."""
    comment: str
    times: Mapping[str, Any]
    replaces: Any
    """The id of the event that the answer replaces."""


def given_in(body: Mapping[str, Any]) -> Given:
    """The answer in a request. Raises Wrong for anything else."""
    number = body.get("id")
    if not isinstance(number, str) or not ID.fullmatch(number):
        raise Wrong("`id` must be 8 to 64 letters, digits and hyphens, new for each answer", 422)
    answer, comment, times = body.get("answer"), body.get("comment", ""), body.get("times", {})
    if not isinstance(answer, Mapping) or not isinstance(comment, str) or not isinstance(times, Mapping):
        raise Wrong("`answer` and `times` are objects, `comment` is text", 422)
    if len(comment) > LONGEST_COMMENT:
        raise Wrong(f"`comment` is longer than {LONGEST_COMMENT} characters", 422)
    return Given(number, answer, comment, times, body.get("replaces"))


def events_of(
    item: Item, asked: Question, order: Sequence[int], annotator: str, given: Given, name: str, **about: Any
) -> list[Event]:
    """The answer as an event, and the comment as another. about: further fields of both, or `decides` and `repeats`.

    Raises Wrong for an answer that is none to the question, or that JSON cannot hold.
    """
    try:
        answer = answer_of(asked, order, given.answer)
        if answer.kind == "correction":
            answer = _corrected(answer, item)
        times = {
            field: given.times.get(sent)
            for field, sent in (
                ("shown_at", "shown"),
                ("begun_at", "begun"),
                ("submitted_at", "submitted"),
                ("seconds", "active"),
            )
        }
        common = {"shown": tuple(order), **times, **about}
        made = [item.event(answer, annotator, id=name, supersedes=given.replaces, **common)]
        if given.comment.strip():
            common.pop("decides", None)
            made.append(item.event(Comment(text=given.comment), annotator, id=f"{name}/comment", **common))
        sent = [given.answer, given.comment, given.replaces]
        json.dumps(sent, ensure_ascii=False).encode("utf-8")  # half a character raises
    except (ValidationError, ValueError, TypeError) as err:
        raise Wrong(f"`answer`: {_why(err)}", 422) from None
    return made


def stored(store: Store, events: Sequence[Event]) -> list[Event]:
    """Store events, and return those that are new; they are on the disk then. Raises Wrong for what the store refuses."""
    try:
        return store.append(events)
    except DataError as err:
        raise Wrong(err.message, 409) from None


def _corrected(answer: Any, item: Item) -> Any:
    before = item.candidates[answer.of].text
    if "\r\n" in before and "\r" not in answer.text:  # a browser's lines end with a line feed alone
        answer = answer.model_copy(update={"text": answer.text.replace("\n", "\r\n")})
    if answer.text == before:
        raise ValueError("changes nothing")
    return answer


def _why(err: Exception) -> str:
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return str(err)[:300]
