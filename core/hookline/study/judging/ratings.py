"""Strengths of models or answers from who beat whom: Bradley–Terry and Davidson, Elo points, intervals, length control.

M things that are compared; wins_MM[a, b] is how often a beat b, ties_MM (symmetric) how often neither did. Newton's method on
the log-likelihood; strengths are in nats and sum to 0. A strength is finite only if no group of things beats all others
always (Ford 1957); otherwise the caller is told, and `prior` half wins and losses against a thing of strength 0 are added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hookline.errors import DataError, NumbersError
from hookline.runs.samples import Floats
from hookline.study.intervals import Estimate, drawn_prompts, tail
from hookline.study.judging.logistic import chance, logistic

__all__ = ["ELO", "Ratings", "bradley_terry", "davidson", "length_controlled", "ratings", "separated", "win_rate"]

ELO = 400 / math.log(10)
"""Elo points per nat of strength."""
PRIOR = 0.5
"""Wins and losses against a thing of strength 0 that are added where the data have no finite answer."""
DRAWS = 400


@dataclass(frozen=True)
class Ratings:
    """Strengths with 95 % intervals over items (or over whatever the clusters are)."""

    names: tuple[str, ...]
    """The things that were compared, the strongest first."""
    strength: dict[str, Estimate]
    """Name → strength in nats; they sum to 0."""
    elo: dict[str, Estimate]
    """Name → Elo points, 1000 in the middle: 173.7178 per nat."""
    tie: float | None
    """Davidson's ν, P(tie | equal strength) = ν / (2 + ν); None where no comparison was a tie."""
    note: str = ""
    """Why a prior was added; empty if it was not."""


def _finite(counts: Any) -> Floats:
    wins_MM: Floats = np.array(counts, np.float64)
    if wins_MM.ndim != 2 or wins_MM.shape[0] != wins_MM.shape[1]:
        raise DataError(f"counts of wins have the shape {list(wins_MM.shape)}", "give a square table: who beat whom")
    if not np.isfinite(wins_MM).all() or (wins_MM < 0).any():
        raise DataError("a count of wins is negative or not a number", "count how often each thing beat each other")
    np.fill_diagonal(wins_MM, 0)
    return wins_MM


def separated(wins_MM: Any, ties_MM: Any = 0.0) -> bool:
    """Whether the strengths have no finite answer: not everything can be reached from everything by wins and ties."""
    beats = (_finite(wins_MM) + ties_MM) > 0
    np.fill_diagonal(beats, True)
    for _ in range(max(1, math.ceil(math.log2(max(len(beats), 2))))):
        beats = (beats.astype(np.float64) @ beats) > 0
    return not beats.all()


def _newton(value: Callable[[Floats], tuple[float, Floats, Floats]], x: Floats) -> Floats:
    """The minimum of a convex function that returns its value, gradient and Hessian; steps are halved until it falls."""
    at, gradient, hessian = value(x)
    for _ in range(200):
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if not np.isfinite(step).all():
            break
        size = min(1.0, 5 / max(float(np.abs(step).max()), 1e-300))
        while size > 1e-10:
            new = value(x - size * step)
            if new[0] <= at:
                break
            size /= 2
        else:
            return x
        x, fallen, (at, gradient, hessian) = x - size * step, at - new[0], new
        if float(np.abs(size * step).max()) < 1e-10 or (fallen <= 0 and float(np.abs(gradient).max()) < 1e-7):
            return x
    raise NumbersError("the strengths did not converge", "add a prior: a few wins and losses against an average thing")


def bradley_terry(wins_MM: Any, *, prior: float = 0.0) -> Floats:
    """[M] strengths with P(a beats b) = σ(s_a − s_b); count a tie as half a win for each, or leave it out.

    prior: wins and losses, each `prior`, of everything against a thing of strength 0. Raises NumbersError for data
    without a finite answer if prior is 0.
    """
    wins_MM = _finite(wins_MM)
    if not prior and separated(wins_MM):
        raise NumbersError(
            "something won or lost every comparison, so its strength has no finite value",
            f"pass prior={PRIOR}, or compare more",
        )
    return _fit(wins_MM, np.zeros_like(wins_MM), prior, None)[0]


