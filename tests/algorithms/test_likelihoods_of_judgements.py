"""The likelihoods of judgements: published values, exact gradients, probabilities that sum to 1, and rewards far apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from hookline_plugins import likelihoods as lk

PAIRS = [
    (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4), (0, 5), (1, 5), (2, 5), (3, 5), (4, 5),
]  # fmt: skip
COUNTS = np.array([
    [19, 16, 19, 18, 23, 19, 13, 16, 16, 17, 18, 22, 13, 14, 11],
    [22, 19, 19, 23, 19, 20, 19, 20, 15, 14, 21, 20, 18, 19, 21],
    [16, 12, 10, 13, 9, 15, 18, 12, 17, 16, 12, 12, 10, 18, 12],
])  # fmt: skip
"""Davidson 1970, chocolate pudding: how often the first brand of a pair was preferred, the second, and neither."""


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def fitted(loss: Callable[[Tensor], Tensor], n: int) -> tuple[Any, float]:
    """The minimum of a function of n parameters, and where it is."""

    def both(x: Any) -> tuple[float, Any]:
        at = torch.tensor(x, requires_grad=True)
        value = loss(at)
        (gradient,) = torch.autograd.grad(value, at)
        return float(value.detach()), gradient.numpy()

    found = optimize.minimize(both, np.zeros(n), jac=True, method="BFGS", options={"gtol": 1e-9})
    return found.x, float(found.fun)


def pudding(model: Callable[[Tensor, Tensor], Tensor]) -> tuple[Any, float, float]:
    """Strengths of the six brands, exp of the model's parameter, and the loss, at the maximum of the likelihood."""
    a, b = torch.tensor(PAIRS).T
    count = torch.tensor(COUNTS.T, dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        r = torch.cat([x.new_zeros(1), x[:5]])
        return -(count * model(r[a] - r[b], x[5])).sum()

    x, value = fitted(loss, 6)
    return x[:5], math.exp(x[5]), value


def test_davidson_on_the_pudding_of_1970() -> None:
    strength, nu, loss = pudding(lk.davidson)
    assert strength == pytest.approx([0.22024, 0.15298, 0.17514, 0.13387, 0.37713], abs=6e-6)
    assert nu == pytest.approx(0.74682, abs=6e-6)
    assert loss == pytest.approx(809.70951, abs=6e-6)


def test_rao_and_kupper_on_the_pudding_of_1970() -> None:
    strength, eta, loss = pudding(lk.rao_kupper)
    assert strength == pytest.approx([0.17372, 0.12005, 0.13988, 0.10497, 0.29801], abs=6e-6)
    assert math.exp(eta) == pytest.approx(1.74846, abs=6e-6)
    assert loss == pytest.approx(809.69713, abs=6e-6)


@pytest.mark.parametrize(
    ("half", "strengths"),
    [(0.5, [0.16031, 0.11134, 0.12748, 0.09743, 0.27449]), (0.0, [0.21898, 0.15357, 0.17042, 0.13492, 0.37382])],
)
def test_bradley_terry_with_ties_as_half_a_win_and_without_them(half: float, strengths: list[float]) -> None:
    a, b = torch.tensor(PAIRS).T
    won, lost, tied = torch.tensor(COUNTS, dtype=torch.float64)
    total = won + lost + 2 * half * tied

    def loss(x: Tensor) -> Tensor:
        r = torch.cat([x.new_zeros(1), x])
        return (total * lk.bradley_terry(r[a] - r[b], (won + half * tied) / total)).sum()

    assert fitted(loss, 5)[0] == pytest.approx(strengths, abs=6e-6)


def test_coral_and_corn_at_the_inputs_of_their_own_documentation() -> None:
    logits = torch.tensor([[2.1, 1.8, -2.1, -1.8], [1.9, -1.0, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]])
    assert float(lk.cut_logits(logits, torch.tensor([2, 1, 4])).mean()) == pytest.approx(0.6920, abs=5e-5)
    torch.manual_seed(123)
    rows, level = torch.rand(8, 99), torch.tensor([0, 1, 2, 2, 2, 3, 4, 4])
    logits = torch.nn.Linear(99, 4)(rows)
    questions = int((level.clamp(max=3) + 1).sum())
    assert float(lk.successive(logits, level).sum().detach()) / questions == pytest.approx(0.7127, abs=5e-5)


def test_known_values() -> None:
    zero, one = double(0.0), double(1.0)
    assert float(lk.bradley_terry(zero)) == pytest.approx(math.log(2))
    assert float(lk.davidson(zero, zero)[0, 2].exp()) == pytest.approx(1 / 3)  # ν/(2 + ν)
    assert float(lk.rao_kupper(zero, double(math.log(math.log(2)))[0])[0, 2].exp()) == pytest.approx(
        1 / 3
    )  # (θ−1)/(θ+1)
    thresholds = double(40, 41)
    assert float(lk.cumulative_logit(zero, torch.tensor([1]), thresholds)) == pytest.approx(40.4587, abs=5e-5)
    assert float(lk.true_share(1.0, 0.2)) == pytest.approx(0.8 / 0.6)
    corrected = lk.bradley_terry(double(10, 1000), lk.true_share(1.0, 0.2))
    assert corrected.tolist() == pytest.approx([-3.33, -333.3], abs=0.05)  # no lower bound
    assert lk.squeezed(double(0, 1), 10).tolist() == pytest.approx([0.05, 0.95])
    assert float(lk.normal(one, double(3.0), zero[0])) == pytest.approx(2 + 0.5 * math.log(2 * math.pi))


def test_a_corrected_label_is_unbiased() -> None:
    d = torch.linspace(-5, 5, 11, dtype=torch.float64)
    right, wrong = (lk.bradley_terry(d, lk.true_share(p, 0.2)) for p in (1.0, 0.0))
    assert torch.allclose(0.8 * right + 0.2 * wrong, lk.bradley_terry(d))


def levels(order: tuple[tuple[int, ...], ...], k: int) -> Tensor:
    """A ranking as levels, [1, k]; NaN for candidates without a place."""
    found = [math.nan] * k
    for place, group in enumerate(order):
        for i in group:
            found[i] = float(len(order) - place)
    return double(*found)[None]


def test_two_candidates_are_bradley_terry_and_davidson() -> None:
    score, nu = double(0.3, -1.1), double(-0.4)
    d = score[:1] - score[1:]
    assert float(lk.plackett_luce(score[None], levels(((0,), (1,)), 2))) == pytest.approx(
        float(lk.bradley_terry(d)), abs=1e-12
    )
    for order, said in ((((0,), (1,)), 0), (((1,), (0,)), 1), (((0, 1),), 2)):
        loss = lk.davidson_luce(score[None], levels(order, 2), nu)
        assert float(loss) == pytest.approx(-float(lk.davidson(d, nu[0])[0, said]), abs=1e-12)


def weak_orders(items: tuple[int, ...], most: int) -> list[tuple[tuple[int, ...], ...]]:
    """Every ranking of the items in which at most `most` tie."""
    if not items:
        return [()]
    firsts = (c for n in range(1, most + 1) for c in itertools.combinations(items, n))
    return [(c, *rest) for c in firsts for rest in weak_orders(tuple(i for i in items if i not in c), most)]


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_rankings_with_ties_have_probabilities_that_sum_to_one(most: int) -> None:
    score, delta = double(1.2, -0.5, 0.1, 2.0), double(-0.3, 0.4, -1.0)[: most - 1]
    orders = weak_orders((0, 1, 2, 3), most)
    losses = torch.stack([lk.davidson_luce(score[None], levels(order, 4), delta)[0] for order in orders])
    assert float((-losses).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    if most == 1:
        plain = torch.stack([lk.plackett_luce(score[None], levels(order, 4))[0] for order in orders])
        assert torch.allclose(losses, plain)


def test_candidates_without_a_place_change_nothing() -> None:
    score, delta = double(1.0, 5.0, -1.0), double(0.2)
    alone, beside = levels(((1,), (0,)), 2), levels(((2,), (0,)), 3)
    for model in (lk.plackett_luce, lambda s, x: lk.davidson_luce(s, x, delta)):
        assert float(model(score[None, [0, 2]], alone)) == pytest.approx(float(model(score[None], beside)), abs=1e-12)


def test_a_tie_beyond_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match="a tie of 3"):
        lk.davidson_luce(double(0, 0, 0)[None], levels(((0, 1, 2),), 3), double(0.0))


LEVELS = torch.tensor([0, 1, 2, 3, 1])
GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {  # x: five rewards, three parameters
    "bradley-terry": lambda x: lk.bradley_terry(x[:5], double(1, 0, 0.5, 0.8, 1.33), double(0, 0.5, 1, 0, 0)),
    "davidson": lambda x: lk.davidson(x[:5], x[5]),
    "rao-kupper": lambda x: lk.rao_kupper(x[:5], x[5]),
    "outside": lambda x: lk.with_outside_option(lk.davidson(x[:2] - x[2:4], x[5]), x[:2], x[2:4], x[6]),
    "reliable": lambda x: lk.reliable(lk.bradley_terry(x[:5]), lk.bradley_terry(-x[:5]), x[5:6].expand(5)),
    "plackett-luce": lambda x: lk.plackett_luce(x[None, :5], levels(((1, 2), (0,), (4,)), 5)),
    "davidson-luce": lambda x: lk.davidson_luce(x[None, :5], levels(((1, 2), (0,), (4,)), 5), x[5:7]),
    "cumulative": lambda x: lk.cumulative_logit(x[:5], LEVELS, lk.increasing(x[5], x[6:8])),
    "coral": lambda x: lk.cut_logits(x[:5, None] + x[5:8], LEVELS),
    "corn": lambda x: lk.successive(x[:5, None] + x[5:8], LEVELS),
    "normal": lambda x: lk.normal(x[:5], double(1, 2, 3, 4, 5), x[5]),
    "soft-binary": lambda x: lk.soft_binary(x[:5], double(0, 0.2, 1, 0.5, 0.7)),
    "beta": lambda x: lk.beta(x[:5], lk.squeezed(double(0, 0.2, 1, 0.5, 0.7), 20), x[5]),
    "mixed": lambda x: lk.mixed(torch.stack([lk.bradley_terry(x[:5]), lk.bradley_terry(-x[:5])], 1), x[5:7].log_softmax(0)),
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    x = double(0.7, -0.9, 0.2, 1.6, -2.0, 0.3, -0.2, 0.5).requires_grad_()
    assert torch.autograd.gradcheck(GRADIENTS[name], (x,), atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", GRADIENTS)
def test_rewards_far_apart_have_finite_losses_and_gradients(name: str, dtype: torch.dtype) -> None:
    for gap in (100.0, 1e4):
        x = torch.tensor([gap, -gap, 0.0, gap, -gap, 0.1, 0.2, 0.3], dtype=dtype, requires_grad=True)
        loss = GRADIENTS[name](x)
        assert torch.isfinite(loss[loss != -torch.inf]).all()
        (gradient,) = torch.autograd.grad(loss.sum(), x)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("model", [lk.davidson, lk.rao_kupper])
def test_what_a_comparison_can_come_to_sums_to_one(model: Callable[[Tensor, Tensor], Tensor]) -> None:
    first, second, parameter = double(0.5, -3, 20), double(1.0, 2, -20), double(-0.3)[0]
    said = model(first - second, parameter)
    assert said.exp().sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    swapped = model(second - first, parameter)
    assert torch.allclose(said, swapped[:, [1, 0, 2]])
    outside = lk.with_outside_option(said, first, second, double(0.7)[0])
    assert outside.exp().sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-12)
    plain = torch.stack([-lk.bradley_terry(first - second), -lk.bradley_terry(second - first)], 1)
    worths = torch.stack([first, second, double(0.7).expand(3)], 1)
    three = lk.with_outside_option(plain, first, second, double(0.7)[0])[:, [0, 1, 3]]
    assert torch.allclose(three, worths.log_softmax(1))  # e^r over the sum, as in McFadden's model


def test_levels_have_probabilities_that_sum_to_one() -> None:
    mean, K = double(-3.0, 0.2, 9.0), 5
    thresholds = lk.increasing(double(-1.0)[0], double(0.1, -20.0, 2.0))
    assert bool((thresholds.diff() > 0).all())
    for model in (
        lambda level: lk.cumulative_logit(mean, level, thresholds),
        lambda level: lk.successive(mean[:, None] + double(1.0, 0.0, -1.0, 0.5), level),
    ):
        total = sum(torch.exp(-model(torch.full((3,), k))) for k in range(K))
        assert torch.as_tensor(total).tolist() == pytest.approx([1, 1, 1], abs=1e-12)


def test_a_resample_has_poisson_counts_that_depend_on_the_judgement_alone() -> None:
    counts = lk.resampled(torch.arange(4000), 2)
    assert torch.equal(lk.resampled(torch.tensor([7, 3]), 2), counts[[7, 3]])
    assert counts.mean().item() == pytest.approx(1.0, abs=0.05)
    assert counts.var().item() == pytest.approx(1.0, abs=0.1)
    assert abs(float(torch.corrcoef(counts.T)[0, 1])) < 0.06
