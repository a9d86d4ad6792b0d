"""The ops that never hold a head's logits, against the ones that do."""

from __future__ import annotations

import kernels_oracle as oracle
import pytest
import torch

import hookline.kernels
import hookline.kernels.kept
from hookline.kernels import STATISTICS, cpu, linear_kl_divergence, linear_token_stats, reference, token_stats

DIFFERENTIABLE = STATISTICS[:4]
pytestmark = pytest.mark.usefixtures("implementation", "small_tiles")


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles so small that ten of them make a test."""
    monkeypatch.setattr(cpu, "TILE", 1 << 10)
    monkeypatch.setattr(cpu, "LEAST_WIDTH", 64)
    monkeypatch.setattr(cpu, "TILE_ROWS", 8)
    monkeypatch.setattr(reference, "TILE", 3000)


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def make(dtype=torch.float32, tokens=(4, 5), width=24, vocabulary=701):
    hidden, weight = torch.randn(*tokens, width), torch.randn(vocabulary, width) / width**0.5
    return hidden.to(dtype), weight.to(dtype), torch.randn(vocabulary).to(dtype), torch.randint(vocabulary, tokens)


def leaves(*tensors, dtype=None):
    return [t.detach().to(dtype or t.dtype).clone().requires_grad_() for t in tensors]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("with_bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("supported", [True, False], ids=["support", "all"])
@pytest.mark.parametrize("options", [{}, {"temperature": 0.6, "softcap": 4.0}], ids=str)
def test_statistics_and_gradients(dtype, with_bias, supported, options):
    hidden, weight, bias, ids = make(dtype)
    keep = torch.rand(4, 5, len(weight)) < 0.3
    keep.scatter_(-1, ids.unsqueeze(-1), True)
    ids[1, 2] = -100
    upstream = torch.randn(4, 4, 5)

    ours = leaves(hidden, weight, bias)
    support = oracle.ragged(keep) if supported else None
    stats = linear_token_stats(
        ours[0], ours[1], ids, bias=ours[2] if with_bias else None, support=support, want=STATISTICS, **options
    )
    sum((stats[name] * up).sum() for name, up in zip(DIFFERENTIABLE, upstream)).backward()

    theirs = leaves(hidden, weight, bias, dtype=torch.float64)
    logits = theirs[0] @ theirs[1].T + (theirs[2] if with_bias else 0)
    expected = oracle.token_stats(logits, ids, keep=keep if supported else None, **options)
    sum((expected[name] * up).sum() for name, up in zip(DIFFERENTIABLE, upstream)).backward()

    for name in STATISTICS:
        assert stats[name].dtype == torch.float32
        close(stats[name], expected[name])
    tolerance = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    for got, want in zip(ours[: 2 + with_bias], theirs):
        assert got.grad.dtype == dtype
        close(got.grad, want.grad, tolerance)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6, "softcap": 4.0}, {"support": True}], ids=str)
@pytest.mark.parametrize("tokens", [1, 7, 19, 20, 21], ids="{} kept".format)
def test_logits_that_are_kept_give_what_tiles_give(monkeypatch, options, tokens):
    monkeypatch.setattr(cpu, "torch_multiplies_as_fast", lambda: True)
    hidden, weight, bias, ids = make()
    ids[0, 1] = -100
    if options.get("support"):
        offsets = torch.arange(21) * 3
        options = {"support": (torch.stack([ids.flatten().clamp(0, 698) + i for i in range(3)], 1).flatten(), offsets)}
        ids = ids.clamp(max=698)
    found = []
    for most in (0, tokens * 701 * 4):
        monkeypatch.setattr(hookline.kernels.kept, "MOST", most)
        ours = leaves(hidden, weight, bias)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            stats = linear_token_stats(ours[0], ours[1], ids, bias=ours[2], want=("logprobs", "entropy", "rank"), **options)
        assert not stats.rank.requires_grad
        (stats.logprobs * 2 + stats.entropy).nan_to_num(posinf=0, neginf=0).sum().backward()
        found.append([stats.logprobs, stats.entropy, stats.rank, *(leaf.grad for leaf in ours)])
    for tiles, kept in zip(*found):
        close(kept, tiles, 1e-4)


def test_logits_are_kept_only_for_a_backward_pass_and_up_to_the_limit(monkeypatch):
    monkeypatch.setattr(cpu, "torch_multiplies_as_fast", lambda: True)
    hidden, weight, _, ids = make()
    monkeypatch.setattr(hookline.kernels.kept, "MOST", 7 * 701 * 4 + 3)
    rows = []
    linear = torch.nn.functional.linear
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, *given: rows.append(len(x)) or linear(x, *given))
    monkeypatch.setattr(hookline.kernels.kept, "AT_ONCE", 20 * 701 * 4 - 1)
    linear_token_stats(hidden, weight, ids)
    assert not rows, "tiles where no gradient is wanted"
    ours = leaves(hidden, weight)
    linear_token_stats(*ours, ids)
    assert rows == [7], "as many as fit"
    frozen = leaves(hidden, weight)
    frozen[1].requires_grad_(False)
    linear_token_stats(*frozen, ids).logprobs.sum().backward()
    linear_token_stats(*ours, ids).logprobs.sum().backward()
    assert frozen[1].grad is None
    close(frozen[0].grad, ours[0].grad)
    monkeypatch.setattr(hookline.kernels.kept, "MOST", 701 * 4 - 1)
    linear_token_stats(*ours, ids)
    assert rows == [7, 7, 7], "not one fits"
    monkeypatch.setattr(hookline.kernels.kept, "MOST", 1 << 20)
    monkeypatch.setattr(hookline.kernels.kept, "AT_ONCE", 20 * 701 * 4)
    tiles = linear_token_stats(hidden.double(), weight.double(), ids).logprobs
    close(linear_token_stats(hidden, weight, ids).logprobs, tiles)
    assert rows[3:] == [20], "one product of what a cache holds"
    with pytest.raises(ValueError, match=r"linear_token_stats: .*701"):
        linear_token_stats(*ours, torch.full_like(ids, 701))
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(linear_token_stats(*ours, ids).logprobs.sum(), ours, create_graph=True)[0].sum().backward()


def test_bfloat16_products_keep_float32_up_to_the_softmax():
    hidden, weight, _, ids = make(torch.bfloat16, tokens=(64,), width=512, vocabulary=1500)
    got = linear_token_stats(hidden, weight, ids).logprobs
    expected = oracle.token_stats(hidden.double() @ weight.double().T, ids)["logprobs"]
    assert (got - expected).abs().mean() <= 1e-4
    rounded = token_stats(hidden @ weight.T, ids).logprobs  # what a bfloat16 logits tensor costs
    assert (rounded - expected).abs().mean() > 1e-3


def test_weight_gradients_add_up_in_float32():
    """300 blocks of rows push the same way: in bfloat16 the sum would stop growing at 256 of them."""
    hidden, weight, _, ids = make(torch.bfloat16, tokens=(2400,), width=8, vocabulary=40)
    ours, theirs = leaves(hidden.abs(), weight), leaves(hidden.abs(), weight, dtype=torch.float64)
    linear_token_stats(*ours, ids.clamp(max=20)).logprobs.sum().backward()
    oracle.token_stats(theirs[0] @ theirs[1].T, ids.clamp(max=20))["logprobs"].sum().backward()
    close(ours[1].grad[21:], theirs[1].grad[21:], 2.0**-8)  # tokens never drawn: every term is negative


def test_only_the_gradients_that_are_needed():
    hidden, weight, bias, ids = make()
    for frozen in (0, 1, 2):
        tensors = leaves(hidden, weight, bias)
        tensors[frozen].requires_grad_(False)
        linear_token_stats(tensors[0], tensors[1], ids, bias=tensors[2]).logprobs.sum().backward()
        assert [t.grad is None for t in tensors] == [i == frozen for i in range(3)]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3, 2)], ids=str)
def test_any_leading_shape(shape):
    hidden, weight, bias, ids = make(tokens=shape)
    tensors = leaves(hidden, weight, bias)
    stats = linear_token_stats(tensors[0], tensors[1], ids, bias=tensors[2], want=STATISTICS)
    for name, value in oracle.token_stats((hidden.double() @ weight.double().T) + bias, ids).items():
        assert stats[name].shape == shape
        close(stats[name], value)
    stats.logprobs.sum().backward()
    assert tensors[0].grad.shape == hidden.shape


def test_strides():
    hidden, weight, bias, ids = make()
    expected = linear_token_stats(hidden, weight, ids, bias=bias).logprobs
    odd = linear_token_stats(
        hidden.transpose(0, 2).contiguous().transpose(0, 2),
        weight.T.contiguous().T,
        ids.T.contiguous().T,
        bias=torch.stack([bias, bias], -1)[:, 0],
    ).logprobs
    close(odd, expected)


def test_autocast_changes_nothing():
    hidden, weight, bias, ids = make()
    plain = leaves(hidden, weight, bias)
    linear_token_stats(plain[0], plain[1], ids, bias=plain[2]).logprobs.sum().backward()
    cast = leaves(hidden, weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stats = linear_token_stats(cast[0], cast[1], ids, bias=cast[2])
        stats.logprobs.sum().backward()
    assert stats.logprobs.dtype == torch.float32
    for a, b in zip(plain, cast):
        assert torch.equal(a.grad, b.grad)


def test_mixed_dtypes_meet_in_float32():
    hidden, weight, bias, ids = make()
    stats = linear_token_stats(hidden.bfloat16(), weight, ids, bias=bias.half())
    logits = hidden.bfloat16().double() @ weight.double().T + bias.half().double()
    close(stats.logprobs, oracle.token_stats(logits, ids)["logprobs"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kl_of_two_heads(dtype):
    hidden, weight, bias, _ = make(dtype)
    ref_hidden, ref_weight, ref_bias, _ = make(dtype, width=10)
    tensors = (hidden, weight, ref_hidden, ref_weight, bias, ref_bias)
    ours, theirs = leaves(*tensors), leaves(*tensors, dtype=torch.float64)
    got = linear_kl_divergence(*ours[:4], bias=ours[4], ref_bias=ours[5], temperature=1.4)
    want = oracle.kl(theirs[0] @ theirs[1].T + theirs[4], theirs[2] @ theirs[3].T + theirs[5], 1.4)
    close(got, want)
    upstream = torch.randn(4, 5)
    (got * upstream).sum().backward()
    (want * upstream).sum().backward()
    for a, b in zip(ours, theirs):
        close(a.grad, b.grad, 3e-5 if dtype == torch.float32 else 2e-2)


def test_kl_to_a_frozen_reference():
    hidden, weight, bias, _ = make()
    policy = leaves(hidden, weight)
    linear_kl_divergence(*policy, hidden + 1, weight, ref_bias=bias).sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.any() for t in policy)


def test_kl_to_oneself_is_nothing():
    hidden, weight, _, _ = make()
    assert (linear_kl_divergence(hidden, weight, hidden, weight) == 0).all()


def test_no_logits_in_memory(implementation, monkeypatch, compiled):
    """The peak beyond inputs and gradients stays below a twentieth of the logits."""
    if implementation == "reference":
        pytest.skip("does not apply: the reference's tiles are as large as they like")
    monkeypatch.undo()
    monkeypatch.setattr(hookline.kernels.kept, "MOST", 0)
    hidden, weight, _, ids = make(tokens=(512,), width=64, vocabulary=32_000)
    logits_bytes = 512 * 32_000 * 4
    tensors = leaves(hidden, weight)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        linear_token_stats(*tensors, ids).logprobs.sum().backward()
    live = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    gradients = sum(t.grad.nbytes for t in tensors)
    assert peak - gradients < logits_bytes / 20 + 2 * hidden.nbytes
