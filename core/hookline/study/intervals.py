"""Statistics for few seeds: interquartile means, bootstrap intervals, paired differences.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", recommend the interquartile
mean over runs, its percentile bootstrap, and the probability of improvement. Here the runs of two configurations are
paired by seed, and if the rows of an evaluation are known, prompts are drawn as well as seeds. Letters: S seeds,
G prompts (an evaluation's rows of one prompt together), D bootstrap draws. Pure functions, seeded by their sizes alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hookline.runs.samples import Floats, PromptSums, fraction, prompt_sums, summary_of

__all__ = [
    "Estimate",
    "Scores",
    "contributions",
    "difference",
    "figure_interval",
    "improvement",
    "interval",
    "iqm",
    "jackknife",
    "location",
    "prompt_parts",
    "tail",
]


DRAWS = 10_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; both ends are NaN if there are too few values."""

    value: float
    """The figure, in its own unit."""
    low: float
    """The lower end of its 95 % interval."""
    high: float
    """The upper end."""


@dataclass(frozen=True, eq=False)
class Scores:
    """One configuration's figure at each seed and, where known, what each prompt adds to it (mean 0 for each seed)."""

    value_S: Floats
    part_SG: Floats | None = None

    def __len__(self) -> int:
        return len(self.value_S)

    def take(self, seeds: Sequence[int]) -> Scores:
        """Some of the seeds, in the order given."""
        index = np.asarray(seeds, np.intp)
        part_SG = None if self.part_SG is None else self.part_SG[index]
        return replace(self, value_S=self.value_S[index], part_SG=part_SG)

    def __sub__(self, other: Scores) -> Scores:
        """Seed by seed and prompt by prompt."""
        both = self.part_SG is not None and other.part_SG is not None
        return Scores(self.value_S - other.value_S, self.part_SG - other.part_SG if both else None)  # type: ignore[operator]


def iqm(values: Any, axis: int = -1) -> Any:
    """Interquartile mean: the mean of the middle half, Σ w_i x_(i) / Σ w_i over the sorted values.

    w_i is the share of [i−1, i] that lies in [n/4, 3n/4], so the two values that the quartiles cut count in part. If n
    is a multiple of 4, the result is the 25 % trimmed mean; if n < 3, the mean.
    """
    x = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    n = x.shape[-1]
    i = np.arange(n)
    weight = np.clip(np.minimum(i + 1, 0.75 * n) - np.maximum(i, 0.25 * n), 0, None)
    return np.sort(x, -1) @ (weight / weight.sum())


def contributions(above_SG: Floats, below_SG: Floats, summary: str) -> Floats:
    """[S, G]: how much each prompt changes its seed's `fraction`, to first order; the mean over prompts is 0.

    f(Σ above / Σ below) has the influence f′(r) (above_g − r below_g) / mean(below); for a plain mean that is x_g − mean.
    """
    above_S1, below_S1 = above_SG.mean(1, keepdims=True), below_SG.mean(1, keepdims=True)
    ratio_S1 = above_S1 / below_S1
    slope_S1 = -np.exp(-ratio_S1) if summary == "perplexity" else np.ones_like(ratio_S1)
    found: Floats = slope_S1 * (above_SG - ratio_S1 * below_SG) / below_S1
    return found


def jackknife(value: float, without_G: Floats) -> Floats | None:
    """[1, G]: `contributions` of a figure that is not a fraction, from its values without each prompt.

    (G−1)(θ − θ_(−g)), centred; for a mean over prompts with equally many rows, this equals `contributions`. None if
    the figure is not finite without one of the prompts.
    """
    if len(without_G) < 2 or not np.isfinite(without_G).all():
        return None
    part_G: Floats = (len(without_G) - 1) * (value - without_G)
    return np.asarray([part_G - part_G.mean()])


def prompt_parts(sums_S: Sequence[PromptSums], value_S: Floats, summary: str | None) -> Floats | None:
    """[S, G]: what each prompt adds to its seed's figure; a prompt without a judged row adds nothing.

    summary: how the component summarises rows (`summary_of`), or None for a way of its own, measured by leaving prompts
    out. Returns None if that is not known, if the seeds have different prompts, or for fewer than two judged prompts.
    """
    if len({len(sums.count_G) for sums in sums_S}) != 1:
        return None
    if (np.stack([sums.count_G for sums in sums_S]).sum(0) > 0).sum() < 2:
        return None
    if summary:
        above_SG = np.stack([sums.above_G(summary) for sums in sums_S])
        below_SG = np.stack([sums.below_G(summary) for sums in sums_S])
        return contributions(above_SG, below_SG, summary)
    without_SG = [np.where(sums.count_G > 0, sums.without_G, value) for sums, value in zip(sums_S, value_S)]
    parts = [jackknife(float(value), without_G) for value, without_G in zip(value_S, without_SG)]
    return None if any(part is None for part in parts) else np.concatenate(parts)  # type: ignore[arg-type]


