"""Tests that may be looked at after every answer: an e-process for a win rate, with an interval that holds at all times.

Under "the rate is ½", the wealth of somebody who bets on the next answer is a martingale, so it reaches 1/level with a
probability of at most `level`, however often one looks (Ville). A fixed test peeked 10 times at 5 % errs in 19 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hookline.errors import DataError

__all__ = ["AlwaysValid", "always_valid"]


@dataclass(frozen=True)
class AlwaysValid:
    """What answers so far say about a win rate; it may be asked after each of them."""

    rate: float
    """Wins + ½ ties, divided by the answers; NaN without any."""
    low: float
    """The lower end of the interval that holds at all times together."""
    high: float
    """The upper end."""
    wealth: float
    """The e-value against a rate of ½, in natural logarithm."""
    p: float
    """The always-valid p-value: 1 / the largest wealth so far, at most 1."""
    decided_at: int | None
    """The number of answers after which p was first at most `level`; None if it has not been."""
    answers: int
    """How many answers there are."""


def always_valid(scores: Iterable[float], *, level: float = 0.05, prior: float = 0.5) -> AlwaysValid:
    """Is a win rate ½? scores: 1 for a win, 0 for a loss, ½ for a tie, in order of arrival.

    The wealth is that of a mixture of bets over all rates, Beta(prior, prior): Π is Beta(w + prior, l + prior) /
    Beta(prior, prior) · 2ⁿ. A tie is half a win and half a loss, which bets less than a fair game allows. Stop whenever
    you like: at most `level` of the experiments without a difference are ever decided. Raises DataError for other scores.
    """
    values = np.asarray(list(scores), np.float64)
    if not np.isin(values, (0, 0.5, 1)).all():
        raise DataError("a score is not 0, ½ or 1", "1: a win, 0: a loss, 0.5: a tie")
    if not 0 < level < 1:
        raise DataError(f"the level is {level:g}", "choose one between 0 and 1, e.g. 0.05")
    n = len(values)
    if not n:
        return AlwaysValid(math.nan, 0.0, 1.0, 0.0, 1.0, None, 0)
    wins = 0.0
    best, wealth, decided = 0.0, 0.0, None
    for i, score in enumerate(values, 1):
        wins += score
        wealth = _log_wealth(wins, i - wins, 0.5, prior)
        best = max(best, wealth)
        if decided is None and best >= -math.log(level):
            decided = i
    rate = wins / n
    low, high = (_edge(wins, n, rate, level, prior, up) for up in (False, True))
    return AlwaysValid(rate, low, high, wealth, math.exp(-best), decided, n)


def _log_wealth(wins: float, losses: float, rate: float, prior: float) -> float:
    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    against = (wins * math.log(rate) if wins else 0.0) + (losses * math.log1p(-rate) if losses else 0.0)
    return log_beta(wins + prior, losses + prior) - log_beta(prior, prior) - against


def _edge(wins: float, n: int, rate: float, level: float, prior: float, up: bool) -> float:
    """The rate, beyond the observed one, from which on the wealth against it is 1/level."""
    inside, outside = rate, 1.0 if up else 0.0
    if inside == outside:
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        if _log_wealth(wins, n - wins, middle, prior) < -math.log(level):
            inside = middle
        else:
            outside = middle
    return outside