def davidson(wins_MM: Any, ties_MM: Any, *, prior: float = 0.0) -> tuple[Floats, float]:
    """[M] strengths and ν: a win of a, a win of b and a tie are as e^(d/2) : e^(−d/2) : ν (Davidson 1970).

    Raises NumbersError as `bradley_terry`, and where all comparisons or none are ties, which gives ν no finite value.
    """
    wins_MM, ties_MM = _finite(wins_MM), _finite(ties_MM)
    if not (ties_MM == ties_MM.T).all():
        raise DataError("the counts of ties are not symmetric", "a tie of a and b is a tie of b and a")
    if not ties_MM.any() or not wins_MM.any():
        raise NumbersError("all comparisons are ties, or none is", "use bradley_terry where nothing is a tie")
    if not prior and separated(wins_MM, ties_MM):
        raise NumbersError(
            "something won or lost every comparison, so its strength has no finite value",
            f"pass prior={PRIOR}, or compare more",
        )
    strength_M, log_nu = _fit(wins_MM, ties_MM, prior, 0.0)
    return strength_M, math.exp(log_nu)


def _fit(wins_MM: Floats, ties_MM: Floats, prior: float, log_nu: float | None) -> tuple[Floats, float]:
    M = len(wins_MM)
    total_MM = wins_MM + wins_MM.T + ties_MM
    with_ties = log_nu is not None

    def value(x: Floats) -> tuple[float, Floats, Floats]:
        s, tau = (x[:M], x[M]) if with_ties else (x, -np.inf)
        d = s[:, None] - s[None]
        log_z = np.logaddexp(np.logaddexp(d / 2, -d / 2), tau)
        win, lose, tie = np.exp(d / 2 - log_z), np.exp(-d / 2 - log_z), np.exp(tau - log_z)
        loss = (wins_MM * (log_z - d / 2)).sum()
        if with_ties:
            loss += (ties_MM * (log_z - tau)).sum() / 2
        slope_MM = 0.5 * (total_MM * (win - lose) - (wins_MM - wins_MM.T))
        gradient = slope_MM.sum(1)
        curve_MM = 0.25 * total_MM * (win + lose - (win - lose) ** 2)
        hessian = np.diag(curve_MM.sum(1)) - curve_MM
        away = 1 / (1 + np.exp(-np.clip(s, -700, 700)))
        loss += prior * (np.logaddexp(0, s) + np.logaddexp(0, -s)).sum()
        gradient = gradient + prior * (2 * away - 1)
        hessian = hessian + np.diag(2 * prior * away * (1 - away))
        if not with_ties:
            return float(loss), gradient, hessian
        cross_M = -0.5 * (total_MM * (win - lose) * tie).sum(1)
        corner = (total_MM * tie * (1 - tie)).sum() / 2
        full = np.block([[hessian, cross_M[:, None]], [cross_M[None], np.array([[corner]])]])
        by_tau = (total_MM * tie - ties_MM).sum() / 2
        return float(loss), np.append(gradient, by_tau), full

    found = _newton(value, np.zeros(M + with_ties))
    strength_M = found[:M] - (0 if prior else found[:M].mean())
    return strength_M, float(found[M]) if with_ties else -math.inf


