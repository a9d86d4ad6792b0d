"""A report on a reward model: what its rewards are worth on judged pairs, and which pairs to ask about next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hookline.contract.feedback import Event, Thumb
from hookline.errors import DataError
from hookline.runs.run import Run
from hookline.study.intervals import Estimate
from hookline.study.judging.annotators import Doubtful, Judgements, annotators, share
from hookline.study.judging.answers import Pair, beginning, table_of
from hookline.study.judging.calibration import (
    Calibration,
    Ceiling,
    LikedOrNot,
    accuracy,
    by_subset,
    calibration,
    liked_or_not,
)
from hookline.study.judging.choosing import choose, posterior
from hookline.study.judging.logistic import chance
from hookline.study.judging.scoring import Scored, score_candidates

__all__ = ["RewardModel", "judge_reward_model"]

WIDEST = 64
"""Directions of the states that are kept to choose pairs: the first principal components."""


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A reward model beside the annotators whose answers it was asked about."""

    accuracy: Estimate
    """The share of decided pairs that it orders as the annotators did, with its interval over items."""
    ceiling: Ceiling
    """What the best reward model could reach on these answers."""
    calibration: Calibration
    """Slope, Brier score, likelihood and ECE; of pairs whose order is known, the first is the one that was shown first."""
    longer: Estimate
    """The share of pairs of unequal length in which the model prefers the longer answer."""
    annotators_longer: Estimate
    """The same share for the annotators: what is above it is the model's own."""
    by_length: dict[str, tuple[int, Estimate]]
    """`longer preferred`, `shorter preferred` → pairs and accuracy."""
    by_position: dict[str, tuple[int, Estimate]]
    """`first preferred`, `second preferred` → pairs and accuracy, where the order shown is known."""
    by_annotator: dict[str, tuple[int, Estimate]]
    """Annotator → pairs and accuracy."""
    by_subset: dict[str, tuple[int, Estimate]]
    """Value of the field `subset` of the rows → pairs and accuracy; empty without one."""
    thumbs: LikedOrNot
    """How well it tells answers that were liked from others."""
    ask: list[Doubtful]
    """The pairs whose answers would teach most (D-optimal on the model's states), with the model's own probability."""
    notes: list[str] = field(default_factory=list)
    """What was left out."""


def judge_reward_model(
    model: Run | str | Path,
    events: Iterable[Event],
    *,
    subset: str = "",
    output: str = "",
    most: int = 10,
    judged: Judgements | None = None,
) -> RewardModel:
    """Compare the reward model of a run with judgements that it was not trained on.

    model: a run, its directory or RUN/phases/NAME. subset: a field of the events' rows (`record`), or of `extra`, by which
    accuracy is split. output: which of several outputs of the head `reward` is read. judged: what `annotators` said about the
    same events, if it was asked before. Where two annotators or more are trusted, only answers of trusted ones count.

    Raises DataError if no answer compares two candidates that the model can read, ExperimentError for a model without rewards.
    """
    events = list(events)
    judged = judged or annotators(events)
    table = table_of(events, final=True)
    scored = score_candidates(model, table.events, output)
    notes = [f"{scored.left_out} candidates are longer than the model's context"] if scored.left_out else []
    pairs = [p for p in table.pairs if (p.item, p.one) in scored.reward and (p.item, p.two) in scored.reward]
    thumbs = _thumbs(table.events, scored)
    if len(judged.trusted) >= 2:
        counted = [event for event, _, _ in thumbs] + [pair.event for pair in pairs]
        left = sum(not _counts(event, judged.trusted) for event in counted)
        if left:
            notes.append(f"{left} answers of annotators who are not trusted do not count")
        pairs = [pair for pair in pairs if _counts(pair.event, judged.trusted)]
        thumbs = [thumb for thumb in thumbs if _counts(thumb[0], judged.trusted)]
    decided = [pair for pair in pairs if pair.better is not None]
    if not decided and not thumbs:
        raise DataError(
            "no answer prefers one of two candidates that the model can read, or likes one",
            "give comparisons, rankings or thumbs",
        )
    if ties := len(pairs) - len(decided):
        notes.append(f"{ties} ties do not count")
    first = [pair.one if pair.first is None else pair.first for pair in decided]
    second = [pair.one + pair.two - place for pair, place in zip(decided, first)]
    gap_N = np.array([scored.reward[p.item, a] - scored.reward[p.item, b] for p, a, b in zip(decided, first, second)])
    won_N = np.array([float(pair.better == place) for pair, place in zip(decided, first)])
    item_N = np.array([pair.item for pair in decided])
    length_N = np.array([_length(p, a) - _length(p, b) for p, a, b in zip(decided, first, second)])
    uneven = length_N != 0
    signed = gap_N * np.sign(length_N)
    said_longer = (won_N == 1) == (length_N > 0)
    with_order = np.array([pair.first is not None for pair in decided], bool)
    position = np.where(won_N == 1, "first preferred", "second preferred")
    length = np.where(said_longer, "longer preferred", "shorter preferred")
    whose = [pair.annotator for pair in decided]
    named = [_subset(pair.event, subset) for pair in decided] if subset else []
    if subset and decided and not any(named):
        raise DataError(f"no event has the field '{subset}' in its row", "name a field of `record` or `extra`")
    return RewardModel(
        accuracy=accuracy(gap_N, won_N, item_N),
        ceiling=judged.ceiling,
        calibration=calibration(gap_N, won_N, item_N),
        longer=share(float((signed[uneven] > 0).sum() + (signed[uneven] == 0).sum() / 2), int(uneven.sum())),
        annotators_longer=share(float(said_longer[uneven].sum()), int(uneven.sum())),
        by_length=dict(by_subset(length[uneven].tolist(), gap_N[uneven], won_N[uneven], item_N[uneven])),
        by_position=dict(by_subset(position[with_order].tolist(), gap_N[with_order], won_N[with_order], item_N[with_order])),
        by_annotator=dict(by_subset(whose, gap_N, won_N, item_N)),
        by_subset=dict(by_subset(named, gap_N, won_N, item_N)) if named else {},
        thumbs=liked_or_not([r for _, r, _ in thumbs], [up for _, _, up in thumbs], [event.item for event, _, _ in thumbs]),
        ask=_ask(table.events, scored, decided, most),
        notes=notes,
    )  # fmt: skip


