"""What to ask next: pairs whose answers teach a linear reward model most, and questions on which annotators differ.

A reward is linear in features φ (D of them, e.g. a network's last states), so a pair has z = φ_a − φ_b and P(a ≻ b) = σ(θ·z). P pairs
can be asked, N were answered. The posterior of θ is the normal one at its mode (Laplace).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from hookline.errors import DataError, ExperimentError
from hookline.runs.samples import Floats
from hookline.study.judging.logistic import chance, logistic

__all__ = ["Asked", "Posterior", "Way", "choose", "posterior"]

Way = Literal["random", "uncertainty", "d-optimal", "thompson", "drts"]


@dataclass(frozen=True, eq=False)
class Posterior:
    """What is known of the weights of a linear reward."""

    mean_D: Floats
    """The most probable weights."""
    covariance_DD: Floats
    """Their covariance."""


@dataclass(frozen=True)
class Asked:
    """A pair that was chosen."""

    pair: int
    """Its index among the pairs that could be asked."""
    probability: float
    """With which probability it was chosen at that point; 1 for a choice that depends on no uniform draw."""
    random: bool
    """Whether it belongs to the share chosen uniformly: only such pairs give unbiased accuracies and win rates."""


def posterior(z_ND: Any, score_N: Any, *, prior: float = 1.0) -> Posterior:
    """The Laplace posterior of θ ~ N(0, prior · 1) given answers: score 1 where the first won, 0 where the second, ½ for a tie."""
    z_ND, score_N = np.asarray(z_ND, np.float64), np.asarray(score_N, np.float64)
    if z_ND.ndim != 2 or len(z_ND) != len(score_N):
        raise DataError(f"features are {list(z_ND.shape)} and answers {list(score_N.shape)}", "give one row per answer")
    if not np.isfinite(z_ND).all() or not np.isfinite(score_N).all():
        raise DataError("a feature or an answer is not finite", "leave such pairs out")
    mean_D, curve_DD = logistic(z_ND, score_N, 1 / prior)
    return Posterior(mean_D, np.asarray(np.linalg.inv(curve_DD), np.float64))


def choose(
    z_PD: Any,
    known: Posterior,
    count: int,
    *,
    how: Way = "d-optimal",
    random_share: float = 0.1,
    seed: int | Sequence[int] = 0,
) -> list[Asked]:
    """Choose pairs to ask, no pair twice.

    how: `random`; `uncertainty`, the pairs nearest to even; `d-optimal`, those that shrink the volume of the posterior most,
    each given the ones before it (Sherman–Morrison), so that near-duplicates do not fill a batch; `thompson`, the pairs
    for which two drawn reward models give the most different P(a ≻ b); `drts`, those with the largest gap under a drawn
    reward model (as in double reverse Thompson sampling), which looks for good and bad answers, not for an order.
    random_share: the share of pairs that is chosen uniformly instead, for evaluation. Raises ExperimentError for
    other words and a count below 1; fewer pairs than asked for give what there is.
    """
    if how not in get_args(Way):
        raise ExperimentError(f"'{how}' is not a way to choose pairs", f"choose one of {', '.join(get_args(Way))}")
    if count < 1 or not 0 <= random_share <= 1:
        raise ExperimentError("count is at least 1, and random_share lies in [0, 1]", "e.g. count=16, random_share=0.1")
    z_PD = np.asarray(z_PD, np.float64)
    if z_PD.ndim != 2 or z_PD.shape[1] != len(known.mean_D) or not np.isfinite(z_PD).all():
        raise DataError(
            f"the features of pairs are {list(z_PD.shape)} and there are {len(known.mean_D)} weights, or one is not finite",
            "give a finite row of features per pair",
        )
    rng = np.random.default_rng(seed)
    free = np.ones(len(z_PD), bool)
    uniform = rng.random(min(count, len(z_PD))) < (1 if how == "random" else random_share)
    covariance_DD = known.covariance_DD.copy()
    gap_P = z_PD @ known.mean_D
    curve_P = chance(gap_P) * chance(-gap_P)
    root_DD = np.asarray(np.linalg.cholesky(covariance_DD + 1e-12 * np.eye(len(covariance_DD))), np.float64)
    chosen: list[Asked] = []
    for by_chance in uniform:
        left = int(free.sum())
        if by_chance:
            pair = int(rng.choice(np.flatnonzero(free)))
        else:
            worth_P = _worth(how, z_PD, gap_P, curve_P, known.mean_D, covariance_DD, root_DD, rng)
            pair = int(np.argmax(np.where(free, worth_P, -np.inf)))
        if how == "d-optimal":
            turned_D = covariance_DD @ z_PD[pair]
            covariance_DD -= (
                curve_P[pair] * np.outer(turned_D, turned_D) / (1 + curve_P[pair] * (z_PD[pair] @ turned_D))
            )
        free[pair] = False
        chosen.append(Asked(pair, 1 / left if by_chance else 1.0, bool(by_chance)))
    return chosen


def _worth(
    how: str,
    z_PD: Floats,
    gap_P: Floats,
    curve_P: Floats,
    mean_D: Floats,
    covariance_DD: Floats,
    root_DD: Floats,
    rng: np.random.Generator,
) -> Floats:
    if how == "uncertainty":
        return -np.abs(gap_P)
    if how == "d-optimal":
        return np.asarray(curve_P * np.einsum("pd,de,pe->p", z_PD, covariance_DD, z_PD))
    one, two = (mean_D + root_DD @ rng.standard_normal(len(mean_D)) for _ in range(2))
    if how == "thompson":
        return np.abs(chance(z_PD @ one) - chance(z_PD @ two))
    return np.abs(z_PD @ one)
