"""The statistics behind `compare`: exact small cases, laws, and how often the intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hookline
from hookline.runs.samples import fraction
from hookline.study import intervals
from hookline.study.intervals import Scores, contributions, difference, improvement, iqm, location, tail

numbers = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30)


def some(count: int, seed: int = 0, prompts: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    part_SG = rng.normal(size=(count, prompts)) if prompts else None
    if part_SG is not None:
        part_SG -= part_SG.mean(1, keepdims=True)
    return Scores(rng.normal(size=count), part_SG)


@pytest.mark.parametrize(
    ("values", "by_hand"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0], 1.5),
        ([0.0, 1.0, 100.0], (0.25 * 0 + 1 + 0.25 * 100) / 1.5),
        ([0.0, 1.0, 3.0, 100.0], 2.0),
        ([0.0, 1.0, 2.0, 4.0, 100.0], (0.75 * 1 + 2 + 0.75 * 4) / 2.5),
        ([9.0, 1, 2, 3, 4, 5, 6, 0], 3.5),
    ],
)
def test_interquartile_mean_by_hand(values: list[float], by_hand: float) -> None:
    assert iqm(values) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("count", [4, 8, 12, 40])
def test_interquartile_mean_is_the_trimmed_mean_where_quarters_are_whole(count: int) -> None:
    """scipy.stats.trim_mean(x, 0.25) cuts int(n / 4) values at each end."""
    values = np.random.default_rng(count).normal(size=count)
    assert iqm(values) == pytest.approx(np.sort(values)[count // 4 : -(count // 4)].mean(), abs=1e-12)


@given(numbers, st.floats(-50, 50), st.floats(0.1, 10), st.randoms())
def test_interquartile_mean_moves_and_stretches_with_its_values(
    values: list[float], shift: float, scale: float, random: object
) -> None:
    expected = float(iqm(values)) * scale + shift
    moved = [value * scale + shift for value in values]
    random.shuffle(moved)  # type: ignore[attr-defined]
    assert iqm(moved) == pytest.approx(expected, abs=1e-8 * (1 + abs(expected) + scale * 1e3))
    assert min(values) - 1e-9 <= iqm(values) <= max(values) + 1e-9


def test_an_outlier_in_the_outer_quarters_changes_nothing() -> None:
    assert iqm([0, 1, 2, 3, 4, 5, 6, 7.0]) == iqm([-1e9, 1, 2, 3, 4, 5, 6, 1e9])


@pytest.mark.parametrize(("dof", "table"), [(4, 2.776), (9, 2.262), (19, 2.093), (1e9, 1.960)])
def test_quantiles_of_student_are_those_of_the_table(dof: float, table: float) -> None:
    assert intervals.student(0.975, dof) == pytest.approx(table, rel=4e-3)


def test_tails_are_those_of_the_percentile_bootstrap_with_many_units_and_smaller_with_few() -> None:
    assert tail(1e9) == pytest.approx(0.025, rel=1e-3)
    shares = [tail(count) for count in (2, 3, 5, 10, 30, 100)]
    assert shares == sorted(shares)
    assert tail(5) < 0.0025 < tail(10)


# -- contributions of prompts


@pytest.mark.parametrize("summary", ["mean", "perplexity"])
def test_contributions_are_the_derivative_by_a_prompt_s_weight(summary: str) -> None:
    rng = np.random.default_rng(3)
    above_SG, below_SG = rng.normal(size=(2, 7)), rng.integers(1, 9, size=(2, 7)).astype(float)
    found = contributions(above_SG, below_SG, summary)
    assert found.mean(1) == pytest.approx(0, abs=1e-12)
    step = 1e-6
    for g in range(7):
        weight_G = np.ones(7)
        weight_G[g] += step
        moved = fraction(above_SG @ weight_G, below_SG @ weight_G, summary)
        still = fraction(above_SG.sum(1), below_SG.sum(1), summary)
        assert (moved - still) / step * 7 == pytest.approx(found[:, g], rel=1e-4)


def test_prompts_matter_as_far_as_their_effect_repeats_across_seeds() -> None:
    effect_G = np.linspace(-1, 1, 9)
    assert intervals.prompt_effect(np.tile(effect_G, (4, 1))) == pytest.approx(effect_G)
    assert intervals.prompt_effect(effect_G[None]) == pytest.approx(effect_G)
    opposed = np.stack([effect_G, -effect_G])
    assert intervals.prompt_effect(opposed) == pytest.approx(0)
    assert intervals.prompt_effect(effect_G[None, :1]) is None
    noise_SG = np.random.default_rng(0).normal(size=(5, 400))
    found_G = intervals.prompt_effect(noise_SG)
    assert found_G is not None
    assert found_G.var() < 0.2 * noise_SG.mean(0).var()  # noise of single answers is not counted twice


# -- laws of what is reported


@given(st.integers(1, 12), st.integers(0, 20), st.integers(0, 99))
def test_equal_configurations_differ_by_exactly_nothing(seeds: int, prompts: int, seed: int) -> None:
    a, b = some(seeds, seed, prompts), some(seeds, seed, prompts)
    found = difference(a, b, draws=200)
    assert found.value == 0
    if seeds > 1 or prompts > 1:
        assert (found.low, found.high) == (0, 0)
    assert improvement(a, b, draws=200).value == 0.5


@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_turned_round_a_comparison_says_the_opposite(first: int, second: int, seed: int) -> None:
    a, b = some(first, seed, 5), some(second, seed + 100, 5)
    assert improvement(a, b, False, 50).value == pytest.approx(1 - improvement(b, a, False, 50).value)
    assert difference(a, b, False, 50).value == pytest.approx(-difference(b, a, False, 50).value)
    c = Scores(b.value_S[: min(first, second)], b.part_SG[: min(first, second)])  # type: ignore[index]
    d = a.take(range(len(c)))
    there, back = difference(d, c, draws=400), difference(c, d, draws=400)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_probability_of_improvement_by_hand() -> None:
    a, b = Scores(np.array([1.0, 2.0, 3.0])), Scores(np.array([0.0, 2.0]))
    assert improvement(a, b, False).value == pytest.approx((1 + 0 + 1 + 0.5 + 1 + 1) / 6)
    assert improvement(b, a, False).value == pytest.approx((0 + 0 + 0 + 0.5 + 0 + 1) / 6)


def test_what_a_seed_does_to_both_falls_out_of_a_paired_difference() -> None:
    rng = np.random.default_rng(1)
    seeds = rng.normal(size=8) * 10
    a, b = Scores(seeds + 1 + rng.normal(size=8) * 0.01), Scores(seeds)
    paired, apart = difference(a, b), difference(a, b, paired=False)
    assert paired.low > 0.9
    assert paired.high < 1.1
    assert apart.low < 0 < apart.high


def test_one_seed_has_intervals_only_from_its_prompts() -> None:
    assert math.isnan(location(some(1)).low)
    assert math.isnan(difference(some(1), some(1, 5)).low)
    assert math.isnan(location(some(1, 0, 1)).low)
    found = location(some(1, 0, 30))
    assert found.low < found.value < found.high
    assert math.isnan(improvement(some(1, 0, 30), some(1, 5, 30)).low)


def test_equal_input_gives_equal_numbers_and_the_order_of_seeds_does_not_matter_much() -> None:
    a = some(6, 4, 12)
    assert location(a) == location(some(6, 4, 12))
    turned = location(a.take([5, 4, 3, 2, 1, 0]))
    assert turned.value == pytest.approx(location(a).value, abs=1e-12)
    assert turned.low == pytest.approx(location(a).low, abs=0.1)


def test_five_seeds_are_clear_of_zero_only_together() -> None:
    """With five seeds a claim needs all of them: one that says the opposite keeps 0 in the interval."""
    assert difference(Scores(np.array([1.0, 2, 3, 4, 5])), Scores(np.zeros(5))).low > 0
    assert difference(Scores(np.array([-0.5, 2, 3, 4, 5])), Scores(np.zeros(5))).low < 0


# -- how often the intervals hold the truth


@pytest.mark.parametrize(
    ("seeds", "prompts", "by_seed", "by_prompt", "noise", "least"),
    [
        (5, 0, 1.0, 0.0, 0.0, 0.90),
        (10, 0, 1.0, 0.0, 0.0, 0.92),
        (5, 48, 0.1, 0.3, 0.3, 0.90),
        (5, 48, 0.0, 0.4, 0.3, 0.90),
        (8, 48, 0.05, 0.0, 0.4, 0.92),
        (1, 48, 0.0, 0.3, 0.3, 0.90),
    ],
    ids=["5 seeds", "10 seeds", "seeds and prompts", "prompts alone", "noise of answers", "one seed"],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    seeds: int, prompts: int, by_seed: float, by_prompt: float, noise: float, least: float
) -> None:
    """300 simulated experiments with a true difference of 0.2: nominal 95 %, within three standard errors of 93 to 99 %."""
    rng = np.random.default_rng(7)
    held = held_apart = 0
    for _ in range(300):
        made = []
        effect_G = by_prompt * rng.normal(size=prompts)
        for shift in (0.2, 0.0):
            own_G = 0.5 * by_prompt * rng.normal(size=prompts)  # prompts that suit one configuration more
            value_S = shift + by_seed * rng.normal(size=seeds)
            x_SG = value_S[:, None] + effect_G + own_G + noise * rng.normal(size=(seeds, prompts))
            ones = np.ones_like(x_SG)
            made.append(Scores(x_SG.mean(1), contributions(x_SG, ones, "mean")) if prompts else Scores(value_S))
        found = difference(*made, draws=600)
        held += found.low <= 0.2 <= found.high
        alone = location(made[1], draws=600)
        held_apart += alone.low <= 0 <= alone.high
    assert least <= held / 300 <= 0.995
    assert least <= held_apart / 300 <= 0.995


# -- one run


def test_the_interval_of_one_run_is_that_of_a_comparison_with_one_seed() -> None:
    rng = np.random.default_rng(3)
    above_G, below_G = rng.normal(-2, 1, 60), rng.integers(1, 9, 60).astype(float)
    for summary in ("mean", "perplexity"):
        value = float(fraction(above_G.sum(), below_G.sum(), summary))
        part_SG = contributions(above_G[None], below_G[None], summary)
        assert hookline.interval(above_G, below_G, summary=summary) == location(Scores(np.array([value]), part_SG))


def test_a_difference_of_two_figures_of_the_same_prompts_is_paired() -> None:
    above_G, below_G = np.random.default_rng(4).normal(0, 5, 80), np.ones(80)
    found = hookline.interval(above_G + 0.5, below_G, minus=(above_G, below_G))
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    apart = hookline.interval(above_G + 0.5, below_G)
    assert apart.high - apart.low > 1


@pytest.mark.parametrize("prompts", [0, 1])
def test_fewer_than_two_prompts_say_nothing(prompts: int) -> None:
    found = hookline.interval(np.ones(prompts), np.ones(prompts))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_leaving_out_each_prompt_finds_what_it_adds_to_a_mean() -> None:
    x_G = np.random.default_rng(5).normal(size=30)
    without_G = (x_G.sum() - x_G) / 29
    part_SG = intervals.jackknife(float(x_G.mean()), without_G)
    assert part_SG == pytest.approx(contributions(x_G[None], np.ones((1, 30)), "mean"))
    assert intervals.jackknife(1.0, np.array([1.0, np.nan])) is None


def test_a_prompt_that_nobody_judged_adds_nothing() -> None:
    from hookline.runs.samples import prompt_sums

    samples = [
        {"group": g, "tokens": 3, "terms": {"x": float(g)} if g != 2 else {}} for g in range(6) for _ in range(2)
    ]
    sums = prompt_sums(samples, "x")
    assert sums.count_G.tolist() == [2, 2, 0, 2, 2, 2]
    part_SG = intervals.prompt_parts([sums], np.array([2.6]), "mean")
    assert part_SG is not None
    assert part_SG[0, 2] == 0
    assert part_SG.sum() == pytest.approx(0)
    assert intervals.prompt_parts([prompt_sums(samples[:2], "x")], np.array([0.0]), "mean") is None
    assert math.isnan(hookline.figure_interval(samples[4:8], "x", 3.0).low), "one judged prompt says nothing"
    assert math.isnan(hookline.figure_interval(samples, "x", math.nan).low)
