"""Whom to trust: each annotator's agreement, known answers, repeats, position bias and reliability, and what to look at again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from hookline.contract.feedback import Event
from hookline.errors import DataError
from hookline.study.intervals import Estimate
from hookline.study.judging.aggregation import Consensus, crowd_bt, dawid_skene, one_coin
from hookline.study.judging.agreement import Agreement, Level, krippendorff
from hookline.study.judging.answers import Pair, Table, beginning, known_answer, same_answer, table_of
from hookline.study.judging.calibration import Ceiling, ceiling_of_agreement
from hookline.study.judging.logistic import logistic

__all__ = ["Annotator", "Doubtful", "Judgements", "agreement", "annotators", "share"]

Verdict = Literal["trusted", "random", "always first", "always last", "contrary", "too few answers"]
LEVELS: dict[str, Level] = {"comparison": "nominal", "ranking": "nominal", "thumb": "nominal"}
"""Kind of answer → how its values are compared; ratings are differences."""
FEWEST = 10
"""Binary answers below which there is no verdict."""
ONE_SIDED = 0.85
"""The share of one side from which an annotator is said always to choose it."""


@dataclass(frozen=True)
class Annotator:
    """What the answers say about one annotator. Shares have 95 % intervals; NaN where there is nothing to count."""

    name: str
    """The pseudonym, or the name of a component or model."""
    answers: int
    """All answers, without skips and comments."""
    skips: int
    """How many items were skipped."""
    agreement: Estimate
    """The share of others' answers to the same questions that are equal."""
    gold: Estimate
    """The share of right answers to items whose answer is known, or was decided by somebody who saw the answers."""
    repeats: Estimate
    """The share of equal answers when an item was shown again."""
    first: Estimate
    """The share of decided comparisons in which the candidate that was shown first was preferred."""
    position: Estimate
    """The coefficient b of position, in nats: P(first) = σ(a · what others say + b). 0: no bias."""
    reliability: Estimate
    """P(right) by the one-coin model over binary questions."""
    dawid_skene: float
    """P(right) by Dawid–Skene over the same questions."""
    crowd_bt: float
    """CrowdBT's q over comparisons."""
    seconds: float
    """The median time per answer, in seconds; NaN if it was not recorded."""
    verdict: Verdict
    """What to do with their answers."""
    why: str
    """The reason in words."""


@dataclass(frozen=True)
class Doubtful:
    """A question that should be looked at again, or asked of another annotator."""

    item: str
    """The event's item."""
    places: tuple[int, ...]
    """The candidates in question."""
    probability: float
    """How probable the aggregated answer is: ½ is undecided."""
    answers: int
    """How many annotators answered."""
    prompt: str
    """The beginning of the prompt."""


@dataclass(frozen=True, eq=False)
class Judgements:
    """The report on a set of events."""

    events: int
    """The events, without superseded ones and decisions."""
    annotators: list[Annotator]
    """The most reliable first."""
    agreement: dict[str, Agreement]
    """Kind of answer → Krippendorff's α."""
    ceiling: Ceiling
    """What the best reward model can reach, from how often two annotators agree on a comparison: the trusted ones if there
    are two of them, else all."""
    adjudicate: list[Doubtful]
    """Questions with answers that contradict each other, the most doubtful first."""
    ask: list[Doubtful]
    """What to ask next: the questions that are least decided, those with few answers first."""
    notes: list[str] = field(default_factory=list)
    """What could not be computed, and why."""

    @property
    def trusted(self) -> list[str]:
        """The names of the trusted annotators, the most reliable first."""
        return [one.name for one in self.annotators if one.verdict == "trusted"]


def agreement(events: Iterable[Event], kind: str = "comparison", level: Level | None = None) -> Agreement:
    """Krippendorff's α of one kind of answer, with its interval over questions.

    kind: `comparison`, `ranking` (pairs of it), `thumb`, or `rating of AXIS`. level: default: names, and differences for
    ratings. Repeats, skips and superseded events do not count. Raises DataError if the events have no such answer.
    """
    units = table_of(events).units
    if kind not in units:
        raise DataError(f"no event has an answer of kind '{kind}'", f"kinds: {', '.join(sorted(units)) or 'none'}")
    return _alpha(units[kind], level or LEVELS.get(kind, "interval"))


def _alpha(answers: dict[Any, dict[str, float]], level: Level) -> Agreement:
    names = sorted({name for said in answers.values() for name in said})
    row = {name: i for i, name in enumerate(names)}
    values_AU = np.full((len(names), len(answers)), math.nan)
    for unit, said in enumerate(answers.values()):
        for name, value in said.items():
            values_AU[row[name], unit] = value
    return krippendorff(values_AU, level)


