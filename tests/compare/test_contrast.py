"""Whether a difference counts as shown: p-values, Holm's correction, effect sizes and power, on small cases by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hookline.study import contrast
from hookline.study.contrast import effect_size, holm, randomised, relabelled, seeds_needed
from hookline.study.intervals import Scores
from hookline.study.measure import area_weights, point_weights


def scores(*values: float) -> Scores:
    return Scores(np.array(values, np.float64))


# -- p-values


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1.0, 2.0], 2 / 4),
        ([1.0, 2.0, 3.0], 2 / 8),
        ([1.0, 2.0, -3.0], 8 / 8),
        ([1.0, 2.0, 4.0, -1.0], 6 / 16),  # |Σ| = 6; as large: ±(1 2 4 −1), ±(−1 2 4 1), ±(1 2 4 1) and no more
        ([1.0, 1.0, 1.0, 1.0, 1.0], 2 / 32),
        ([0.0, 0.0, 0.0], 1.0),
    ],
)
def test_signs_turned_by_hand(differences: list[float], p: float) -> None:
    assert randomised(np.array(differences)) == p


def test_labels_dealt_out_by_hand() -> None:
    assert relabelled(np.array([1.0, 2, 3]), np.array([4.0, 5, 6])) == 2 / 20
    assert relabelled(np.array([1.0, 4]), np.array([2.0, 3])) == 1.0
    assert relabelled(np.array([5.0]), np.array([1.0, 2])) == 1 / 3


@settings(max_examples=40)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=9), st.floats(0.5, 4))
def test_p_does_not_depend_on_sign_unit_or_order(values: list[float], unit: float) -> None:
    d_S = np.round(np.array(values), 3)
    p = randomised(d_S)
    assert 2 / 2 ** len(d_S) <= p <= 1
    assert randomised(-d_S) == randomised(d_S[::-1]) == p
    assert randomised(d_S * unit) == p


def test_p_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.4, 1, 8), rng.normal(0, 1, 8)

    def mean_difference(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return a.mean(axis) - b.mean(axis)  # type: ignore[no-any-return]

    for kind, ours in (("samples", randomised(x - y)), ("independent", relabelled(x[:6], y[:6]))):
        pair = (x, y) if kind == "samples" else (x[:6], y[:6])
        theirs = stats.permutation_test(
            pair, mean_difference, permutation_type=kind, n_resamples=np.inf, vectorized=True
        )
        assert ours == pytest.approx(theirs.pvalue, abs=1e-12)


def test_many_seeds_are_sampled_close_to_the_exact_share(monkeypatch: pytest.MonkeyPatch) -> None:
    d_S = np.random.default_rng(3).normal(0.5, 1, 12)
    x_S, y_S = d_S[:6], d_S[6:] - 0.7
    exact = randomised(d_S), relabelled(x_S, y_S)
    monkeypatch.setattr(contrast, "MOST_WAYS", 100)
    sampled = randomised(d_S), relabelled(x_S, y_S)
    assert sampled == pytest.approx(exact, abs=0.01)
    assert randomised(d_S) == sampled[0]
    assert randomised(np.ones(40)) > 0


def test_equal_configurations_are_shown_to_differ_as_often_as_they_should() -> None:
    """Of 400 experiments with 7 seeds and no difference, about one in 20 has p ≤ 0.05; three standard errors allowed."""
    rng = np.random.default_rng(1)
    found = sum(randomised(rng.standard_t(3, 7)) <= 0.05 for _ in range(400))
    assert 400 * 3 / 64 - 17 < found < 400 * 0.05 + 14


# -- Holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, None, 0.04]) == pytest.approx([0.02, None, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=9))
def test_holm_keeps_order_and_lies_between_none_and_bonferroni(p: list[float]) -> None:
    found = holm(p)
    for raw, corrected in zip(p, found):
        assert corrected is not None
        assert raw <= corrected <= min(1.0, raw * len(p))
    assert sorted(range(len(p)), key=lambda i: (p[i], i)) == sorted(range(len(p)), key=lambda i: (found[i], p[i], i))


# -- effect size and power


def test_effect_size_by_hand() -> None:
    x, y = scores(2, 3, 4, 7), scores(1, 1, 2, 4)
    d_S = np.array([1.0, 2, 2, 3])
    hedges = 1 - 3 / (4 * 3 - 1)
    assert effect_size(x, y, paired=True) == pytest.approx(d_S.mean() / d_S.std(ddof=1) * hedges)
    pooled = math.sqrt((14.0 + 6.0) / 6)
    assert effect_size(x, y, paired=False) == pytest.approx(2.0 / pooled * (1 - 3 / 23))
    assert effect_size(y, x, paired=True) == -effect_size(x, y, paired=True)  # type: ignore[operator]
    assert effect_size(x, x, paired=True) is None
    assert effect_size(scores(1), scores(0), paired=True) is None


def test_hedges_correction_takes_the_bias_out() -> None:
    """With 4 pairs, the mean of Cohen's d is 38 % too high without the correction and about right with it."""
    rng = np.random.default_rng(5)
    found = [effect_size(Scores(rng.normal(1.0, 1, 6)), Scores(np.zeros(6)), paired=True) for _ in range(4000)]
    assert np.mean([f for f in found if f is not None]) == pytest.approx(1.0, abs=0.05)


