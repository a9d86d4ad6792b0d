"""One answer from several annotators, and how reliable each is: majority, Dawid–Skene, one coin, GLAD, CrowdBT.

N answers: who_N gave to unit_N the label label_N. K annotators, U units, C labels. Pure functions; expectation–maximisation
runs in logarithms. Each starts from the majority, so that labels keep their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hookline.runs.samples import Floats

__all__ = ["Consensus", "crowd_bt", "dawid_skene", "glad", "majority", "one_coin"]

Ints = NDArray[np.intp]
ROUNDS = 500
CLOSE = 1e-8


@dataclass(frozen=True, eq=False)
class Consensus:
    """What the annotators say together."""

    posterior_UC: Floats
    """[U, C] how probable each label of a unit is."""
    reliability_K: Floats
    """[K] how often an annotator is right, in the model's own sense (see each function)."""
    confusion_KCC: Floats | None = None
    """[K, C, C] P(answer | truth) of each annotator, for Dawid–Skene."""


def _arrays(who_N: Any, unit_N: Any, label_N: Any) -> tuple[Ints, Ints, Ints]:
    return np.asarray(who_N, np.intp), np.asarray(unit_N, np.intp), np.asarray(label_N, np.intp)


def _softmax(log_UC: Floats) -> Floats:
    shifted = np.exp(log_UC - log_UC.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))


def majority(who_N: Any, unit_N: Any, label_N: Any, *, annotators: int, units: int, labels: int) -> Consensus:
    """The share of each label; reliability: how often an annotator is with the most frequent, which includes their own."""
    who, unit, label = _arrays(who_N, unit_N, label_N)
    share_UC = np.zeros((units, labels))
    np.add.at(share_UC, (unit, label), 1.0)
    share_UC /= np.maximum(share_UC.sum(1, keepdims=True), 1)
    best_UC = share_UC == share_UC.max(1, keepdims=True)
    best_UC = best_UC / best_UC.sum(1, keepdims=True)
    right_K = np.bincount(who, best_UC[unit, label], annotators)
    return Consensus(share_UC, right_K / np.maximum(np.bincount(who, minlength=annotators), 1))


def dawid_skene(
    who_N: Any, unit_N: Any, label_N: Any, *, annotators: int, units: int, labels: int, smoothing: float = 0.1
) -> Consensus:
    """A confusion matrix per annotator (Dawid & Skene 1979), by expectation–maximisation.

    smoothing: added to each cell of the matrices and of the prior, so that nobody is infallible after few answers.
    Reliability: Σ_c P(c) P(answer c | truth c).
    """
    who, unit, label = _arrays(who_N, unit_N, label_N)
    posterior_UC = majority(who, unit, label, annotators=annotators, units=units, labels=labels).posterior_UC
    for _ in range(ROUNDS):
        count_KCC = np.full((annotators, labels, labels), smoothing)
        np.add.at(count_KCC.transpose(0, 2, 1), (who, label), posterior_UC[unit])
        confusion_KCC = count_KCC / count_KCC.sum(2, keepdims=True)
        prior_C = posterior_UC.sum(0) + smoothing
        prior_C /= prior_C.sum()
        log_UC = np.tile(np.log(prior_C), (units, 1))
        np.add.at(log_UC, unit, np.log(confusion_KCC)[who, :, label])
        before, posterior_UC = posterior_UC, _softmax(log_UC)
        if np.abs(posterior_UC - before).max(initial=0) < CLOSE:
            break
    right_K = np.einsum("c,kcc->k", prior_C, confusion_KCC)
    return Consensus(posterior_UC, right_K, confusion_KCC)


