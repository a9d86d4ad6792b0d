"""gae against its recurrence in Python floats, and against laws."""

from __future__ import annotations

import math

import kernels_oracle as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hookline.kernels import backend, gae

pytestmark = pytest.mark.usefixtures("implementation")


def close(actual, expected, tolerance=2e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


def recurrence(rewards, values, mask, gamma, lam, bootstrap):
    rows = [
        oracle.gae(r, v, m, gamma, lam, b)
        for r, v, m, b in zip(rewards.tolist(), values.tolist(), mask.tolist(), bootstrap.tolist())
    ]
    return torch.tensor([a for a, _ in rows]).view(rewards.shape), torch.tensor([r for _, r in rows]).view(
        rewards.shape
    )


@given(data=st.data())
def test_any_shape_mask_and_discount(implementation, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    rows, steps = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 70))
    dtype = data.draw(st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
    gamma, lam = data.draw(st.sampled_from([0.0, 0.9, 1.0])), data.draw(st.sampled_from([0.0, 0.95, 1.0]))
    density = data.draw(st.sampled_from([0.0, 0.5, 0.97, 1.0]))
    rewards, values = torch.randn(2, rows, steps + 1, generator=generator).to(dtype)[..., 1:]  # row stride > T
    mask = torch.rand(rows, steps, generator=generator) < density
    bootstrap = torch.randn(rows, generator=generator)
    expected = recurrence(rewards, values, mask, gamma, lam, bootstrap)
    dirty = [torch.where(mask, x, math.nan) for x in (rewards, values)]
    got = gae(*dirty, mask=mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
    for a, b in zip(got, expected):
        assert a.dtype == torch.float32
        close(a, b)
    offsets = torch.arange(rows + 1) * steps
    packed = gae(
        *(x.flatten() for x in dirty),
        mask=mask.flatten(),
        gamma=gamma,
        lam=lam,
        bootstrap=bootstrap,
        offsets=offsets,
    )
    for a, b in zip(packed, expected):
        close(a, b.flatten())


@pytest.mark.parametrize("steps", [1, 2, 3, 15, 16, 17, 33, 1021, 9001])
def test_lengths(steps):
    rewards, values = torch.randn(2, 2, steps)
    everywhere = torch.ones(2, steps, dtype=torch.bool)
    expected = recurrence(rewards, values, everywhere, 0.99, 0.95, torch.zeros(2))
    for got in (gae(rewards, values, gamma=0.99), gae(rewards, values, gamma=0.99, mask=everywhere)):
        close(got[0], expected[0], 1e-4)
        close(got[1], expected[1], 1e-4)


def test_advantage_plus_value_is_the_sum_of_later_rewards():
    rewards, values = torch.randn(2, 3, 50)
    advantages, returns = gae(rewards, values, gamma=1.0, lam=1.0)
    later = rewards.flip(-1).cumsum(-1).flip(-1)
    close(advantages + values, later)
    close(returns, later)


def test_lam_0_is_the_td_error():
    rewards, values = torch.randn(2, 3, 50)
    next_values = torch.cat([values[:, 1:], torch.zeros(3, 1)], -1)
    close(gae(rewards, values, gamma=0.9, lam=0.0)[0], rewards + 0.9 * next_values - values)


@pytest.mark.parametrize("padding", [1, 16, 31])
def test_padding_changes_no_bit_on_the_right_and_nothing_on_the_left(padding):
    rewards, values = torch.randn(2, 3, 40)
    plain = gae(rewards, values, gamma=0.97)
    wide = [torch.cat([x, torch.full((3, padding), math.nan)], -1) for x in (rewards, values)]
    mask = torch.arange(40 + padding).expand(3, -1) < 40
    right = gae(*wide, mask=mask, gamma=0.97)
    left = gae(*(x.roll(padding, -1) for x in wide), mask=mask.roll(padding, -1), gamma=0.97)
    for a, b, c in zip(plain, right, left):
        close(b[:, :40], a)
        close(c[:, padding:], a)
        assert (b[:, 40:] == 0).all()
        assert (c[:, :padding] == 0).all()


def test_a_hole_passes_the_carry_on():
    rewards, values = torch.randn(2, 1, 30)
    mask = torch.rand(1, 30) < 0.5
    holes = gae(rewards, values, mask=mask, gamma=0.9)
    squeezed = gae(rewards[mask][None], values[mask][None], gamma=0.9)
    for a, b in zip(holes, squeezed):
        close(a[mask], b[0])


def test_all_masked_is_all_zero():
    nothing = torch.full((2, 20), math.nan)
    for result in gae(nothing, nothing, mask=torch.zeros(2, 20, dtype=torch.bool), bootstrap=torch.ones(2)):
        assert (result == 0).all()


def test_a_length_cut_is_terminal_unless_bootstrap_is_given():
    rewards, values = torch.zeros(1, 4), torch.zeros(1, 4)
    assert (gae(rewards, values)[0] == 0).all()
    advantages, _ = gae(rewards, values, lam=1.0, bootstrap=torch.tensor([2.0]))
    close(advantages, torch.full((1, 4), 2.0))


def test_nan_goes_left_and_nowhere_else():
    rewards, values = torch.randn(2, 3, 40)
    rewards[1, 20] = math.nan
    advantages, _ = gae(rewards, values)
    assert advantages[1, :21].isnan().all()
    assert advantages[1, 21:].isfinite().all()
    assert advantages[[0, 2]].isfinite().all()


def test_rows_may_be_permuted():
    rewards, values, order = *torch.randn(2, 6, 33), torch.randperm(6)
    close(gae(rewards[order], values[order])[0], gae(rewards, values)[0][order], 1e-7)


def test_leading_shapes_and_odd_strides():
    rewards, values = torch.randn(2, 2, 3, 20)
    expected = gae(rewards.flatten(0, 1), values.flatten(0, 1))[0].view(2, 3, 20)
    close(gae(rewards, values)[0], expected)
    close(gae(rewards.transpose(0, 1), values.transpose(0, 1))[0].transpose(0, 1), expected)
    close(gae(rewards.mT.contiguous().mT, values.mT.contiguous().mT)[0], expected)
    close(gae(rewards[0, 0], values[0, 0])[0], expected[0, 0])


def test_packed_rows_of_unequal_length():
    lengths = [0, 1, 17, 5, 0, 40]
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()])
    rewards, values, bootstrap = torch.randn(63), torch.randn(63), torch.randn(6)
    advantages, returns = gae(rewards, values, offsets=offsets, bootstrap=bootstrap, gamma=0.9)
    for i, (a, b) in enumerate(zip(offsets.tolist(), offsets.tolist()[1:])):
        one = gae(rewards[a:b], values[a:b], bootstrap=bootstrap[i], gamma=0.9)
        close(advantages[a:b], one[0])
        close(returns[a:b], one[1])


def test_results_carry_no_gradient():
    rewards, values = torch.randn(2, 3, 8).requires_grad_()
    advantages, returns = gae(rewards, values)
    assert not advantages.requires_grad
    assert not returns.requires_grad


@pytest.mark.parametrize("steps", [1003, 1008], ids=["rows begin anywhere", "rows begin on a cache line"])
def test_results_too_large_for_the_caches(implementation, steps):
    """From 16 MiB of results on, they are written past the caches."""
    if implementation == "reference":
        pytest.skip("does not apply: has no such path")
    rewards, values = torch.randn(2, 2150, steps)
    mask = torch.rand(2150, steps) < 0.999
    mask[7, 100:300] = False
    with backend("reference"):
        expected = gae(rewards, values, mask=mask, gamma=0.99)
    for ours, theirs in zip(gae(rewards, values, mask=mask, gamma=0.99), expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [3, 20_000], ids=["small", "pooled"])
def test_results_that_someone_holds_are_left_alone(rows):
    rewards, values = torch.randn(2, rows, 8)
    first = gae(rewards, values)
    kept = [x.clone() for x in first]
    gae(rewards + 1, values)
    assert all(torch.equal(a, b) for a, b in zip(first, kept))
