"""What a reward model's scores are worth on judged pairs: accuracy beside its ceiling, calibration, biases, by subset.

N pairs: gap_N is the model's r_a − r_b, won_N is 1 where a was preferred, 0 where b was, ½ for a tie. A tie between
the two rewards is half right: a constant model has an accuracy of ½.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hookline.errors import DataError
from hookline.runs.samples import Floats
from hookline.study.intervals import Estimate, interval
from hookline.study.judging.agreement import draws_for, unit_interval
from hookline.study.judging.logistic import chance, logistic

__all__ = [
    "Calibration",
    "Ceiling",
    "LikedOrNot",
    "accuracy",
    "by_subset",
    "calibration",
    "ceiling",
    "ceiling_of_agreement",
    "ceiling_of_spread",
    "liked_or_not",
]

BINS = 10


@dataclass(frozen=True)
class Ceiling:
    """What the best possible reward model reaches with annotators who decide as Bradley–Terry says."""

    accuracy: float
    """The share of answers that agree with the truth, E[max(p, 1 − p)]."""
    agreement: float
    """The share in which two annotators agree, E[p² + (1 − p)²]."""
    nll: float
    """The lowest loss in nats, E[−p log p − (1 − p) log(1 − p)]."""


@dataclass(frozen=True)
class Calibration:
    """How far probabilities σ(gap) are to be believed."""

    accuracy: Estimate
    """The share of decided pairs that the model orders as annotators did, equal rewards counting half, with its interval."""
    ties: int
    """The pairs with equal rewards."""
    pairs: int
    """The decided pairs."""
    slope: float
    """Of a logistic regression of answers on gaps: 1 is calibrated, below 1 overconfident. 1/slope is the temperature."""
    intercept: float
    """Of the same: not 0 where the first candidate is preferred for its place; NaN if the slope is not defined."""
    brier: float
    """The mean squared error of the probabilities."""
    nll: float
    """Their mean negative log-likelihood, in nats."""
    ece: Estimate
    """Expected calibration error over bins of equal size; it is biased up in small samples, also of perfect models."""
    table: list[dict[str, float]] = field(default_factory=list)
    """The bins: number of pairs, mean probability, share of wins."""
    note: str = ""
    """Why something is not defined; empty if everything is."""


@dataclass(frozen=True)
class LikedOrNot:
    """How well rewards tell thumbs up from thumbs down. Everything but the counts is NaN if all thumbs are of one kind."""

    up: int
    """Thumbs up."""
    down: int
    """Thumbs down."""
    auc: Estimate
    """The share of pairs of a thumb up and a thumb down whose rewards are in this order, equal rewards counting half, with its
    interval over items. It does not depend on how rare either kind is."""
    balanced: float
    """The mean of the shares of thumbs up and of thumbs down that are right: ½ for a constant answer. An answer is predicted to be liked
    above a cut, the best one of the other half of the items."""
    majority: float
    """The share of the more frequent kind: what a constant answer gets right."""


def ceiling(probability_N: Any) -> Ceiling:
    """The ceilings from P(a ≻ b) of each pair; all are NaN without pairs."""
    p = np.asarray(probability_N, np.float64)
    if not len(p):
        return Ceiling(math.nan, math.nan, math.nan)
    if not ((p >= 0) & (p <= 1)).all():
        raise DataError("a probability is not between 0 and 1", "give P(first is better) of each pair")
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(np.where(p > 0, p * np.log(p), 0) + np.where(p < 1, (1 - p) * np.log1p(-p), 0))
    return Ceiling(float(np.maximum(p, 1 - p).mean()), float((p**2 + (1 - p) ** 2).mean()), float(entropy.mean()))


def ceiling_of_spread(spread: float) -> Ceiling:
    """The ceilings where rewards of both candidates are N(0, spread²), by quadrature: with 1, accuracy is .7252."""
    x = np.linspace(-10, 10, 20_001)
    density = np.exp(-(x**2) / 2)
    density /= density.sum()
    d = np.abs(spread * math.sqrt(2) * x)
    p = 1 / (1 + np.exp(-d))
    entropy = np.logaddexp(0, -d) + d * (1 - p)
    return Ceiling(float(density @ p), float(density @ (p**2 + (1 - p) ** 2)), float(density @ entropy))


def ceiling_of_agreement(agreement: float) -> Ceiling:
    """The ceilings where two annotators agree that often, for normal rewards: .6368 gives an accuracy of .7252.

    Agreement of ½ or less is chance, with a ceiling of ½; NaN gives NaN.
    """
    if math.isnan(agreement):
        return Ceiling(math.nan, math.nan, math.nan)
    if agreement >= 0.998:
        return Ceiling(1.0, agreement, 0.0)
    low, high = 0.0, 400.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if ceiling_of_spread(middle).agreement < agreement else (low, middle)
    return ceiling_of_spread(low if agreement > 0.5 else 0.0)


def accuracy(gap_N: Any, won_N: Any, group_N: Any = None) -> Estimate:
    """The share of decided pairs whose gap has the right sign, 0 counting half, with its 95 % interval over groups.

    group_N: what belongs together, e.g. the prompt of each pair; default: pairs. Pairs with won ½ do not count.
    """
    gap, won, group = _decided(gap_N, won_N, group_N)
    if not len(gap):
        return Estimate(math.nan, math.nan, math.nan)
    right = np.where(gap == 0, 0.5, (gap > 0) == (won == 1))
    code = np.unique(group, return_inverse=True)[1]
    found = interval(np.bincount(code, right), np.bincount(code), draws=draws_for(int(code.max()) + 1))
    return Estimate(found.value, max(found.low, 0.0), min(found.high, 1.0))


def _decided(gap_N: Any, won_N: Any, group_N: Any) -> tuple[Floats, Floats, Any]:
    gap, won = np.asarray(gap_N, np.float64), np.asarray(won_N, np.float64)
    if gap.shape != won.shape or gap.ndim != 1:
        raise DataError(f"gaps are {list(gap.shape)} and answers {list(won.shape)}", "give one of each per pair")
    if not np.isfinite(gap).all() or not np.isin(won, (0, 0.5, 1)).all():
        raise DataError("a reward is not finite, or an answer is not 0, ½ or 1", "leave out pairs that were not scored")
    group = np.arange(len(gap)) if group_N is None else np.asarray(group_N)
    kept = won != 0.5
    return gap[kept], won[kept], group[kept]


def calibration(gap_N: Any, won_N: Any, group_N: Any = None, *, bins: int = BINS) -> Calibration:
    """Accuracy, slope, Brier score, likelihood and ECE of decided pairs; the table has bins of equal size."""
    gap, won, group = _decided(gap_N, won_N, group_N)
    right = accuracy(gap, won, group)
    nan = Estimate(math.nan, math.nan, math.nan)
    if not len(gap):
        return Calibration(right, 0, 0, math.nan, math.nan, math.nan, math.nan, nan, [], "no pair was decided")
    p = chance(gap)
    slope, intercept, note = _slope(gap, won)
    ece, table = _bins(p, won, bins)
    return Calibration(
        accuracy=right,
        ties=int((gap == 0).sum()),
        pairs=len(gap),
        slope=slope,
        intercept=intercept,
        brier=float(((p - won) ** 2).mean()),
        nll=float((np.logaddexp(0, gap) - won * gap).mean()),
        ece=_ece_interval(ece, p, won, bins),
        table=table,
        note=note,
    )


def _slope(gap: Floats, won: Floats) -> tuple[float, float, str]:
    """The logistic regression of won on gap, by Newton's method; NaN where it has no finite answer."""
    if np.ptp(gap) == 0:
        return math.nan, math.nan, "all gaps are equal, so the slope is not defined"
    side_a, side_b = gap[won == 1], gap[won == 0]
    if not len(side_a) or not len(side_b):
        return math.nan, math.nan, "one side won every pair, so the slope is not defined"
    if side_a.min() >= side_b.max() or side_a.max() <= side_b.min():
        return math.nan, math.nan, "the gaps separate the answers, so the slope has no finite value"
    scale = float(gap.std())
    (intercept, slope), _ = logistic(np.stack([np.ones_like(gap), gap / scale], 1), won, 0.0)
    return float(slope / scale), float(intercept), ""