def _thumbs(events: Sequence[Event], scored: Scored) -> list[tuple[Event, float, bool]]:
    """Thumbs, the rewards of what they are about, and whether they are up."""
    said = [(event, event.answer) for event in events if not event.repeats]
    return [
        (event, scored.reward[event.item, answer.of], answer.up)
        for event, answer in said
        if isinstance(answer, Thumb) and (event.item, answer.of) in scored.reward
    ]


def _counts(event: Event, trusted: Sequence[str]) -> bool:
    return bool(event.decides) or event.annotator in trusted


def _length(pair: Pair, place: int) -> int:
    return len(pair.event.candidates[place].text)


def _subset(event: Event, name: str) -> str:
    return str(event.record.get(name, event.extra.get(name, "")))


def _ask(events: Sequence[Event], scored: Scored, answered: Sequence[Pair], most: int) -> list[Doubtful]:
    """Pairs of each item's candidates, chosen by D-optimality with the states that the head reads as features."""
    items = {event.item: event for event in events}
    every = [
        (item, one, two)
        for item, event in items.items()
        for one in range(len(event.candidates))
        for two in range(one + 1, len(event.candidates))
        if (item, one) in scored.state and (item, two) in scored.state
    ]
    if not every:
        return []
    z_PH = np.stack([scored.state[item, one] - scored.state[item, two] for item, one, two in every])
    _, size, turn = np.linalg.svd(z_PH, full_matrices=False)
    kept = min(WIDEST, int((size > size.max(initial=0) * 1e-6).sum()))
    if not kept:
        return []
    z_PD = z_PH @ turn[:kept].T
    z_PD = z_PD / max(float(np.sqrt((z_PD**2).sum(1).mean())), 1e-12)
    number = {pair: i for i, pair in enumerate(every)}
    row = np.array([number[pair.unit] for pair in answered], int)
    known = posterior(z_PD[row], [float(pair.better == pair.one) for pair in answered], prior=10.0)
    counts = np.bincount(row, minlength=len(every))
    found = []
    for asked in choose(z_PD, known, most, random_share=0.0):
        item, one, two = every[asked.pair]
        sure = float(chance(abs(scored.reward[item, one] - scored.reward[item, two])))
        found.append(Doubtful(item, (one, two), sure, int(counts[asked.pair]), beginning(items[item])))
    return found
