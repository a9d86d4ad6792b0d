"""Questions that annotators answered differently, and what a coordinator decides about them."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hookline import Comment, DataError, Event, Item, Rating, Skip, newest
from hookline_plugins.asking import Question, question_of
from hookline_plugins.page.answering import Wrong, events_of, given_in, stored
from hookline_plugins.page.desk import Desk, item_of
from hookline_plugins.page.questions import given_of, handle_of, order_of, shown
from hookline_plugins.page.rendering import beginning

__all__ = ["Case", "Decisions", "cases_of"]

NEAR = 0.1
"""Marks on a scale without steps that differ by no more than this share of it are not disputed."""
EVERYBODY = "coordinators"
"""For whom handles are made: all coordinators have the same."""


@dataclass(frozen=True)
class Case:
    """One question with what was said about it."""

    item: Item
    kind: str
    of: int | None
    """The candidate that the answers are about, where they are about one."""
    answers: tuple[Event, ...]
    """The newest answer of each annotator."""
    decision: Event | None

    @property
    def name(self) -> str:
        return "\0".join(map(str, self.answers[0].question))

    @property
    def words(self) -> str:
        """By what it is found: the item's name, the prompt, and who answered."""
        prompt = self.item.prompt
        said = [prompt] if isinstance(prompt, str) else [str(message.get("content", "")) for message in prompt]
        return "\n".join([self.item.id, *said, *(event.annotator for event in self.answers)]).casefold()

    @property
    def split(self) -> float:
        """The share of the most frequent answer, and of marks, how near they are on their scale: the lower, the less the annotators
        agree."""
        if self._marks:
            return 1 - self._apart
        said = Counter(_form(event.answer) for event in self.answers)
        return max(said.values()) / len(self.answers)

    @property
    def disputed(self) -> bool:
        """Whether two annotators answered differently. Marks that are a step apart, or a tenth of a scale without steps, are not
        different."""
        if not self._marks:
            return self.split < 1
        first = self._marks[0]
        near = first.step / (first.high - first.low) if first.step else NEAR
        return self._apart > near + 1e-9

    @property
    def _marks(self) -> list[Rating]:
        return [event.answer for event in self.answers if isinstance(event.answer, Rating)]

    @property
    def _apart(self) -> float:
        """By how much the marks differ at most for an axis, as a share of the scale."""
        given: dict[str, list[float]] = {}
        for answer in self._marks:
            for axis, mark in answer.marks.items():
                given.setdefault(axis, []).append((mark - answer.low) / (answer.high - answer.low))
        return max(max(marks) - min(marks) for marks in given.values())


def cases_of(events: Sequence[Event]) -> dict[str, Case]:
    """The questions that two annotators or more answered differently, or that were decided, by their names.

    Questions about items with a known answer have nothing to be decided.
    """
    said: dict[tuple[str, str, int | None], dict[str, Event]] = {}
    decisions: dict[tuple[str, str, int | None], Event] = {}
    for event in newest(events):
        if isinstance(event.answer, Skip | Comment) or event.repeats or event.expected:
            continue
        if event.decides:
            decisions[event.question] = event
        else:
            said.setdefault(event.question, {})[event.annotator] = event
    found = {}
    for question, answers in said.items():
        first = next(iter(answers.values()))
        case = Case(item_of(first), *question[1:], tuple(answers.values()), decisions.get(question))
        if case.decision or case.disputed:
            found[case.name] = case
    return found


@dataclass(frozen=True)
class _Read:
    """What a store had when it was read."""

    state: tuple[int, int]
    """The number of its events, and of the newest."""
    cases: dict[str, Case]
    handles: dict[str, str]
    """Handle → the name of a case."""
    comments: dict[str, str]
    """The id of a comment → its text."""