def _bins(p: Floats, won: Floats, bins: int) -> tuple[float, list[dict[str, float]]]:
    order = np.argsort(p, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, len(p))) if len(part)]
    table = [{"pairs": len(part), "predicted": float(p[part].mean()), "won": float(won[part].mean())} for part in parts]
    ece = sum(row["pairs"] * abs(row["predicted"] - row["won"]) for row in table) / len(p)
    return float(ece), table


def _ece_interval(value: float, p: Floats, won: Floats, bins: int) -> Estimate:
    """ECE as a mean over pairs of ± (p − won), the sign being that of the pair's bin, so its interval is that of a mean."""
    order = np.argsort(p, kind="stable")
    part_N = np.empty_like(p)
    for part in np.array_split(order, min(bins, len(p))):
        if len(part):
            part_N[part] = np.sign((p[part] - won[part]).mean()) * (p[part] - won[part])
    found = unit_interval(value, part_N - part_N.mean())
    return Estimate(value, max(found.low, 0.0), found.high)


def by_subset(
    subset_N: Sequence[str], gap_N: Any, won_N: Any, group_N: Any = None
) -> Mapping[str, tuple[int, Estimate]]:
    """Subset → decided pairs and accuracy, in alphabetical order."""
    gap, won = np.asarray(gap_N, np.float64), np.asarray(won_N, np.float64)
    group = np.arange(len(gap)) if group_N is None else np.asarray(group_N)
    subset = np.asarray(subset_N)
    found = {}
    for name in sorted(set(subset_N)):
        rows = subset == name
        found[name] = (int((won[rows] != 0.5).sum()), accuracy(gap[rows], won[rows], group[rows]))
    return found