def test_as_many_seeds_as_are_asked_for_show_it_four_times_in_five() -> None:
    size, spread = 0.8, 1.0
    base_S = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    pilot = Scores(size + base_S / base_S.std(ddof=1) * spread)
    needed = seeds_needed(pilot, Scores(np.zeros(5)), paired=True, comparisons=1)
    assert needed is not None
    rng = np.random.default_rng(2)
    shown = sum(randomised(rng.normal(size, spread, int(needed))) <= 0.05 for _ in range(200))
    assert 0.70 <= shown / 200 <= 0.90


def test_seeds_needed_at_the_edges() -> None:
    zeros = Scores(np.zeros(5))
    strong = Scores(np.array([1.0, 1.01, 0.99, 1.02, 0.98]))
    assert [seeds_needed(strong, zeros, True, m) for m in (1, 2, 6)] == [6, 7, 8], "as many as can reach p at all"
    assert seeds_needed(scores(1, 2), scores(0, 0), True, 1) is None, "two seeds do not know their spread"
    assert seeds_needed(zeros, zeros, True, 1) is None
    part_SG = np.tile(np.linspace(-9, 9, 4), (5, 1))
    hard = Scores(np.array([0.1, 0.0, 0.2, 0.1, 0.15]), part_SG)
    assert seeds_needed(hard, Scores(np.zeros(5), part_SG * 0), True, 1) == math.inf, "the prompts are too few"


# -- a point and an area on straight lines


def test_a_point_between_two_evaluations_lies_on_the_line_between_them() -> None:
    x_K, y_K = np.array([0.0, 4, 8]), np.array([1.0, 3.0, 2.0])
    for at, value in ((0, 1), (2, 2), (4, 3), (5, 2.75), (8, 2), (9, 2), (-1, 1)):
        assert point_weights(x_K, at) @ y_K == pytest.approx(value)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.floats(-5, 5)), min_size=2, max_size=8, unique_by=lambda p: p[0]),
    st.data(),
)
def test_area_is_that_of_numpy_s_interpolation(points: list[tuple[int, float]], data: st.DataObject) -> None:
    points.sort()
    x_K, y_K = np.array([float(x) for x, _ in points]), np.array([y for _, y in points])
    start = data.draw(st.floats(x_K[0], x_K[-1] - 0.5))
    end = data.draw(st.floats(start + 0.25, x_K[-1]))
    fine = np.linspace(start, end, 20_001)
    assert area_weights(x_K, start, end) @ y_K == pytest.approx(np.interp(fine, x_K, y_K).mean(), abs=2e-3)
    assert area_weights(x_K, start, end).sum() == pytest.approx(1)


def test_steps_without_tokens_share_an_amount_and_the_last_counts() -> None:
    x_K, y_K = np.array([0.0, 0.0, 4.0, 4.0]), np.array([9.0, 1.0, 3.0, 5.0])
    assert point_weights(x_K, 0.0) @ y_K == 1.0
    assert point_weights(x_K, 2.0) @ y_K == 2.0
    assert point_weights(x_K, 4.0) @ y_K == 5.0
