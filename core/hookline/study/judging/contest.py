"""Contests: two models answered the same prompts, and people or judges said which answers are better, or gave marks.

The unit is a prompt. Each is counted once, however many annotators judged it, so that intervals and the test that may be looked
at after every answer are about prompts. Scores are those of the other model against the baseline: 1 for a win, ½ for a
tie, 0 for a loss. Letters: S seeds, G prompts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hookline.contract.feedback import Comparison, Event, Rating
from hookline.contract.settled import newest, settled
from hookline.contract.store import Item
from hookline.errors import DataError
from hookline.study.intervals import Estimate, Scores, contributions, location
from hookline.study.judging.agreement import Agreement, draws_for, krippendorff
from hookline.study.judging.annotators import agreement, share
from hookline.study.judging.ratings import length_controlled
from hookline.study.judging.sequential import AlwaysValid, always_valid

__all__ = ["CONTEST", "Contest", "Marked", "Preferred", "Sameness", "contests", "seed_scores"]

CONTEST = "contest"
"""The key of `Item.extra` under which an item says which contest it belongs to."""
PEOPLE = "people"
Place = tuple[int, str]
"""(seed, prompt): what is judged once."""


@dataclass(frozen=True)
class Preferred:
    """What people, or one judge, say of two models by comparisons."""

    by: str
    """`people`, or the name of a judge."""
    answers: int
    """All answers, without skips."""
    prompts: int
    """The prompts that somebody answered."""
    wins: int
    """Prompts for which most answers prefer the other model."""
    ties: int
    """Prompts without a majority."""
    losses: int
    """Prompts for which most answers prefer the baseline."""
    both_bad: int
    """Answers that accept neither; they are half a win and half a loss, too."""
    rate: Estimate
    """The win rate of the other model, ties half, with its 95 % interval over prompts (and seeds, if there are several)."""
    with_identical: float
    """The same with the prompts that both answered alike, which nobody is asked about, as ties."""
    test: AlwaysValid
    """The test that may be looked at after every answer, over prompts in the order in which they were decided."""
    length_controlled: float
    """The win rate as if both answers were equally long."""
    length: float
    """The coefficient of length: above 0, longer answers are preferred."""
    agreement: Agreement
    """Krippendorff's α of the annotators."""
    state: str
    """`stop: NAME is better`, `go on`, or `cannot tell within N`."""


@dataclass(frozen=True)
class Marked:
    """What people, or one judge, say of two models by marks on one axis."""

    by: str
    """`people`, or the name of a judge."""
    axis: str
    """What was marked."""
    prompts: int
    """The prompts with marks for both models."""
    baseline: Estimate
    """The mean mark of the baseline."""
    other: Estimate
    """The mean mark of the other model."""
    difference: Estimate
    """Other − baseline, prompt by prompt."""
    test: AlwaysValid
    """The test that may be looked at after every answer, of which model has the higher mark; equal marks are ties."""
    agreement: Agreement
    """Krippendorff's α of the annotators, of differences."""
    state: str
    """As in `Preferred`."""


@dataclass(frozen=True)
class Sameness:
    """How far a judge says what people say."""

    judge: str
    """The judge."""
    what: str
    """`comparison`, or the axis."""
    prompts: int
    """Prompts that both decided."""
    same: Estimate
    """The share of them with the same winner, or the same tie."""
    agreement: Agreement
    """Krippendorff's α of the two, over the same prompts."""


@dataclass(frozen=True, eq=False)
class Contest:
    """A model against the baseline."""

    baseline: str
    """The label of the first model."""
    other: str
    """The label of the second."""
    asked: int
    """The prompts that are to be judged."""
    identical: int
    """Further prompts of all seeds, which both models answered alike."""
    runs: Mapping[int, tuple[str, str]]
    """Seed → the ids of the baseline's run and the other's; empty for models outside of runs."""
    preferred: list[Preferred]
    """People first, then each judge."""
    marked: list[Marked]
    """By axis, people first."""
    sameness: list[Sameness]
    """Each judge against people."""
    scores: Mapping[tuple[str, str], Mapping[Place, float]]
    """(who, `comparison` or the axis) → (seed, prompt) → score, or difference of marks."""


def contests(items: Iterable[Item], events: Iterable[Event]) -> list[Contest]:
    """Read what was said about the items of `hookline.put_contest`: one contest for each model and the first.

    Skips, repeats and replaced answers do not count; where somebody decided, only the decision does among people, and judges keep
    their answers. Raises DataError if no item belongs to a contest, and for fewer than 2 answers.
    """
    asked: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for item in items:
        if CONTEST in item.extra:
            baseline, other = item.extra[CONTEST]["between"]
            asked[baseline, other].append(item)
    if not asked:
        raise DataError(
            "the store has no items of a contest",
            "put the answers of two models there: hookline contest RUN RUN --store STORE",
        )
    known = {item.id for several in asked.values() for item in several}
    events = [event for event in events if event.item in known]
    places = _places(events)
    # what people decide is their answer, and replaces none of a judge
    by_whom: dict[str, list[Event]] = defaultdict(list)
    for event in newest(events):
        by_whom[_who(event)].append(event)
    answers = [event for own in by_whom.values() for event in settled(own) if _answers(event)]
    if len(answers) < 2:
        count = "no answer" if not answers else "1 answer"
        raise DataError(
            f"the store has {count} about the contest, and a report needs 2",
            "ask people: hookline collect --store STORE; or a judge: hookline judge STORE --model MODEL",
        )
    single = [event for own in by_whom.values() for event in own if _answers(event) and not event.decides]
    return [_contest(between, several, answers, single, places) for between, several in asked.items()]