def ratings(
    names: Sequence[str],
    one_N: Any,
    two_N: Any,
    score_N: Any,
    *,
    cluster_N: Any = None,
    draws: int = DRAWS,
) -> Ratings:
    """Strengths of things that were compared, with bootstrap intervals.

    one_N, two_N: the things of each comparison, as indices of names; score_N: 1 where `one` won, 0 where `two` did, ½ for a
    tie. cluster_N: what is drawn with replacement, e.g. the prompt of each comparison; default: comparisons. Things that
    nothing connects have no common scale: DataError.
    """
    one, two = np.asarray(one_N, np.intp), np.asarray(two_N, np.intp)
    score = np.asarray(score_N, np.float64)
    if not np.isin(score, (0, 0.5, 1)).all():
        raise DataError("a score is not 0, ½ or 1", "1: the first won, 0: the second won, 0.5: a tie")
    if not len(score) or (one == two).any():
        raise DataError("there is no comparison of two different things", "compare things by different names")
    M = len(names)
    cluster = np.unique(np.arange(len(one)) if cluster_N is None else np.asarray(cluster_N), return_inverse=True)[1]
    clusters = int(cluster.max()) + 1

    def counted(weight_N: Floats) -> tuple[Floats, Floats]:
        wins, ties = np.zeros((M, M)), np.zeros((M, M))
        np.add.at(wins, (one, two), weight_N * (score == 1))
        np.add.at(wins, (two, one), weight_N * (score == 0))
        np.add.at(ties, (one, two), weight_N * (score == 0.5))
        return wins, ties + ties.T

    wins, ties = counted(np.ones(len(one)))
    _connected(names, wins + ties)
    with_ties = bool(ties.any() and wins.any())
    prior = PRIOR if separated(wins, ties) else 0.0

    def fit(weight_N: Floats, prior: float) -> tuple[Floats, float]:
        wins, ties = counted(weight_N)
        if not prior and separated(wins, ties):
            prior = PRIOR
        ties_now = with_ties and bool(ties.any() and wins.any())
        found, log_nu = _fit(wins, ties, prior, 0.0) if ties_now else _fit(wins + ties / 2, 0 * ties, prior, None)
        return found - found.mean(), log_nu

    strength_M, log_nu = fit(np.ones(len(one)), prior)
    share_DG = drawn_prompts(clusters, draws) if clusters > 1 else np.empty((0, 1))
    drawn = [fit(share_G[cluster] * clusters, prior)[0] for share_G in share_DG]
    estimates = [_estimate(strength_M[m], [d[m] for d in drawn], clusters) for m in range(M)]
    order = sorted(range(M), key=lambda m: -strength_M[m])
    note = "something won or lost every comparison" if prior else ""
    return Ratings(
        names=tuple(names[m] for m in order),
        strength={names[m]: estimates[m] for m in order},
        elo={names[m]: _scaled(estimates[m]) for m in order},
        tie=math.exp(log_nu) if with_ties else None,
        note=note and f"{note}, so {PRIOR:g} wins and losses against an average thing were added for each",
    )


def _connected(names: Sequence[str], met_MM: Floats) -> None:
    seen, todo = {0}, [0]
    while todo:
        a = todo.pop()
        new = [int(b) for b in np.flatnonzero(met_MM[a] + met_MM[:, a]) if int(b) not in seen]
        seen.update(new)
        todo.extend(new)
    if len(seen) < len(names):
        apart = next(name for m, name in enumerate(names) if m not in seen)
        raise DataError(
            f"'{apart}' and '{names[0]}' are not connected by comparisons, so they have no common scale",
            "compare them with each other, or with something that both were compared with",
        )


def _estimate(value: float, drawn: Sequence[float], clusters: int) -> Estimate:
    if not drawn:
        return Estimate(float(value), math.nan, math.nan)
    share = tail(clusters)
    low, high = np.quantile(np.asarray(drawn), [share, 1 - share])
    return Estimate(float(value), float(low), float(high))


def _scaled(one: Estimate) -> Estimate:
    return Estimate(*(1000 + ELO * x for x in (one.value, one.low, one.high)))


def win_rate(score_N: Any) -> tuple[float, float, float, float]:
    """Shares of wins, ties and losses, and wins + ½ ties, from scores 1, ½ and 0 (NaN without any)."""
    score = np.asarray(score_N, np.float64)
    if not len(score):
        return math.nan, math.nan, math.nan, math.nan
    return tuple(float(x) for x in ((score == 1).mean(), (score == 0.5).mean(), (score == 0).mean(), score.mean()))  # type: ignore[return-value]


def length_controlled(score_N: Any, longer_N: Any, *, penalty: float = 0.1) -> tuple[float, float]:
    """The win rate as if both answers were equally long, and the coefficient of length.

    A logistic regression of score_N (1, ½, 0, or a probability) on tanh(Δ / s.d. of Δ), Δ = longer_N = the length of
    the answer minus that of the baseline; the rate is the prediction at Δ = 0 (AlpacaEval's form without its difficulties
    of prompts, which need several models). penalty: ½ penalty γ² on the coefficient keeps it finite.
    """
    score, longer = np.asarray(score_N, np.float64), np.asarray(longer_N, np.float64)
    if not len(score):
        return math.nan, math.nan
    spread = longer.std()
    z = np.tanh(longer / spread) if spread > 0 else np.zeros_like(longer)
    (intercept, gamma), _ = logistic(np.stack([np.ones_like(z), z], 1), score, (1e-6, penalty))
    return float(chance(intercept)), float(gamma)
