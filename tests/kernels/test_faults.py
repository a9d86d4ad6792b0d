"""Group KN of the fault catalogue, row by row, for every op alike. What ops refuse, and how, stands in test_arguments."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from hookline.kernels import (
    backend,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    native,
    token_stats,
)

pytestmark = pytest.mark.usefixtures("implementation")

WIDTH, VOCABULARY = 6, 37
V = VOCABULARY


def all_stats(stats):
    return torch.stack([stats.logprobs, stats.entropy, stats.logsumexp, stats.sum_sq_probs])


WANT = ("logprobs", "entropy", "logsumexp", "sum_sq_probs")
# Name: (shapes of the float arguments after the leading shape, a function of them and of the leading shape's ids).
OPS = {
    "token_stats": ([(V,)], lambda ids, x: all_stats(token_stats(x, ids, want=WANT))),
    "linear_token_stats": ([(WIDTH,)], lambda ids, h: all_stats(linear_token_stats(h, WEIGHT, ids, want=WANT))),
    "gae": ([(V,), (V,)], lambda ids, r, v: torch.stack(gae(r, v, gamma=0.9))),
    "kl_estimate": ([(), ()], lambda ids, p, q: torch.stack(kl_estimate(p, q, estimator=("k1", "k2", "k3")))),
    "kl_divergence": ([(V,), (V,)], lambda ids, p, q: kl_divergence(p, q, temperature=0.8)),
    "linear_kl_divergence": ([(WIDTH,), (WIDTH,)], lambda ids, h, g: linear_kl_divergence(h, WEIGHT, g, WEIGHT + 1)),
}
WEIGHT = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(3))
every_op = pytest.mark.parametrize("op", OPS)


def inputs(op, leading, dtype=torch.float32):
    tails, _ = OPS[op]
    ids = torch.randint(VOCABULARY, leading)
    return [torch.randn(*leading, *tail).to(dtype) for tail in tails], ids


def run(op, tensors, ids):
    return OPS[op][1](ids, *tensors)


def gradients(op, tensors, ids):
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = run(op, leaves, ids)
    if not out.requires_grad:
        return []
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad(out, leaves, upstream, allow_unused=True))


def close(a, b, tolerance=1e-5):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


@every_op
@pytest.mark.parametrize("leading", [(0,), (0, 3), (3, 0), (2, 0, 3)], ids=str)
def test_kn1_nothing_gives_nothing(op, leading):
    tensors, ids = inputs(op, leading)
    out = run(op, tensors, ids)
    assert out.numel() == 0
    assert out.shape[-len(leading) :] == leading or op == "gae"
    for gradient, tensor in zip(gradients(op, tensors, ids), tensors):
        assert gradient.shape == tensor.shape


def test_kn1_rows_without_steps():
    for shape in ((0,), (3, 0), (0, 5)):
        advantages, returns = gae(torch.zeros(shape), torch.zeros(shape), bootstrap=torch.ones(shape[:-1]))
        assert advantages.shape == returns.shape == shape
    nothing = torch.zeros(0)
    assert gae(nothing, nothing, offsets=torch.tensor([0]))[0].shape == (0,)
    assert gae(nothing, nothing, offsets=torch.tensor([0, 0, 0]), bootstrap=torch.ones(2))[0].shape == (0,)


@every_op
@pytest.mark.parametrize("leading", [(), (6,), (1, 2, 3), (2, 1, 3, 1), (1, 1, 1, 2, 3)], ids=str)
def test_kn2_any_number_of_dimensions(op, leading):
    torch.manual_seed(0)
    flat, flat_ids = inputs(op, (6 if leading else 1,))
    expected = run(op, flat, flat_ids)
    shaped = [t.reshape((*leading, *t.shape[1:])) for t in flat]
    got = run(op, shaped, flat_ids.reshape(leading))
    close(got.reshape(expected.shape), expected)


LAYOUTS = {
    "transposed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "sliced with an offset": lambda t: torch.nn.functional.pad(t, (3, 2))[..., 3 : 3 + t.shape[-1]],
    "every second": lambda t: t.repeat_interleave(2, dim=-1)[..., ::2],
    "every second row": lambda t: t.repeat_interleave(2, dim=0)[::2],
    "flipped twice": lambda t: t.flip(0, -1).flip(0, -1),
    "expanded": lambda t: t[:1].expand_as(t),
}


@every_op
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kn4_any_layout(op, layout, dtype):
    torch.manual_seed(0)
    tensors, ids = inputs(op, (4, 5), dtype)
    odd = [LAYOUTS[layout](t) for t in tensors]
    dense = [t.clone(memory_format=torch.contiguous_format) for t in odd]
    close(run(op, odd, ids), run(op, dense, ids))
    close(run(op, odd, ids.t().contiguous().t()), run(op, dense, ids))
    for ours, expected in zip(gradients(op, odd, ids), gradients(op, dense, ids)):
        close(ours, expected, 1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("op", ["gae", "kl_estimate", "kl_divergence", "linear_kl_divergence"])
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_kn5_mixed_dtypes_meet_in_the_wider(op, other):
    torch.manual_seed(0)
    (a, b), ids = inputs(op, (3, 4))
    narrow = b.to(other)
    expected = run(op, [a.double(), narrow.double()], ids)
    got = run(op, [a, narrow], ids)
    assert got.dtype == (torch.float64 if other == torch.float64 else torch.float32)
    close(got.double(), expected)
    for gradient, tensor in zip(gradients(op, [a, narrow], ids), (a, narrow)):
        assert gradient.dtype == tensor.dtype


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int64], ids=str)
def test_kn7_offsets_of_any_integer_type(dtype):
    rewards, values, offsets = torch.randn(9), torch.randn(9), torch.tensor([0, 4, 4, 9])
    assert torch.equal(gae(rewards, values, offsets=offsets.to(dtype))[0], gae(rewards, values, offsets=offsets)[0])


@pytest.mark.parametrize("offsets", [[0, -1, 9], [0, 2**40, 9], [-3, 9], [1, 9], [0, 8], [0, 5, 3, 9]], ids=str)
def test_kn7_offsets_outside_are_refused_and_read_nothing(offsets):
    with pytest.raises(ValueError, match="gae: offsets must"):
        gae(torch.randn(9), torch.randn(9), offsets=torch.tensor(offsets))


@pytest.mark.parametrize("bad", [2**31, 2**31 + 3, -(2**31), 2**62, -101, -99, V], ids=str)
def test_kn8_ids_far_outside_are_refused(bad):
    ids = torch.tensor([0, bad])
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {bad}"):
        token_stats(torch.randn(2, V), ids)
    with pytest.raises(ValueError, match=rf"token_ids\[1\] is {bad}"):
        linear_token_stats(torch.randn(2, WIDTH), WEIGHT, ids)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_kn10_what_is_left_out_may_hold_anything(bad):
    torch.manual_seed(0)
    ids = torch.randint(V, (5,))
    ids[2] = -100
    for make, function in (
        (lambda: torch.randn(5, V), lambda x: token_stats(x, ids).logprobs),
        (lambda: torch.randn(5, WIDTH), lambda h: linear_token_stats(h, WEIGHT, ids).logprobs),
    ):
        leaf = make()
        clean = function(leaf)
        leaf[2] = bad
        leaf.requires_grad_()
        out = function(leaf)
        close(out, clean)
        out.sum().backward()
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[2] == 0).all()
    rewards, values, mask = torch.randn(2, 9), torch.randn(2, 9), torch.ones(2, 9, dtype=torch.bool)
    mask[1, 3:6] = False
    clean = gae(rewards, values, mask=mask)
    rewards[1, 3:6] = values[1, 3:6] = bad
    assert all(torch.equal(a, b) for a, b in zip(gae(rewards, values, mask=mask), clean))


@every_op
def test_kn11_nan_is_not_hidden_and_stays_in_its_row(op):
    torch.manual_seed(0)
    tensors, ids = inputs(op, (4,))
    clean = run(op, tensors, ids)
    dirty = [t.clone() for t in tensors]
    dirty[0][2] = torch.nan
    out = run(op, dirty, ids)
    rows = -2 if op == "gae" else -1
    assert out.select(rows, 2).isnan().all()
    others = torch.tensor([0, 1, 3])
    assert torch.equal(out.index_select(rows, others), clean.index_select(rows, others))


@pytest.mark.parametrize("length", [1, 2, 127, 1021, 65_537])
def test_kn14_lengths_that_divide_by_nothing(length, implementation):
    if implementation == "reference":
        pytest.skip("does not apply: it is what the others are compared with")
    torch.manual_seed(0)
    ids = torch.randint(length, (1,))
    logits, ref = torch.randn(2, 1, length)
    weight = torch.randn(length, WIDTH)
    hidden = torch.randn(1, WIDTH)
    calls = (
        lambda: all_stats(token_stats(logits, ids, want=WANT)),
        lambda: kl_divergence(logits, ref),
        lambda: kl_estimate(logits[0], ref[0]),
        lambda: all_stats(linear_token_stats(hidden, weight, ids, want=WANT)),
        lambda: linear_kl_divergence(hidden, weight, hidden + 1, weight),
    )
    for call in calls:
        ours = call()
        with backend("reference"):
            close(ours, call(), 3e-5)
    if length < 10_000:
        ours = gae(logits, ref)
        with backend("reference"):
            close(torch.stack(ours), torch.stack(gae(logits, ref)), 3e-5)


def test_kn14_one_long_row_of_steps(implementation):
    """65 537 steps of reward 1: with gamma = lambda = 1 and no values the advantage counts the steps that are left."""
    if implementation == "reference":
        pytest.skip("does not apply: a loop of seconds")
    advantages, _ = gae(torch.ones(1, 65_537), torch.zeros(1, 65_537), gamma=1.0, lam=1.0)
    assert torch.equal(advantages[0], torch.arange(65_537, 0, -1, dtype=torch.float32))


@every_op
def test_kn16_a_graph_may_be_kept_and_walked_twice(op):
    torch.manual_seed(0)
    tensors, ids = inputs(op, (3,))
    leaves = [t.requires_grad_() for t in tensors]
    out = run(op, leaves, ids)
    if op == "gae":
        assert not out.requires_grad
        return
    first = torch.autograd.grad(out.sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(out.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    with torch.inference_mode():
        assert not run(op, [t.detach() for t in leaves], ids).requires_grad


@every_op
def test_kn17_autocast_and_deterministic_mode_change_no_bit(op):
    torch.manual_seed(0)
    tensors, ids = inputs(op, (3,))
    expected, expected_grads = run(op, tensors, ids), gradients(op, tensors, ids)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got, grads = run(op, tensors, ids), gradients(op, tensors, ids)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(got, expected)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads))


@pytest.mark.parametrize("value", [-0.1, 1.0001, float("nan"), float("inf"), "0.9", None, torch.tensor(0.9)], ids=str)
@pytest.mark.parametrize("name", ["gamma", "lam"])
def test_kn19_discounts_outside_their_range(name, value):
    with pytest.raises(ValueError, match=f"gae: {name} is "):
        gae(torch.randn(2, 3), torch.randn(2, 3), **{name: value})


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "1", torch.tensor(1.0)], ids=str)
def test_kn19_temperatures_outside_their_range(value):
    x, ids = torch.randn(2, V), torch.tensor([0, 1])
    for call in (
        lambda: token_stats(x, ids, temperature=value),
        lambda: linear_token_stats(torch.randn(2, WIDTH), WEIGHT, ids, temperature=value),
        lambda: kl_divergence(x, x, temperature=value),
    ):
        with pytest.raises(ValueError, match="temperature is "):
            call()


@every_op
def test_kn23_thread_counts_agree(op, implementation):
    """Bit for bit, but where torch itself multiplies: there within its own rounding."""
    if implementation == "reference":
        pytest.skip("does not apply: plain torch")
    torch.manual_seed(0)
    tensors, ids = inputs(op, (1500,))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 8):
            torch.set_num_threads(threads)
            results.append([run(op, tensors, ids), *gradients(op, tensors, ids)])
    finally:
        torch.set_num_threads(before)
    own = not op.startswith("linear") or native.module.has_product(0)
    for other in results[1:]:
        for a, b in zip(results[0], other):
            assert torch.equal(a, b) if own else torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_kn22_eight_processes_import_at_once(implementation):
    if implementation != "reference":
        pytest.skip("does not apply: once is enough")
    code = "from hookline.kernels import build_info; print(build_info()['kernels'])"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(8)
    ]
    said = {child.communicate(timeout=120)[0].strip() for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(said) == 1
