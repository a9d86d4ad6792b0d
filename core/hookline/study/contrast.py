"""Is one configuration better than a baseline, and is that shown? p-values, Holm's correction, effect sizes, and a sentence.

A difference counts as shown if its 95 % interval (seeds and prompts drawn) excludes 0 and its p-value, corrected for
the number of configurations, is at most 0.05. The p-value is Fisher's randomisation test: if neither
configuration were better, each seed's difference would be equally likely to have either sign. All 2^S ways to flip
the signs are counted, so the test is exact and needs no normal distribution. The smallest p that S seeds can reach is
2 / 2^S, which is above 0.05 for five seeds. Letters: S seeds, F ways to flip signs or to assign labels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from hookline.contract.metrics import Better
from hookline.runs.samples import Floats
from hookline.study.grouping import Group, Json
from hookline.study.intervals import Estimate, Scores, difference, improvement, prompt_effect
from hookline.study.measure import bare

__all__ = ["Contrast", "contrasts", "effect_size", "holm", "matched", "randomised", "relabelled", "seeds_needed"]

ALPHA, POWER = 0.05, 0.8
MOST_WAYS = 2**14
"""The most ways that are counted one by one; of more, `SAMPLED` are drawn."""
SAMPLED = 20_000
MOST_SEEDS = 1000


def matched(a: Group, b: Group, x: Scores, y: Scores) -> tuple[Scores, Scores, list[int]]:
    """Two groups' scores at common seeds, and these seeds; without a common seed, all scores and an empty list."""
    shared = [seed for seed in a.seeds if seed in b.seeds]
    if not shared:
        return x, y, []
    return x.take([a.seeds.index(s) for s in shared]), y.take([b.seeds.index(s) for s in shared]), shared


def randomised(difference_S: Floats) -> float:
    """Two-sided p of paired differences: the share of ways to flip their signs that give a |mean| at least as large.

    Exact up to 15 seeds. For more seeds, 20 000 ways are drawn (always the same) and the observed one is added.
    """
    S = len(difference_S)
    if 2 ** (S - 1) <= MOST_WAYS:
        # flipping all signs does not change |mean|, so the first sign is fixed
        sign_FS = 1.0 - 2.0 * (np.arange(2 ** (S - 1))[:, None] >> np.arange(S) & 1)
        return _share(sign_FS @ difference_S, difference_S.sum(), np.abs(difference_S).sum())
    sign_FS = np.random.default_rng((S, 3)).integers(0, 2, (SAMPLED, S)) * 2.0 - 1.0
    return _share(sign_FS @ difference_S, difference_S.sum(), np.abs(difference_S).sum(), seen=1)


def relabelled(x_S: Floats, y_S: Floats) -> float:
    """Two-sided p of two unpaired samples: the share of ways to assign labels with as large a |difference of means|."""
    both, first = np.concatenate([x_S, y_S]), len(x_S)
    scale, n = np.abs(both - both.mean()).sum(), len(both)
    centred = both - both.mean()  # the sum of the first sample is then enough
    if math.comb(n, first) <= MOST_WAYS:
        chosen = np.array(list(itertools.combinations(range(n), first)))
        return _share(centred[chosen].sum(1), centred[:first].sum(), scale)
    rng = np.random.default_rng((first, n, 4))
    chosen = rng.permuted(np.tile(np.arange(n), (SAMPLED, 1)), axis=1)[:, :first]
    return _share(centred[chosen].sum(1), centred[:first].sum(), scale, seen=1)


def _share(found_F: Floats, observed: float, scale: float, seen: int = 0) -> float:
    """The share that is at least as extreme as the observed sum; sums that differ only by rounding are equal."""
    extreme = int((np.abs(found_F) >= abs(observed) - 1e-10 * scale).sum())
    return (extreme + seen) / (len(found_F) + seen)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: the i-th smallest of m, times m − i + 1, never below an earlier one. None stays None."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    found: list[float | None] = [None] * len(p)
    least = 0.0
    for place, (value, i) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - place)))
        found[i] = least
    return found