class Decisions:
    """What coordinators decide about the questions of a desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk, self.store = desk, desk.store
        self._lock = threading.RLock()
        self._read: _Read | None = None
        self._left: dict[str, set[str]] = {}
        """Coordinator → what they left for later."""

    def listed(self, find: str = "", most: int = 100) -> list[dict[str, Any]]:
        """The questions that wait for a decision, those with the least agreement first; only those with a text in the item's name,
        in the prompt or among who answered."""
        waiting = [case for case in self._open() if not find or find.casefold() in case.words]
        return [
            {
                "handle": self._handle(case),
                "prompt": beginning(case.item.prompt),
                "answers": len(case.answers),
                "kind": case.kind,
            }
            for case in waiting[:most]
        ]

    def next(self, who: str, handle: str | None = None) -> dict[str, Any] | None:
        """The next question to be decided, or the one with a handle, with all answers and who gave them."""
        if handle:
            case = self._cases().get(self._named(handle))
        else:
            waiting = self._open()
            left = self._left.get(who, set())
            case = next((one for one in waiting if one.name not in left), None)
        return self._shown(who, case) if case else None

    def progress(self, who: str) -> dict[str, Any]:
        """How many questions are decided, and how many wait."""
        cases = self._cases().values()
        mine = [case.decision for case in cases if case.decision and case.decision.annotator == who]
        decided = sum(case.decision is not None for case in cases)
        return {
            "answers": decided,
            "skips": len(cases) - decided,
            "seconds": round(sum(event.seconds or 0.0 for event in mine)),
        }

    def decided(self, most: int = 200) -> list[dict[str, Any]]:
        """What was decided, the newest first."""
        found = [case for case in self._cases().values() if case.decision]
        found.sort(key=lambda case: -((case.decision and case.decision.submitted_at) or 0.0))
        return [
            {"handle": self._handle(case), "prompt": beginning(case.item.prompt), "kind": case.kind}
            for case in found[:most]
        ]

    def decide(self, who: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Store a decision; it is on the disk when this returns. A skip leaves the question for later.

        Raises Wrong for what cannot be decided, and where somebody else has decided meanwhile.
        """
        given, handle = given_in(body), body.get("handle")
        name = f"{who}/{given.number}"
        with self._lock:
            case = self._cases().get(self._named(handle))
            if case is None:
                raise Wrong("that question is not there to be decided; go on with the next one", 404)
            if "skip" in given.answer:
                self._left.setdefault(who, set()).add(case.name)
                return {"id": given.number, "stored": True}
            standing = case.decision.id if case.decision else None
            if standing not in (name, given.replaces):
                raise Wrong("that question was decided meanwhile", 409)
            asked, order = self._asked(who, case)
            about = {"source": self.desk.source, "extra": self.desk.about(case.item)}
            events = events_of(case.item, asked, order, who, given, name, decides=True, **about)
            answer: Any = events[0].answer
            if getattr(answer, "of", None) != case.of:
                raise Wrong("`answer`: it is about another candidate", 422)
            self._took(case, stored(self.store, events))
        return {"id": given.number, "stored": True}

    # -- what is there

    def _cases(self) -> dict[str, Case]:
        return self._now().cases

    def _now(self) -> _Read:
        """What the store has now. It is read as a whole when an event was added or removed."""
        with self._lock:
            counts = self.store.counts()
            if self._read is None or self._read.state != (counts.events, counts.newest):
                events = list(self.store.events())
                cases = cases_of(events)
                self._read = _Read(
                    (counts.events, counts.newest),
                    cases,
                    {self._handle(case): name for name, case in cases.items()},
                    {event.id: event.answer.text for event in events if isinstance(event.answer, Comment)},
                )
            return self._read

    def _took(self, case: Case, events: Sequence[Event]) -> None:
        """Note a decision that was stored, without reading everything for it, unless somebody else wrote meanwhile."""
        counts, read = self.store.counts(), self._read
        if read is None or counts.events != read.state[0] + len(events):
            return
        for event in events:
            if isinstance(event.answer, Comment):
                read.comments[event.id] = event.answer.text
            else:
                read.cases[case.name] = replace(case, decision=event)
        self._read = replace(read, state=(counts.events, counts.newest))

    def forget(self, who: str) -> None:
        """Drop what is remembered of somebody's answers and decisions."""
        with self._lock:
            self._read = None
            self._left.pop(who, None)

    def _open(self) -> list[Case]:
        waiting = [case for case in self._cases().values() if case.decision is None]
        return sorted(waiting, key=lambda case: (case.split, -len(case.answers)))

    def _named(self, handle: Any) -> str:
        return self._now().handles.get(handle, "") if isinstance(handle, str) else ""

    def _handle(self, case: Case) -> str:
        return handle_of(self.desk.secret, case.name, EVERYBODY)

    def _asked(self, who: str, case: Case) -> tuple[Question, tuple[int, ...]]:
        own = {**(case.item.extra.get("ask") or {}), "kind": case.kind}
        try:
            asked = question_of(case.item.model_copy(update={"extra": {"ask": own}}), self.desk.question)
        except DataError as err:
            raise Wrong(err.message, 422) from None
        return asked, order_of(self.desk.secret, case.item.id, who, len(case.item.candidates))

    def _shown(self, who: str, case: Case) -> dict[str, Any]:
        asked, order = self._asked(who, case)
        comments = self._now().comments
        given = {} if case.of is None else {"of": order.index(case.of)}
        made = {
            **shown(case.item, asked, order, self.desk.media),
            "handle": self._handle(case),
            "given": given_of(case.decision.answer, order) if case.decision else given,
            "said": [
                {
                    "name": event.annotator,
                    "given": given_of(event.answer, order),
                    "comment": comments.get(f"{event.id}/comment", ""),
                }
                for event in case.answers
            ],
        }
        if case.decision:
            made["replaces"] = case.decision.id
            made["comment"] = comments.get(f"{case.decision.id}/comment", "")
        return made


def _form(answer: Any) -> str:
    """An answer in a form that is the same for equal answers."""
    said = answer.model_dump(mode="json", exclude={"strength", "low", "high", "step"})
    return json.dumps(said, sort_keys=True)
