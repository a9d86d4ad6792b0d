"""Over-optimisation: what happens to the gold reward when the best of n is chosen by a proxy.

Stiennon et al. 2020 and Gao et al. 2022: with d = √KL, gold − gold at n = 1 follows d(α − βd), whose peak is at α / 2β.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hookline.errors import DataError
from hookline.runs.samples import Floats
from hookline.study.intervals import Estimate, interval

__all__ = ["BestOfN", "best_of_n", "kl_of_best", "overoptimisation"]


@dataclass(frozen=True)
class BestOfN:
    """The curve of best-of-n, and d(α − βd) fitted to its gold rewards."""

    n: tuple[int, ...]
    """How many answers the proxy chose from."""
    kl: tuple[float, ...]
    """log n − (n−1)/n in nats, the KL divergence from the sampler where no two proxies tie."""
    proxy: tuple[float, ...]
    """The mean proxy of the chosen answers."""
    gold: tuple[float, ...]
    """Their mean gold reward."""
    gold_interval: tuple[Estimate, ...]
    """The gold reward with its 95 % interval over prompts; NaN ends where the curve was given without prompts."""
    alpha: float
    """The fitted α."""
    beta: float
    """The fitted β; not positive: the gold reward keeps rising."""
    error: float
    """The root mean squared error of the fit."""
    peak: float | None
    """The KL divergence (α/2β)² with the highest fitted gold reward; None if there is none within the measured range."""
    best: int
    """The n with the highest measured gold reward."""
    alarm: bool
    """Whether the proxy went on rising while the gold reward fell, by more than its interval where there is one."""
    sentence: str
    """What the curve says."""


def kl_of_best(n: Any) -> Any:
    """log n − (n − 1)/n."""
    n = np.asarray(n, np.float64)
    return np.log(n) - (n - 1) / n


def best_of_n(proxy_GS: Any, gold_GS: Any, n: Sequence[int] = ()) -> BestOfN:
    """The curve from S samples of each of G prompts, without a random choice.

    The expectation over all subsets of n samples is exact: the sample of rank i (1: lowest proxy) is the best of
    C(i−1, n−1) of the C(S, n) subsets; samples with the same proxy share theirs. n: default 1, 2, 4 … up to S. Raises
    DataError for shapes that differ, n beyond S, and values that are not finite.
    """
    proxy_GS, gold_GS = (np.atleast_2d(np.asarray(x, np.float64)) for x in (proxy_GS, gold_GS))
    if proxy_GS.shape != gold_GS.shape or not proxy_GS.size:
        raise DataError(
            f"proxies are {list(proxy_GS.shape)} and gold rewards {list(gold_GS.shape)}", "give one of each per sample"
        )
    if not (np.isfinite(proxy_GS).all() and np.isfinite(gold_GS).all()):
        raise DataError("a reward is not finite", "leave out prompts with samples that were not judged")
    S = proxy_GS.shape[1]
    sizes = tuple(n) or tuple(2**k for k in range(S.bit_length()) if 2**k <= S)
    if not all(1 <= size <= S for size in sizes):
        raise DataError(f"the best of {max(sizes)} is asked of {S} samples", "sample more, or ask for a smaller n")
    order_GS = np.argsort(proxy_GS, 1, kind="stable")
    sorted_GS = np.take_along_axis(proxy_GS, order_GS, 1)
    shared_GS = _means_of_equals(sorted_GS, np.take_along_axis(gold_GS, order_GS, 1))
    weight_nS = np.stack([_best_weights(S, size) for size in sizes])
    proxies, golds = weight_nS @ sorted_GS.T, weight_nS @ shared_GS.T
    return overoptimisation(sizes, proxies.mean(1), golds.mean(1), gold_nG=golds)


def _best_weights(S: int, n: int) -> Floats:
    """[S]: the probability that each rank is the best of n samples drawn without replacement."""
    log = np.array(
        [math.lgamma(i) - math.lgamma(n) - math.lgamma(i - n + 1) if i >= n else -math.inf for i in range(1, S + 1)]
    )
    total = math.lgamma(S + 1) - math.lgamma(n + 1) - math.lgamma(S - n + 1)
    return np.asarray(np.exp(log - total))


def _means_of_equals(sorted_GS: Floats, gold_GS: Floats) -> Floats:
    out = gold_GS.copy()
    for g in range(len(out)):
        _, group, count = np.unique(sorted_GS[g], return_inverse=True, return_counts=True)
        if len(count) < len(group):
            out[g] = (np.bincount(group, gold_GS[g]) / count)[group]
    return out


def overoptimisation(n: Sequence[int], proxy: Any, gold: Any, *, gold_nG: Any = None) -> BestOfN:
    """Fit a curve that was measured elsewhere, and say whether and where it turns.

    n: choices, with n = 1 among them; proxy, gold: mean rewards at each; gold_nG: gold rewards of each prompt, for intervals.
    Raises DataError for fewer than three points or none at n = 1.
    """
    sizes, proxy, gold = np.asarray(n), np.asarray(proxy, np.float64), np.asarray(gold, np.float64)
    order = np.argsort(sizes)
    sizes, proxy, gold = sizes[order], proxy[order], gold[order]
    if len(sizes) < 3 or sizes[0] != 1 or len(set(sizes.tolist())) < len(sizes):
        raise DataError(
            f"a curve over n = {sizes.tolist()} cannot be fitted", "measure n = 1 and two larger ones or more"
        )
    kl = kl_of_best(sizes)
    d = np.sqrt(kl)
    design = np.stack([d, -d * d], 1)
    rise = gold - gold[0]
    (alpha, beta), *_ = np.linalg.lstsq(design, rise, rcond=None)
    error = float(np.sqrt(((design @ (alpha, beta) - rise) ** 2).mean()))
    peak = (alpha / (2 * beta)) ** 2 if beta > 0 and alpha > 0 else None
    peak = float(peak) if peak is not None and peak <= kl[-1] else None
    best = int(np.argmax(gold))
    drop = Estimate(float(gold[best] - gold[-1]), math.nan, math.nan)
    spans = tuple(Estimate(float(value), math.nan, math.nan) for value in gold)
    if gold_nG is not None:
        gold_nG = np.asarray(gold_nG, np.float64)[order]
        ones = np.ones(gold_nG.shape[1])
        spans = tuple(interval(row, ones) for row in gold_nG)
        drop = interval(gold_nG[best], ones, minus=(gold_nG[-1], ones))
    fell = drop.value > 0 if math.isnan(drop.low) else drop.low > 0
    alarm = bool(best < len(sizes) - 1 and fell and proxy[-1] > proxy[best])
    if alarm:
        sentence = (
            f"the proxy keeps rising and the gold reward falls after n = {sizes[best]}: choose from fewer, or train the "
            "reward model on such answers"
        )
    elif best < len(sizes) - 1 and proxy[-1] > proxy[best]:
        sentence = f"the gold reward is highest at n = {sizes[best]}; the fall after it may be chance"
    else:
        sentence = "the gold reward rises as long as it was measured"
    return BestOfN(
        n=tuple(map(int, sizes)), kl=tuple(map(float, kl)), proxy=tuple(map(float, proxy)), gold=tuple(map(float, gold)),
        gold_interval=spans, alpha=float(alpha), beta=float(beta), error=error, peak=peak, best=int(sizes[best]),
        alarm=alarm, sentence=sentence,
    )  # fmt: skip