def effect_size(x: Scores, y: Scores, paired: bool) -> float | None:
    """Cohen's d with Hedges' correction for few seeds, 1 − 3 / (4ν − 1).

    Paired: mean of the differences over their standard deviation, ν = S − 1. Not paired: difference of means over the pooled
    standard deviation, ν = S_x + S_y − 2. None without spread or degrees of freedom.
    """
    size, spread, dof = _standardised(x, y, paired)
    if dof < 1 or not spread > 1e-12 * abs(size):
        return None
    return size / spread * (1 - 3 / (4 * dof - 1))


def _standardised(x: Scores, y: Scores, paired: bool) -> tuple[float, float, int]:
    """(difference of means, standard deviation, degrees of freedom)."""
    if paired:
        d_S = x.value_S - y.value_S
        return float(d_S.mean()), float(d_S.std(ddof=1)) if len(d_S) > 1 else 0.0, len(d_S) - 1
    squares = sum(((s.value_S - s.value_S.mean()) ** 2).sum() for s in (x, y))
    dof = len(x) + len(y) - 2
    return float(x.value_S.mean() - y.value_S.mean()), math.sqrt(squares / dof) if dof else 0.0, dof


def seeds_needed(x: Scores, y: Scores, paired: bool, comparisons: int) -> float | None:
    """Seeds needed to show a difference of this size at 80 % power; inf if seeds alone cannot; None if unknown.

    A rough estimate if these seeds are few, from their size and spread: v/n = δ² / (z_{1−α/2} + z_{0.8})² − v_g, plus
    z² / 2 for the unknown spread (Guenther 1981). v: variance of a seed's difference; v_g: that of the prompts, which more
    seeds do not reduce; α = 0.05 / the number of comparisons. At least as many seeds as can reach α if all agree.
    """
    size, spread, dof = _standardised(x, y, paired)
    if dof < 2 or spread == 0:
        return None
    alpha = ALPHA / comparisons
    z = NormalDist().inv_cdf(1 - alpha / 2)
    both = x.part_SG is not None and y.part_SG is not None
    effect_G = prompt_effect(x.part_SG - y.part_SG) if both and paired else None  # type: ignore[operator]
    prompts = float((effect_G**2).mean() / len(effect_G)) if effect_G is not None else 0.0
    left = size**2 / (z + NormalDist().inv_cdf(POWER)) ** 2 - prompts
    if left <= 0:
        return math.inf
    wanted = (1 if paired else 2) * spread**2 / left + z**2 / (2 if paired else 4)
    return max(math.ceil(wanted), fewest(alpha, paired))


def fewest(alpha: float, paired: bool) -> int:
    """The smallest number of seeds per configuration with which a randomisation test can reach alpha."""
    return next(n for n in itertools.count(2) if 2 / (2**n if paired else math.comb(2 * n, n)) <= alpha)


