"""Events as tables of questions: which of two candidates is better, which mark, liked or not; and who said what.

A question is what two annotators can answer alike. Superseded events, skips and repeats are not answers to it; repeats and
items with a known answer are looked at by themselves. Where somebody decided, the decision is the known answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from hookline.contract.feedback import Comparison, Event, Ranking, Rating, Skip, Thumb
from hookline.contract.settled import newest, settled

__all__ = ["Pair", "Table", "beginning", "known_answer", "same_answer", "table_of"]


@dataclass(frozen=True)
class Pair:
    """One annotator's answer to the question which of two candidates of an item is better."""

    annotator: str
    item: str
    one: int
    two: int
    better: int | None
    """`one`, `two`, or None for a tie."""
    first: int | None
    """The one of the two that was shown first; None if that is not known."""
    event: Event

    @property
    def unit(self) -> tuple[str, int, int]:
        return self.item, self.one, self.two


@dataclass
class Table:
    """All answers, by kind."""

    events: list[Event] = field(default_factory=list)
    """Without superseded ones, and each id once."""
    pairs: list[Pair] = field(default_factory=list)
    """From comparisons, rankings, and marks that one annotator gave to several candidates of an item."""
    units: dict[str, dict[Any, dict[str, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    """Kind → question → annotator → code or mark; the kinds are comparison, ranking, thumb, and rating of each axis."""
    repeats: list[tuple[Event, Event]] = field(default_factory=list)
    """(the first answer, the answer when the item was shown again)."""
    decisions: dict[tuple[str, str, int | None], Event] = field(default_factory=dict)
    """Question → what somebody decided who saw the answers. It is not one of them."""
    skips: int = 0
    """How many items were skipped."""


def table_of(events: Iterable[Event], *, final: bool = False) -> Table:
    """Sort events into questions and answers. final: a decision is the only answer to its question, instead of a known one."""
    by_id = {event.id: event for event in events}
    kept = (settled if final else newest)(by_id.values())
    table = Table(events=[event for event in kept if final or not event.decides])
    table.decisions = {event.question: event for event in kept if event.decides}
    marks: dict[tuple[str, str, str], dict[int, tuple[float, Event]]] = defaultdict(dict)
    for event in table.events:
        if event.repeats:
            if first := by_id.get(event.repeats):
                table.repeats.append((first, event))
            continue
        _sort(table, event, marks)
    for (annotator, item, _), found in marks.items():
        for one, two in combinations(sorted(found), 2):
            (a, _), (b, event) = found[one], found[two]
            better = None if a == b else one if a > b else two
            table.pairs.append(Pair(annotator, item, one, two, better, None, event))
    return table


def _sort(table: Table, event: Event, marks: Any) -> None:
    answer: Any = event.answer
    who = event.annotator
    if isinstance(answer, Skip):
        table.skips += 1
    elif isinstance(answer, Comparison):
        code = {"tie": 2.0, "both-bad": 3.0}.get(str(answer.better), answer.better)
        table.units["comparison"][event.item][who] = float(code)
        if answer.better != "both-bad":
            better = None if answer.better == "tie" else int(answer.better)
            table.pairs.append(Pair(who, event.item, 0, 1, better, _first(event, 0, 1), event))
    elif isinstance(answer, Ranking):
        levels = event.levels() or {}
        for one, two in combinations(sorted(levels), 2):
            better = None if levels[one] == levels[two] else max(one, two, key=levels.__getitem__)
            code = 2.0 if better is None else float(better == two)
            table.units["ranking"][event.item, one, two][who] = code
            table.pairs.append(Pair(who, event.item, one, two, better, _first(event, one, two), event))
    elif isinstance(answer, Thumb):
        table.units["thumb"][event.item, answer.of][who] = float(answer.up)
    elif isinstance(answer, Rating):
        for axis, mark in answer.marks.items():
            table.units[f"rating of {axis}"][event.item, answer.of][who] = mark
            marks[who, event.item, axis][answer.of] = (mark, event)


def _first(event: Event, one: int, two: int) -> int | None:
    places = {candidate: place for place, candidate in enumerate(event.shown)}
    return min(one, two, key=places.__getitem__) if one in places and two in places else None


def beginning(event: Event) -> str:
    """The first 80 characters of the prompt, or of the last message of a conversation."""
    prompt = event.prompt
    text = prompt if isinstance(prompt, str) else str(prompt[-1].get("content", "")) if prompt else ""
    return text[:80]


def known_answer(event: Event, table: Table) -> Any:
    """The right answer to what an event answers: what was decided, or what was known; None where there is neither."""
    decided = table.decisions.get(event.question)
    return decided.answer if decided else event.expected


def same_answer(one: Event, answer: Any) -> bool | None:
    """Whether an event's answer is `answer`; marks may be a step apart. None where the two are not of one kind, or texts."""
    said: Any = one.answer
    if type(said) is not type(answer):
        return None
    if isinstance(said, Comparison):
        return bool(said.better == answer.better)
    if isinstance(said, Ranking):
        return [set(group) for group in said.order] == [set(group) for group in answer.order]
    if isinstance(said, Thumb):
        return bool(said.of == answer.of and said.up == answer.up)
    if isinstance(said, Rating):
        common = said.marks.keys() & answer.marks.keys()
        if said.of != answer.of or not common:
            return None
        return all(abs(said.marks[axis] - answer.marks[axis]) <= said.step + 1e-9 for axis in common)
    return None