def one_coin(
    who_N: Any, unit_N: Any, label_N: Any, *, annotators: int, units: int, labels: int, smoothing: float = 0.5
) -> Consensus:
    """One probability of being right per annotator; errors are spread evenly over the other labels, which are equally frequent.

    smoothing: answers added as right and as wrong. It asks less of the data than Dawid–Skene; reliability is that probability.
    """
    who, unit, label = _arrays(who_N, unit_N, label_N)
    posterior_UC = majority(who, unit, label, annotators=annotators, units=units, labels=labels).posterior_UC
    answers_K = np.bincount(who, minlength=annotators)
    for _ in range(ROUNDS):
        right_K = np.bincount(who, posterior_UC[unit, label], annotators) + smoothing
        right_K = right_K / (answers_K + 2 * smoothing)
        odds_K = np.log(right_K) - np.log((1 - right_K) / max(labels - 1, 1))
        log_UC = np.zeros((units, labels))
        np.add.at(log_UC, (unit, label), odds_K[who])
        before, posterior_UC = posterior_UC, _softmax(log_UC)
        if np.abs(posterior_UC - before).max(initial=0) < CLOSE:
            break
    return Consensus(posterior_UC, np.asarray(right_K, np.float64))


def glad(who_N: Any, unit_N: Any, label_N: Any, *, annotators: int, units: int, labels: int = 2) -> Consensus:
    """P(right) = σ(ability_k · ease_u), ease > 0 (Whitehill et al. 2009), priors N(1, 1) on ability and log ease.

    Reliability is σ(ability): P(right) at a unit of ease 1. Errors are spread evenly over the other labels.
    """
    who, unit, label = _arrays(who_N, unit_N, label_N)
    posterior_UC = majority(who, unit, label, annotators=annotators, units=units, labels=labels).posterior_UC
    ability_K, log_ease_U = np.ones(annotators), np.ones(units)
    bound_K = 1 + np.bincount(who, minlength=annotators)
    bound_U = 1 + np.bincount(unit, minlength=units)
    for _ in range(ROUNDS):
        for _ in range(10):
            ease_N = np.exp(log_ease_U)[unit]
            missing_N = posterior_UC[unit, label] - 1 / (1 + np.exp(-np.clip(ability_K[who] * ease_N, -50, 50)))
            up_K = np.bincount(who, missing_N * ease_N, annotators) - (ability_K - 1)
            up_U = np.bincount(unit, missing_N * ability_K[who] * ease_N, units) - (log_ease_U - 1)
            ability_K = ability_K + np.clip(up_K / bound_K, -0.5, 0.5)
            log_ease_U = np.clip(log_ease_U + np.clip(up_U / bound_U, -0.5, 0.5), -4, 4)
        log_UC = np.zeros((units, labels))
        score_N = ability_K[who] * np.exp(log_ease_U)[unit]
        np.add.at(log_UC, (unit, label), score_N + np.log(max(labels - 1, 1)))
        before, posterior_UC = posterior_UC, _softmax(log_UC)
        if np.abs(posterior_UC - before).max(initial=0) < 1e-6:
            break
    return Consensus(posterior_UC, 1 / (1 + np.exp(-ability_K)))


def crowd_bt(
    who_N: Any, better_N: Any, worse_N: Any, *, annotators: int, things: int, spread: float = 2.0
) -> tuple[Floats, Floats]:
    """[things] worths and [K] reliabilities q of P(better ≻ worse) = qσ(d) + (1−q)σ(−d) (Chen et al. 2013).

    Priors: q ~ Beta(10, 1), so that most annotators are taken to be honest, which fixes the sign; worth ~ N(0, spread²), so
    that worths are finite for data without a contradiction. q < ½ is an annotator who says the opposite.
    """
    who, better, worse = _arrays(who_N, better_N, worse_N)
    worth, q_K = np.zeros(things), np.full(annotators, 0.9)
    answers_K = np.bincount(who, minlength=annotators)
    bound = 1 / spread**2 + 0.5 * (np.bincount(better, minlength=things) + np.bincount(worse, minlength=things))
    for _ in range(4 * ROUNDS):
        chance_N = 1 / (1 + np.exp(worth[worse] - worth[better]))
        honest_N = q_K[who] * chance_N
        honest_N = honest_N / (honest_N + (1 - q_K[who]) * (1 - chance_N))
        q_K = (np.bincount(who, honest_N, annotators) + 9) / (answers_K + 9)
        up_N = honest_N - chance_N
        step = np.bincount(better, up_N, things) - np.bincount(worse, up_N, things) - worth / spread**2
        worth = worth + step / bound
        if np.abs(step / bound).max(initial=0) < 1e-7:
            break
    return worth, q_K