@dataclass(frozen=True)
class Contrast:
    """A configuration against the baseline. The difference is configuration − baseline."""

    label: str
    baseline: str
    seeds: tuple[int, ...]
    """The common seeds; empty if there are none and the comparison is unpaired."""
    count: int
    """The number of seeds: the common ones, or those of the configuration with fewer."""
    difference: Estimate
    effect: float | None
    chance: Estimate
    """The chance that a run of the configuration is better (with no known direction, higher) than a baseline run."""
    p: float | None
    p_holm: float | None
    comparisons: int
    needed: float | None
    better: Better

    @property
    def clear(self) -> bool:
        return self.difference.low > 0 or self.difference.high < 0

    @property
    def shown(self) -> bool:
        return self.count > 1 and self.clear and self.p_holm is not None and self.p_holm <= ALPHA

    @property
    def more_seeds(self) -> int | None:
        """How many more seeds would be needed, if known."""
        if self.shown or self.needed is None or self.needed > MOST_SEEDS:
            return None
        return max(1, int(self.needed) - self.count)

    def sentence(self, where: str) -> str:
        """Which configuration is better, where, by how much, and whether the difference is shown."""
        value, low, high = self.difference.value, self.difference.low, self.difference.high
        if value == low == high == 0 or (value == 0 and math.isnan(low)):
            return f"{self.label} and {self.baseline} are equal {where}"
        if not self.shown:
            ends = "" if math.isnan(low) else f" [{number(low)}, {number(high)}]"
            size = f"{'+' if value > 0 else ''}{number(value)}{ends}"
            return f"{self.label} against {self.baseline} {where}: {size}, not shown: {self._why()}"
        words = ("higher", "lower") if self.better is None else ("better", "worse")
        word = words[(value < 0) != (self.better == "lower")]
        low, high = (low, high) if value > 0 else (-high, -low)
        size = f"{number(abs(value))} [{number(low)}, {number(high)}]"
        p = f"p {number(self.p_holm)}{' after Holm' if self.comparisons > 1 else ''}, {self.count} seeds"
        return f"{self.label} is {word} than {self.baseline} by {size} {where}: shown ({p})"

    def _why(self) -> str:
        """What is missing, and how many more seeds would be needed."""
        p, least = number(self.p), 2 / 2**self.count
        if self.count < 2:
            return "one seed says nothing about others"
        if not self.clear:
            why = "the interval contains 0"
        elif self.p is not None and self.p <= ALPHA:
            why = f"p is {p}, which is {number(self.p_holm)} after Holm's correction for {self.comparisons} comparisons"
        elif self.seeds and self.p == least:
            why = f"p is {p}, and {self.count} seeds cannot give less"
        else:
            why = f"p is {p}"
        if self.needed is None:
            return why
        size = f"to show a difference of this size at {POWER:.0%} power".replace("%", " %")
        if math.isinf(self.needed):
            return f"{why}; more seeds alone would not be enough {size}, the evaluation needs more prompts"
        if self.more_seeds is None:
            return f"{why}; more than {MOST_SEEDS} seeds would be needed {size}"
        return f"{why}; about {self.more_seeds} more seed{'s' if self.more_seeds > 1 else ''} would be needed {size}"

    def plain(self, where: str) -> Json:
        """Plain values, ready for JSON."""
        return {
            "label": self.label,
            "baseline": self.baseline,
            "paired": bool(self.seeds),
            "seeds": list(self.seeds),
            "difference": bare(self.difference),
            "effect": self.effect,
            "chance": bare(self.chance),
            "p": self.p,
            "p_holm": self.p_holm,
            "shown": self.shown,
            "more_seeds": self.more_seeds,
            "words": self.sentence(where),
        }


def contrasts(groups: Sequence[Group], scores: dict[str, Scores], baseline: Group, better: Better) -> list[Contrast]:
    """Each other configuration against the baseline; Holm's correction over all of them."""
    others = [group for group in groups if group is not baseline]
    pairs = [matched(group, baseline, scores[group.label], scores[baseline.label]) for group in others]
    p = [_p(x, y, bool(seeds)) for x, y, seeds in pairs]
    found = []
    for group, (x, y, seeds), raw, corrected in zip(others, pairs, p, holm(p)):
        paired = bool(seeds)
        chance = improvement(x, y, paired)
        if better == "lower":
            chance = Estimate(1 - chance.value, 1 - chance.high, 1 - chance.low)
        found.append(
            Contrast(
                label=group.label,
                baseline=baseline.label,
                seeds=tuple(seeds),
                count=min(len(x), len(y)),
                difference=difference(x, y, paired),
                effect=effect_size(x, y, paired),
                chance=chance,
                p=raw,
                p_holm=corrected,
                comparisons=sum(value is not None for value in p),
                needed=seeds_needed(x, y, paired, len(others)),
                better=better,
            )
        )
    return found


def _p(x: Scores, y: Scores, paired: bool) -> float | None:
    if min(len(x), len(y)) < 2:
        return None
    return randomised(x.value_S - y.value_S) if paired else relabelled(x.value_S, y.value_S)


def number(value: Any) -> str:
    """Three digits, for a sentence."""
    return "unknown" if value is None else f"{value:.3g}".replace("-", "−")