def liked_or_not(reward_N: Any, up_N: Any, group_N: Any = None) -> LikedOrNot:
    """AUC and balanced accuracy of rewards over thumbs. group_N: what belongs together, e.g. items; default: thumbs."""
    reward, up = np.asarray(reward_N, np.float64), np.asarray(up_N, bool)
    group = np.unique(np.arange(len(up)) if group_N is None else group_N, return_inverse=True)[1]
    ups, downs = int(up.sum()), int((~up).sum())
    if not ups or not downs:
        nan = math.nan
        return LikedOrNot(ups, downs, Estimate(nan, nan, nan), nan, nan)
    below_N = _share_below(reward, reward[~up])
    auc = float(below_N[up].mean())
    # each thumb's part in the AUC (DeLong et al. 1988), so that its interval is that of a mean over groups
    part_N = np.where(up, (below_N - auc) / ups, (1 - _share_below(reward, reward[up]) - auc) / downs)
    found = unit_interval(auc, np.bincount(group, part_N) * (group.max() + 1))
    half = group % 2 == 0
    cut_N = np.where(half, _cut(reward[~half], up[~half]), _cut(reward[half], up[half]))
    right_N = up == (reward > cut_N)
    return LikedOrNot(
        ups,
        downs,
        Estimate(auc, max(found.low, 0.0), min(found.high, 1.0)),
        float(right_N[up].mean() + right_N[~up].mean()) / 2,
        max(ups, downs) / len(up),
    )


def _share_below(value_N: Floats, of_M: Floats) -> Floats:
    """The share of `of_M` below each value, equal ones counting half."""
    order = np.sort(of_M)
    return (np.searchsorted(order, value_N) + np.searchsorted(order, value_N, side="right")) / (2 * len(order))


def _cut(reward_N: Floats, up_N: Any) -> float:
    """The cut above which rewards are liked with the highest balanced accuracy; ∞ if nothing is known of one kind."""
    if up_N.all() or not up_N.any():
        return math.inf
    cuts = np.unique(reward_N)
    middles = np.concatenate([[-math.inf], (cuts[1:] + cuts[:-1]) / 2, [math.inf]])
    above_up = 1 - np.searchsorted(np.sort(reward_N[up_N]), middles) / up_N.sum()
    above_down = 1 - np.searchsorted(np.sort(reward_N[~up_N]), middles) / (~up_N).sum()
    return float(middles[np.argmax(above_up - above_down)])