def share(right: float, count: int) -> Estimate:
    """A share of independent trials and Wilson's 95 % interval; NaN without trials."""
    if not count:
        return Estimate(math.nan, math.nan, math.nan)
    p, z = right / count, 1.959964
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return Estimate(p, max(0.0, middle - half), min(1.0, middle + half))


def annotators(events: Iterable[Event], *, most: int = 10) -> Judgements:
    """Reliability of annotators, how far annotators agree, and which questions to look at again.

    events: of any kinds, mixed. Reliability is estimated from binary questions: comparisons, pairs of rankings, pairs of
    marks that one annotator gave to two candidates of an item, and thumbs. most: how many questions `adjudicate` and `ask` list.
    """
    table = table_of(events)
    questions = _Questions(table)
    names = sorted({event.annotator for event in table.events})
    coin, ds, q = questions.fitted(names)
    found = [_one(table, questions, names, k, coin, ds, q) for k in range(len(names))]
    found.sort(key=lambda one: (one.verdict != "trusted", -_low_nan(one.reliability.value), one.name))
    alphas = {
        kind: _alpha(said, LEVELS.get(kind, "interval")) for kind, said in sorted(table.units.items()) if len(said)
    }
    doubtful = questions.doubtful(coin)
    split = [one for one in doubtful if one.answers >= 2 and one.probability < 0.9]
    nearest = sorted(doubtful, key=lambda one: (round(one.probability, 2), one.answers, one.item, one.places))
    notes = [f"α of {kind}: {one.reason}" for kind, one in alphas.items() if one.reason]
    if len(names) < 2:
        notes.append("there is one annotator, so nobody can agree or disagree with them")
    if not any(pair.first is not None for pair in table.pairs):
        notes.append("no event says in which order candidates were `shown`, so position bias cannot be seen")
    elif len({pair.first == pair.one for pair in table.pairs if pair.first is not None}) == 1:
        notes.append(
            "candidates were always shown in the same order, so position bias cannot be told from quality: shuffle them"
        )
    trusted = {one.name for one in found if one.verdict == "trusted"}
    judged = [pair for pair in table.pairs if len(trusted) < 2 or pair.annotator in trusted]
    most_right = ceiling_of_agreement(_pairwise(judged))
    return Judgements(len(table.events), found, alphas, most_right, split[:most], nearest[:most], notes)