def student(p: float, dof: float) -> float:
    """Quantile of Student's t, by its expansion about the normal one (Abramowitz & Stegun 26.7.5); 0.3 % off at 4."""
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / dof + second / dof**2 + third / dof**3


def tail(count: float) -> float:
    """The share of draws to cut off at each end: Φ(−t_{n−1} √(n/(n−1))), Hesterberg 2015's expanded percentiles.

    A bootstrap of few runs is too narrow: its variance is (n−1)/n of what it should be, and its tails are normal. Plain
    2.5 % tails cover 91 % at 5 seeds; these cover 94 %, as much as the range of 5 values can.
    """
    return NormalDist().cdf(-student(0.5 + LEVEL / 2, count - 1) * math.sqrt(count / (count - 1)))


@lru_cache(maxsize=16)
def drawn_seeds(seeds: int, draws: int, side: int) -> NDArray[np.intp]:
    """[D, S]: the seeds of each draw, with replacement. side: another number gives another, independent draw."""
    return np.random.default_rng((seeds, draws, side, 1)).integers(0, seeds, (draws, seeds))


@lru_cache(maxsize=2)
def drawn_prompts(prompts: int, draws: int) -> Floats:
    """[D, G]: the share of each prompt in each draw."""
    chosen = np.random.default_rng((prompts, draws, 2)).integers(0, prompts, (draws, prompts))
    flat = (chosen + np.arange(draws)[:, None] * prompts).ravel()
    return np.bincount(flat, minlength=draws * prompts).reshape(draws, prompts) / prompts


def prompt_effect(part_SG: Floats | None) -> Floats | None:
    """[G]: what each prompt adds for every policy: the mean over seeds, shrunk to the part that repeats across seeds.

    Two-way analysis of variance: the mean square between prompts contains σ²_noise + S σ²_prompt, the residual one
    σ²_noise. Noise of single answers is already in the spread between seeds and must not count twice: the factor is
    √(1 − MS_residual / MS_prompts), 0 if prompts do not matter. With one seed the two cannot be separated: 1.
    """
    if part_SG is None or part_SG.shape[1] < 2:
        return None
    S, G = part_SG.shape
    mean_G: Floats = part_SG.mean(0)
    if S == 1:
        return mean_G
    rest = part_SG - mean_G - part_SG.mean(1, keepdims=True)
    between = S * float((mean_G**2).sum()) / (G - 1)
    residual = float((rest**2).sum()) / ((S - 1) * (G - 1))
    return mean_G * math.sqrt(max(0.0, 1 - residual / between)) if between > 0 else mean_G * 0


def shifts(part_SG: Floats | None, draws: int) -> Floats:
    """[D]: how far each drawn set of prompts moves the figure."""
    effect_G = prompt_effect(part_SG)
    return np.zeros(draws) if effect_G is None else drawn_prompts(len(effect_G), draws) @ effect_G


def spread(value: float, by_seeds_D: Floats, by_prompts_D: Floats, S: int, G: int) -> Estimate:
    """The interval of a figure from independent draws of seeds and of prompts.

    The larger variance sets the tails: (v_s + v_g)² / (v_s²/(S−1) + v_g²/(G−1)) degrees of freedom (Satterthwaite).
    """
    v_s, v_g = float(by_seeds_D.var()), float(by_prompts_D.var())
    loss = (v_s**2 / (S - 1) if S > 1 else 0) + (v_g**2 / (G - 1) if G > 1 else 0)
    dof = (v_s + v_g) ** 2 / loss if loss > 0 else max(S, G) - 1
    if dof <= 0 or (S == 1 and G < 2):
        return Estimate(value, math.nan, math.nan)
    share = tail(dof + 1)
    low, high = np.quantile(by_seeds_D + by_prompts_D, [share, 1 - share])
    return Estimate(value, float(low), float(high))


def prompts_of(scores: Scores) -> int:
    return 0 if scores.part_SG is None else scores.part_SG.shape[1]


