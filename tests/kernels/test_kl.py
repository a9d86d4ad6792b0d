"""Both kinds of KL, against float64."""

from __future__ import annotations

import math

import kernels_oracle as oracle
import pytest
import torch

from hookline.kernels import kl_divergence, kl_estimate

pytestmark = pytest.mark.usefixtures("implementation")
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
VALUES = {
    "k1": lambda d: d,
    "k2": lambda d: d.square() / 2,
    "k3": lambda d: torch.expm1(-d) + d,
}


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 21), (2, 3, 100)], ids=str)
@pytest.mark.parametrize("name", VALUES)
def test_estimators_and_their_gradients(dtype, shape, name):
    p, q = (2 * torch.randn(2, *shape)).to(dtype)
    ours, theirs = ([t.to(d).clone().requires_grad_() for t in (p, q)] for d in (dtype, torch.float64))
    got, want = kl_estimate(*ours, estimator=name), VALUES[name](theirs[0] - theirs[1])
    assert got.dtype == torch.float32
    close(got, want)
    got.sum().backward()
    want.sum().backward()
    for a, b in zip(ours, theirs):
        close(a.grad, b.grad, {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype])


def test_all_three_in_one_read_in_the_order_asked():
    p, q = torch.randn(2, 5, 40)
    k3, k1, k2 = kl_estimate(p, q, estimator=("k3", "k1", "k2"))
    for name, value in (("k1", k1), ("k2", k2), ("k3", k3)):
        assert torch.equal(value, kl_estimate(p, q, estimator=name))


@pytest.mark.parametrize("r", [1e-4, -1e-4, 1e-2, 0.49, 0.51, -0.5, 3.0, -20.0, 80.0, -200.0])
def test_k3_keeps_its_digits(r):
    exact = math.expm1(r) - r
    p, q = torch.tensor([0.0]), torch.tensor([r])
    assert kl_estimate(p, q).item() == pytest.approx(math.expm1(q.item()) - q.item(), rel=2e-6)
    assert exact >= 0


def test_k3_is_not_clamped():
    p, q = torch.tensor([-100.0, -80.0, math.nan]), torch.zeros(3)
    k3 = kl_estimate(p, q)
    assert k3[0] == math.inf
    assert k3[1].item() == pytest.approx(math.exp(80), rel=1e-5)
    assert k3[2].isnan()


def test_estimates_of_strided_log_probs():
    p, q = torch.randn(2, 6, 9)
    close(kl_estimate(p.T, q.T), kl_estimate(p, q).T)
    close(kl_estimate(p[:, ::2], q[:, 1:6]), VALUES["k3"](p[:, ::2].double() - q[:, 1:6].double()))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("vocabulary", [1, 15, 16, 17, 63, 64, 65, 1009, 5003])
def test_divergence_and_its_gradients(dtype, vocabulary):
    p, q = (3 * torch.randn(2, 2, 3, vocabulary)).to(dtype)
    ours, theirs = ([t.to(d).clone().requires_grad_() for t in (p, q)] for d in (dtype, torch.float64))
    got, want = kl_divergence(*ours, temperature=0.8), oracle.kl(*theirs, 0.8)
    assert got.dtype == torch.float32
    close(got, want)
    upstream = torch.randn(2, 3)
    (got * upstream).sum().backward()
    (want * upstream).sum().backward()
    for a, b in zip(ours, theirs):
        close(a.grad, b.grad, {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype])


def test_divergence_from_oneself_is_zero():
    p = 5 * torch.randn(4, 777)
    assert (kl_divergence(p, p) == 0).all()


def test_divergence_is_never_negative():
    p = torch.randn(64, 500)
    assert (kl_divergence(p, p + 1e-4 * torch.randn(64, 500)) >= 0).all()


@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_a_common_offset_changes_nothing(offset):
    p, q = torch.randint(-40, 40, (2, 4, 333)) / 8.0
    close(kl_divergence(p + offset, q - offset), kl_divergence(p, q), 1e-6)


def test_tokens_that_cannot_be_drawn():
    p, q = torch.randn(2, 3, 400)
    p[0, :100] = -math.inf  # adds nothing
    p[1, :100] = q[1, :200] = -math.inf  # q cannot draw what p can
    p[2, 50:] = q[2, 50:] = -math.inf
    got = kl_divergence(p, q)
    close(got, oracle.kl(p, q))
    assert got[1] == math.inf
    leaf, ref = p[[0, 2]].clone().requires_grad_(), q[[0, 2]].clone().requires_grad_()
    kl_divergence(leaf, ref).sum().backward()
    assert leaf.grad.isfinite().all()
    assert ref.grad.isfinite().all()
    assert (leaf.grad[0, :100] == 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_stays_in_its_row(bad, side):
    both = torch.randn(2, 3, 200)
    both[side, 1, 150] = bad
    got = kl_divergence(*both)
    assert got.isnan().tolist() == [False, True, False]


def test_zero_upstream_shields_from_nan():
    p, q = torch.randn(2, 3, 50)
    q[1] = math.nan
    leaf = p.clone().requires_grad_()
    kl_divergence(leaf, q)[[0, 2]].sum().backward()
    assert leaf.grad.isfinite().all()


def test_shapes_strides_and_mixed_dtypes():
    p, q = torch.randn(2, 3, 5, 60)
    close(kl_divergence(p[:, 1:], q[:, :-1]), oracle.kl(p[:, 1:], q[:, :-1]))
    close(kl_divergence(p.mT.contiguous().mT, q), oracle.kl(p, q))
    close(kl_divergence(p.bfloat16(), q), oracle.kl(p.bfloat16(), q))
    assert kl_divergence(p[:0], q[:0]).shape == (0, 5)
    assert kl_divergence(p[0, 0], q[0, 0]).shape == ()