def _answers(event: Event) -> bool:
    return isinstance(event.answer, Comparison | Rating) and not event.repeats


def _places(events: Sequence[Event]) -> dict[str, int]:
    """Event → its place in the order of answers; a changed answer has the place of the first one."""
    places: dict[str, int] = {}
    for number, event in enumerate(events):
        places.setdefault(event.id, places.get(event.supersedes or "", number))
    return places


def _contest(
    between: tuple[str, str],
    items: Sequence[Item],
    answers: Sequence[Event],
    single: Sequence[Event],
    places: Mapping[str, int],
) -> Contest:
    by_id = {item.id: item for item in items}
    said: dict[str, list[Event]] = {PEOPLE: []}
    for event in answers:
        if event.item in by_id:
            said.setdefault(_who(event), []).append(event)
    asked = len({_place(item) for item in items})
    identical = int(items[0].extra[CONTEST]["identical"])
    preferred, marked = [], []
    scores: dict[tuple[str, str], Mapping[Place, float]] = {}
    for by, events in said.items():
        own = [event for event in single if _who(event) == by and event.item in by_id]
        if compared := [event for event in events if isinstance(event.answer, Comparison)]:
            found = _Compared(by_id, compared, places)
            scores[by, "comparison"] = found.score
            preferred.append(_preferred(by, between, found, own, asked, identical))
        for axis in _axes(events):
            marks = _Marks(by_id, events, places, axis)
            scores[by, axis] = marks.difference
            marked.append(_marked(by, between, axis, marks, own, asked))
    runs: dict[int, tuple[str, str]] = {}
    for about in (item.extra[CONTEST] for item in items):
        if all(about["runs"]):
            runs[int(about["seed"])] = (str(about["runs"][0]), str(about["runs"][1]))
    return Contest(
        baseline=between[0], other=between[1], asked=asked, identical=identical, runs=runs,
        preferred=preferred, marked=sorted(marked, key=lambda one: one.axis), sameness=_sameness(scores), scores=scores,
    )  # fmt: skip


def _who(event: Event) -> str:
    return event.annotator if event.role == "model" else PEOPLE


def _place(item: Item) -> Place:
    about = item.extra[CONTEST]
    return int(about["seed"]), str(about["prompt"])


def _axes(events: Sequence[Event]) -> list[str]:
    return list(
        dict.fromkeys(axis for event in events if isinstance(event.answer, Rating) for axis in event.answer.marks)
    )


def _complete(item: Item, events: Sequence[Event], places: Mapping[str, int]) -> int | None:
    """The place of the answer that made an item complete; None while answers are missing. A judge answers once."""
    if any(event.decides or event.role == "model" for event in events):
        return max(places[event.id] for event in events)
    if len(events) < item.overlap:
        return None
    return sorted(places[event.id] for event in events)[item.overlap - 1]


def _score(answer: Any) -> float:
    return {1: 1.0, 0: 0.0}.get(answer.better, 0.5)


class _Compared:
    """Comparisons by prompt."""

    def __init__(self, items: Mapping[str, Item], events: Sequence[Event], places: Mapping[str, int]) -> None:
        by_item: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            by_item[event.item].append(event)
        self.events = events
        self.score: dict[Place, float] = {}
        self.longer: list[int] = []
        done = []
        for name, several in by_item.items():
            item = items[name]
            mean = float(np.mean([_score(event.answer) for event in several]))
            self.score[_place(item)] = mean
            self.longer.append(len(item.candidates[1].text) - len(item.candidates[0].text))
            if (place := _complete(item, several, places)) is not None:
                done.append((place, _winner(mean)))
        self.sequence = [score for _, score in sorted(done)]


class _Marks:
    """Marks of one axis by prompt."""

    def __init__(
        self, items: Mapping[str, Item], events: Sequence[Event], places: Mapping[str, int], axis: str
    ) -> None:
        found: dict[Place, dict[int, tuple[list[float], Item, list[Event]]]] = defaultdict(dict)
        for event in events:
            item = items[event.item]
            if isinstance(event.answer, Rating) and axis in event.answer.marks:
                side = int(item.extra[CONTEST]["of"])
                marks, _, said = found[_place(item)].setdefault(side, ([], item, []))
                marks.append(event.answer.marks[axis])
                said.append(event)
        self.mean: tuple[dict[Place, float], dict[Place, float]] = ({}, {})
        self.difference: dict[Place, float] = {}
        done = []
        for where, sides in found.items():
            for side, (marks, _, _) in sides.items():
                self.mean[side][where] = float(np.mean(marks))
            if len(sides) == 2:
                self.difference[where] = self.mean[1][where] - self.mean[0][where]
                ends = [_complete(item, said, places) for _, item, said in sides.values()]
                if None not in ends:
                    done.append((max(end for end in ends if end is not None), _winner(0.5 + self.difference[where])))
        self.sequence = [score for _, score in sorted(done)]