def location(scores: Scores, draws: int = DRAWS) -> Estimate:
    """The interquartile mean over seeds, with its interval from drawn seeds and drawn prompts.

    All rows of a seed share its policy, and all seeds share the prompts, so neither is drawn within the other.
    """
    S = len(scores)
    by_seeds_D = iqm(scores.value_S[drawn_seeds(S, draws, 0)])
    value = float(iqm(scores.value_S))
    return spread(value, by_seeds_D, shifts(scores.part_SG, draws), S, prompts_of(scores))


def figure_interval(samples: Sequence[Mapping[str, Any]], term: str, figure: float, *, draws: int = DRAWS) -> Estimate:
    """An evaluation's figure with its 95 % interval over prompts: what `eval`, reports and `compare` show, to the last digit.

    samples: the rows, as `Run.evaluations` returns them; term: the reward that judged the rows; figure: the value that
    its component computed for all rows. Both ends are NaN with fewer than two prompts or for a non-finite figure.
    """
    sums, value_S = prompt_sums(samples, term), np.array([figure], np.float64)
    if not math.isfinite(figure):
        return Estimate(figure, math.nan, math.nan)
    return location(Scores(value_S, prompt_parts([sums], value_S, summary_of([(sums, figure)]))), draws)


def interval(
    above_G: Any, below_G: Any, *, minus: tuple[Any, Any] | None = None, summary: str = "mean", draws: int = DRAWS
) -> Estimate:
    """One run's figure over the prompts of an evaluation, with its 95 % interval, from sums that the caller computed.

    above_G, below_G: sums over the rows of each prompt; the figure is their `fraction`. `mean`: values, and the number of
    rows. `perplexity`: log-probabilities, and the number of tokens. minus: the sums of another figure of the same prompts,
    which is subtracted prompt by prompt. Both ends are NaN with fewer than two prompts.
    """

    def scores(above: Any, below: Any) -> Scores:
        above_SG, below_SG = (np.asarray(sums, np.float64)[None] for sums in (above, below))
        value_S = np.asarray(fraction(above_SG.sum(1), below_SG.sum(1), summary), np.float64)
        return Scores(value_S, contributions(above_SG, below_SG, summary) if above_SG.shape[1] else None)

    one = scores(above_G, below_G)
    return location(one if minus is None else one - scores(*minus), draws)


def difference(a: Scores, b: Scores, paired: bool = True, draws: int = DRAWS) -> Estimate:
    """a − b. Paired: the interquartile mean over seeds of a_s − b_s, seed by seed and prompt by prompt.

    Effects of a seed or a prompt that are equal on both sides cancel, so the interval is about the difference alone,
    and two equal configurations give exactly 0. Not paired (no common seed): the difference of two interquartile means;
    seeds are drawn for each side, prompts for both together.
    """
    if paired:
        return location(a - b, draws)
    by_seeds_D = iqm(a.value_S[drawn_seeds(len(a), draws, 0)]) - iqm(b.value_S[drawn_seeds(len(b), draws, 1)])
    both = a.part_SG is not None and b.part_SG is not None
    by_prompts_D = shifts(a.part_SG, draws) - shifts(b.part_SG, draws) if both else np.zeros(draws)
    value = float(iqm(a.value_S) - iqm(b.value_S))
    return spread(value, by_seeds_D, by_prompts_D, min(len(a), len(b)), prompts_of(a) if both else 0)


def improvement(a: Scores, b: Scores, paired: bool = True, draws: int = DRAWS) -> Estimate:
    """P(a > b): the share of pairs (a run of a, a run of b) in which a's figure is higher, ties counting half.

    Mann–Whitney's U over S_a S_b (Agarwal et al. 2021, eq. 4), seeds drawn. Two equal configurations give one half.
    With one seed the interval is NaN, since one seed tells nothing about others.
    """
    a_DS = a.value_S[drawn_seeds(len(a), draws, 0)]
    b_DS = b.value_S[drawn_seeds(len(b), draws, 0 if paired else 1)]
    value = float(higher(a.value_S[None], b.value_S[None])[0])
    return spread(value, higher(a_DS, b_DS), np.zeros(draws), min(len(a), len(b)), 0)


def higher(a_DS: Floats, b_DS: Floats) -> Floats:
    """[D]: the share of pairs in which a is above b, ties counting half."""
    signs_D = np.zeros(len(a_DS))
    for column in range(b_DS.shape[1]):
        signs_D += np.sign(a_DS - b_DS[:, column, None]).sum(1)
    share_D: Floats = 0.5 + 0.5 * signs_D / (a_DS.shape[1] * b_DS.shape[1])
    return share_D