def _low_nan(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _pairwise(pairs: Sequence[Pair]) -> float:
    said: dict[Any, dict[str, int]] = defaultdict(dict)
    for pair in pairs:
        if pair.better is not None:
            said[pair.unit][pair.annotator] = pair.better
    equal = count = 0
    for answers in said.values():
        values = list(answers.values())
        ones = values.count(values[0])
        n = len(values)
        equal += math.comb(ones, 2) + math.comb(n - ones, 2)
        count += math.comb(n, 2)
    return equal / count if count else math.nan


class _Questions:
    """Binary questions: label 0 for the first of two candidates or a thumb down, 1 for the second or a thumb up."""

    def __init__(self, table: Table) -> None:
        self.said: dict[Any, dict[str, int]] = defaultdict(dict)
        for pair in table.pairs:
            if pair.better is not None:
                self.said["pair", *pair.unit][pair.annotator] = int(pair.better == pair.two)
        for (item, of), said in table.units.get("thumb", {}).items():
            self.said["thumb", item, of].update({name: int(value) for name, value in said.items()})
        self.pairs = [pair for pair in table.pairs if pair.better is not None]
        self.begins = {event.item: beginning(event) for event in table.events}
        self.decided = {(item, of) for item, _, of in table.decisions}

    def fitted(self, names: Sequence[str]) -> tuple[Consensus, Consensus, Any]:
        number = {name: k for k, name in enumerate(names)}
        flat = [
            (number[name], unit, label) for unit, said in enumerate(self.said.values()) for name, label in said.items()
        ]
        who, unit, label = np.array(flat, np.intp).reshape(-1, 3).T
        size: Any = {"annotators": len(names), "units": len(self.said), "labels": 2}
        thing: dict[tuple[str, int], int] = {}
        for pair in self.pairs:
            for place in (pair.one, pair.two):
                thing.setdefault((pair.item, place), len(thing))
        better = [thing[pair.item, pair.better] for pair in self.pairs if pair.better is not None]
        worse = [thing[pair.item, pair.one + pair.two - (pair.better or 0)] for pair in self.pairs]
        by = [number[pair.annotator] for pair in self.pairs]
        _, q_K = crowd_bt(by, better, worse, annotators=len(names), things=len(thing))
        q_K[np.bincount(np.asarray(by, np.intp), minlength=len(names)) == 0] = math.nan
        return one_coin(who, unit, label, **size), dawid_skene(who, unit, label, **size), q_K

    def doubtful(self, coin: Consensus) -> list[Doubtful]:
        found = []
        for (_, item, *places), said, row in zip(self.said, self.said.values(), coin.posterior_UC):
            if (item, places[0] if len(places) == 1 else None) in self.decided:
                continue
            found.append(Doubtful(item, tuple(places), float(row.max()), len(said), self.begins[item]))
        return sorted(found, key=lambda one: (one.probability, one.item, one.places))


def _one(
    table: Table, questions: _Questions, names: Sequence[str], k: int, coin: Consensus, ds: Consensus, q_K: Any
) -> Annotator:
    name = names[k]
    mine = [event for event in table.events if event.annotator == name]
    skips, comments = (sum(event.answer.kind == kind for event in mine) for kind in ("skip", "comment"))
    equal = met = 0
    binary = [(said, said[name]) for said in questions.said.values() if name in said]
    for said, label in binary:
        others = [other for who, other in said.items() if who != name]
        equal, met = equal + others.count(label), met + len(others)
    known = ((event, known_answer(event, table)) for event in mine)
    gold = [same for event, right in known if right and (same := same_answer(event, right)) is not None]
    again = [
        same
        for first, event in table.repeats
        if event.annotator == name == first.annotator and (same := same_answer(event, first.answer)) is not None
    ]
    shown = [pair for pair in questions.pairs if pair.annotator == name and pair.first is not None]
    first = share(sum(pair.better == pair.first for pair in shown), len(shown))
    answered = sum(len(said) > 1 for said, _ in binary)
    right = float(coin.reliability_K[k])
    reliability = _around(right, answered) if answered else Estimate(math.nan, math.nan, math.nan)
    position = _position(shown, questions, name)
    seconds = [event.seconds for event in mine if event.seconds is not None]
    verdict, why = _verdict(reliability, answered, first, len(shown), share(sum(gold), len(gold)), len(gold))
    return Annotator(
        name=name,
        answers=len(mine) - skips - comments,
        skips=skips,
        agreement=share(equal, met),
        gold=share(sum(gold), len(gold)),
        repeats=share(sum(again), len(again)),
        first=first,
        position=position,
        reliability=reliability,
        dawid_skene=float(ds.reliability_K[k]) if answered else math.nan,
        crowd_bt=float(q_K[k]),
        seconds=float(np.median(seconds)) if seconds else math.nan,
        verdict=verdict,
        why=why,
    )


def _around(value: float, count: int) -> Estimate:
    found = share(value * count, count)
    return Estimate(value, found.low, found.high)


def _position(shown: Sequence[Pair], questions: _Questions, name: str) -> Estimate:
    """b of P(prefers the one shown first) = σ(a c + b), c = what the others say about it, in [−1, 1]; with a weak prior."""
    if not shown or len({pair.first == pair.one for pair in shown}) < 2:
        return Estimate(math.nan, math.nan, math.nan)
    x = np.ones((len(shown), 2))
    y = np.array([pair.better == pair.first for pair in shown], np.float64)
    for i, pair in enumerate(shown):
        others = [label for who, label in questions.said["pair", *pair.unit].items() if who != name]
        two = 2 * sum(others) / len(others) - 1 if others else 0.0
        x[i, 0] = two if pair.first == pair.two else -two
    weights, curve = logistic(x, y, 0.25)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(np.linalg.inv(curve)[1, 1])
    return Estimate(float(weights[1]), float(weights[1] - half), float(weights[1] + half))


def _verdict(
    reliability: Estimate, answered: int, first: Estimate, shown: int, gold: Estimate, known: int
) -> tuple[Verdict, str]:
    if shown >= FEWEST and (first.value >= ONE_SIDED or first.value <= 1 - ONE_SIDED):
        side: Verdict = "always first" if first.value > 0.5 else "always last"
        share_of = first.value if first.value > 0.5 else 1 - first.value
        return side, f"chose the candidate shown {side.split()[1]} in {share_of:.0%} of {shown} comparisons"
    judged, count, what = (
        (gold, known, "known answers") if known >= FEWEST else (reliability, answered, "shared questions")
    )
    if count < FEWEST:
        return "too few answers", f"{count} answers to questions that others answered, too; {FEWEST} are needed"
    said = f"right in {judged.value:.0%} [{judged.low:.0%}, {judged.high:.0%}] of {count} {what}"
    if judged.high < 0.5:
        return "contrary", f"{said}: says the opposite"
    if judged.low <= 0.5:
        return "random", f"{said}: not better than chance"
    return "trusted", said