def _winner(mean: float) -> float:
    return 0.5 if math.isclose(mean, 0.5, abs_tol=1e-9) else float(mean > 0.5)


def _preferred(
    by: str, between: tuple[str, str], found: _Compared, own: Sequence[Event], asked: int, identical: int
) -> Preferred:
    score_G = np.array(list(found.score.values()))
    test = always_valid(found.sequence)
    controlled, length = length_controlled(score_G, found.longer)
    majority = [_winner(score) for score in score_G]
    rate = location(*_drawn(found.score))
    total = len(score_G) + identical
    return Preferred(
        by=by, answers=len(found.events), prompts=len(score_G),
        wins=majority.count(1.0), ties=majority.count(0.5), losses=majority.count(0.0),
        both_bad=sum(isinstance(said := event.answer, Comparison) and said.better == "both-bad" for event in found.events),
        rate=rate, with_identical=float((score_G.sum() + identical / 2) / total),
        test=test, length_controlled=controlled, length=length,
        agreement=_alpha(own, "comparison"), state=_state(test, found.sequence, asked, between),
    )  # fmt: skip


def _marked(by: str, between: tuple[str, str], axis: str, marks: _Marks, own: Sequence[Event], asked: int) -> Marked:
    baseline, other, difference = (
        location(*_drawn(values)) if values else Estimate(math.nan, math.nan, math.nan)
        for values in (*marks.mean, marks.difference)
    )
    test = always_valid(marks.sequence)
    return Marked(
        by=by, axis=axis, prompts=len(marks.difference), baseline=baseline, other=other, difference=difference,
        test=test, agreement=_alpha(own, f"rating of {axis}"), state=_state(test, marks.sequence, asked, between),
    )  # fmt: skip


def seed_scores(values: Mapping[Place, float]) -> Scores:
    """Values by (seed, prompt) as the scores of seeds, with what each prompt adds to them."""
    seeds = {seed: s for s, seed in enumerate(dict.fromkeys(seed for seed, _ in values))}
    prompts = {prompt: g for g, prompt in enumerate(dict.fromkeys(prompt for _, prompt in values))}
    above_SG, below_SG = (np.zeros((len(seeds), len(prompts))) for _ in range(2))
    for (seed, prompt), value in values.items():
        above_SG[seeds[seed], prompts[prompt]] = value
        below_SG[seeds[seed], prompts[prompt]] = 1.0
    part_SG = contributions(above_SG, below_SG, "mean") if len(prompts) > 1 else None
    return Scores(above_SG.sum(1) / below_SG.sum(1), part_SG)


def _drawn(values: Mapping[Place, float]) -> tuple[Scores, int]:
    scores = seed_scores(values)
    return scores, draws_for(len(values))


def _alpha(events: Sequence[Event], kind: str) -> Agreement:
    try:
        return agreement(events, kind)
    except DataError:  # only decisions
        return Agreement(math.nan, math.nan, math.nan, "nominal", 0, "nobody answered")


def _state(test: AlwaysValid, scores: Sequence[float], asked: int, between: tuple[str, str]) -> str:
    """What to do now, by the test of the scores. It cannot be told if even a win by the same model for all prompts that are
    left would not decide."""
    if test.decided_at is not None:
        return f"stop: {between[int(np.mean(scores[: test.decided_at]) > 0.5)]} is better"
    left = max(0, asked - len(scores))
    possible = (always_valid([*scores, *[side] * left]).decided_at for side in (1.0, 0.0)) if left else ()
    return "go on" if any(end is not None for end in possible) else f"cannot tell within {asked}"


def _sameness(scores: Mapping[tuple[str, str], Mapping[Place, float]]) -> list[Sameness]:
    found = []
    for (by, what), judged in scores.items():
        people = scores.get((PEOPLE, what))
        common = [place for place in judged if people and place in people] if by != PEOPLE else []
        if not people or not common:
            continue
        values_AU = np.array([[people[place] for place in common], [judged[place] for place in common]])
        middle = 0.5 if what == "comparison" else 0.0
        winner_AU = np.sign(np.where(np.isclose(values_AU, middle), 0, values_AU - middle))
        same = share(float((winner_AU[0] == winner_AU[1]).sum()), len(common))
        alpha = krippendorff(winner_AU, "nominal") if what == "comparison" else krippendorff(values_AU, "interval")
        found.append(Sameness(by, what, len(common), same, alpha))
    return found
