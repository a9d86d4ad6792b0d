"""The CUDA kernels against float64: on an emulated GPU everywhere, and on a real one where there is one (`-m gpu`).

On the emulated one the kernels' sources run as they are, thread by thread (see `cuda_emulation`).
"""

from __future__ import annotations

import math

import cuda_emulation
import kernels_oracle as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from hookline.kernels import (
    STATISTICS,
    cuda,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    reference,
    token_stats,
)

DIFFERENTIABLE = STATISTICS[:4]
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(scope="module", params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    """Where tensors go; on either, the CUDA kernels answer."""
    if request.param == "cuda":
        cuda_emulation.need_gpu()
        yield torch.device("cuda")
        assert not cuda.distrusted()
    else:
        with cuda_emulation.emulated():
            yield torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def seeded(device, monkeypatch):
    """`seeded(n)`: threads and blocks take turns in another order from now on, where that can be chosen."""
    return lambda seed: monkeypatch.setenv("HOOKLINE_EMULATOR_SEED", str(seed))


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(
        actual.double().cpu(), expected.double().cpu(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def gradients(function, leaves, upstream):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    (function(*leaves) * upstream).sum().backward()
    return [leaf.grad for leaf in leaves]


def check_token_stats(logits, ids, tolerance=1e-5, **options):
    """Every statistic and every gradient, against the oracle."""
    expected = oracle.token_stats(logits, ids, **options)
    stats = token_stats(logits, ids, want=STATISTICS, **options)
    for name in STATISTICS:
        assert stats[name].dtype == torch.float32
        close(stats[name], expected[name], tolerance)
    upstream = torch.randn(ids.shape).to(logits.device)
    for name in DIFFERENTIABLE:
        (got,) = gradients(lambda x, n=name: token_stats(x, ids, want=(n,), **options)[n], [logits], upstream)
        (want,) = gradients(lambda x, n=name: oracle.token_stats(x, ids, **options)[n], [logits.double()], upstream)
        assert got.dtype == logits.dtype
        close(got, want, max(tolerance, ROUNDING[logits.dtype]))


# ------------------------------------------------------------------------------------------------- token statistics


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("vocabulary", [1, 7, 8, 9, 33, 257, 1031, 2311])
def test_every_statistic_and_its_gradient(device, dtype, vocabulary):
    logits = (3 * torch.randn(2, 3, vocabulary)).to(device, dtype)
    check_token_stats(logits, torch.randint(vocabulary, (2, 3)).to(device))


@pytest.mark.parametrize("options", [{"softcap": 5.0, "temperature": 0.7}, {"temperature": 100.0}], ids=str)
@pytest.mark.parametrize("vocabulary", [40, 2000])
def test_temperature_and_softcap(device, vocabulary, options):
    logits = (3 * torch.randn(3, vocabulary)).to(device, torch.bfloat16)
    check_token_stats(logits, torch.randint(vocabulary, (3,)).to(device), **options)


def test_a_temperature_near_greed(device):
    logits = torch.randint(-40, 40, (3, 200)).to(device) / 8.0
    ids = logits.argmax(-1)
    stats = token_stats(logits, ids, want=STATISTICS, temperature=0.01)
    for name, value in oracle.token_stats(logits, ids, temperature=0.01).items():
        close(stats[name], value)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("offset", [1, 2, 3, 4, 5, 7, 8])
def test_a_gradient_that_lies_otherwise_than_its_logits(device, dtype, offset):
    leaf = torch.randn(2, 80).to(device, dtype)[:, offset : offset + 67].requires_grad_()
    ids, upstream = torch.tensor([0, 66]).to(device), torch.tensor([1.0, 2.0]).to(device)
    (got,) = torch.autograd.grad((token_stats(leaf, ids).logprobs * upstream).sum(), leaf)
    (want,) = gradients(lambda x: oracle.token_stats(x, ids)["logprobs"], [leaf.double()], upstream)
    close(got, want, ROUNDING[dtype])


@given(data=st.data())
def test_any_shape_and_stride(device, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    vocabulary = data.draw(st.one_of(st.integers(1, 70), st.integers(1025, 1060)))
    dtype = data.draw(st.sampled_from(FLOATS))
    full = torch.randn(*[n + 1 for n in shape], vocabulary + 2, generator=generator).to(device, dtype)
    logits = full[tuple(slice(1, None) for _ in shape)][..., 1 : vocabulary + 1]
    if shape and data.draw(st.booleans()):
        logits = logits.transpose(0, -1).contiguous().transpose(0, -1)  # last dimension not dense
    ids = torch.randint(vocabulary, shape, generator=generator)
    ids = torch.where(torch.rand(shape, generator=generator) < 0.2, -100, ids).to(device)
    ids = torch.stack([ids, ids], -1)[..., 0]  # every second number in memory
    stats = token_stats(logits, ids, want=STATISTICS)
    for name, value in oracle.token_stats(logits, ids).items():
        assert stats[name].shape == ids.shape
        close(stats[name], value)


@pytest.mark.parametrize("vocabulary", [1009, 4096])
def test_a_first_half_of_minus_infinity(device, vocabulary):
    logits = torch.randn(3, vocabulary).to(device)
    logits[:, : vocabulary // 2] = -math.inf
    ids = torch.tensor([vocabulary // 2, vocabulary - 2, vocabulary - 1]).to(device)
    stats = token_stats(logits, ids, want=STATISTICS)
    for name, value in oracle.token_stats(logits, ids).items():
        close(stats[name], value)
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.ones(3).to(device))
    assert (grad[:, : vocabulary // 2] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("vocabulary", [100, 3000])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("softcap", [None, 10.0])
def test_nan_and_infinity_stay_in_their_row(device, vocabulary, bad, softcap):
    logits, ids = torch.randn(3, vocabulary).to(device), torch.tensor([1, 2, 3]).to(device)
    logits[1, 77] = bad
    stats = token_stats(logits, ids, want=STATISTICS, softcap=softcap)
    for name in DIFFERENTIABLE:
        assert stats[name][1].isnan() or name == "logsumexp", name
        assert stats[name][[0, 2]].isfinite().all()
    (grad,) = gradients(lambda x: token_stats(x, ids, softcap=softcap).logprobs, [logits], torch.ones(3).to(device))
    assert grad[1].isnan().any()
    assert grad[[0, 2]].isfinite().all()


def test_a_row_of_minus_infinity_is_nan_and_alone(device):
    logits = torch.randn(3, 100).to(device)
    logits[1] = -math.inf
    stats = token_stats(logits, torch.zeros(3, dtype=torch.long).to(device), want=STATISTICS)
    for name in ("logprobs", "entropy", "top_p_mass", "rank"):
        assert stats[name].isnan().tolist() == [False, True, False], name
    assert stats.logsumexp[1] == -math.inf


def test_a_token_that_cannot_be_drawn(device):
    logits = torch.randn(1, 20).to(device)
    logits[0, 7] = -math.inf
    ids = torch.tensor([7]).to(device)
    stats = token_stats(logits, ids, want=STATISTICS)
    assert stats.logprobs.item() == -math.inf
    assert stats.rank.item() == 19
    assert stats.top_p_mass.item() == pytest.approx(1)
    assert stats.entropy.isfinite().all()
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.ones(1).to(device))
    assert grad[0, 7] == 0


@pytest.mark.parametrize("vocabulary", [333, 2000])
@pytest.mark.parametrize("offset", [-1e4, -500.0, 1e4, 3e38])
def test_a_common_offset_changes_nothing(device, vocabulary, offset):
    logits = torch.randint(-40, 40, (3, vocabulary)) / 8.0 if abs(offset) < 1e5 else torch.zeros(3, vocabulary)
    logits, ids = logits.to(device), torch.randint(vocabulary, (3,)).to(device)
    plain, moved = (token_stats(x, ids, want=("logprobs", "entropy")) for x in (logits, logits + offset))
    close(moved.logprobs, plain.logprobs, 1e-6)
    close(moved.entropy, plain.entropy, 1e-6)
    grads = [
        gradients(lambda x: token_stats(x, ids).logprobs, [x], torch.ones(3).to(device))[0]
        for x in (logits, logits + offset)
    ]
    close(*grads, 1e-6)


@pytest.mark.parametrize("gap", [9.0, 15.0, 25.0])
def test_a_confident_token_keeps_the_digits_of_one_minus_p(device, gap):
    logits, ids = torch.zeros(1, 5000).to(device), torch.tensor([4321]).to(device)
    logits[0, 4321] = gap + math.log(5000)
    rest = 4999 * math.exp(-gap) / 5000
    assert token_stats(logits, ids).logprobs.item() == pytest.approx(-math.log1p(rest), rel=1e-4)
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.ones(1).to(device))
    assert grad[0, 4321].item() == pytest.approx(rest / (1 + rest), rel=1e-4)


def test_left_out_tokens_are_zero_whatever_their_logits_hold(device):
    logits = torch.randn(3, 2000).to(device)
    logits[1] = math.nan
    ids = torch.tensor([5, -100, 6]).to(device)
    stats = token_stats(logits, ids, want=STATISTICS)
    assert all(stats[name][1] == 0 for name in STATISTICS)
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.ones(3).to(device))
    assert (grad[1] == 0).all()
    assert grad.isfinite().all()


def test_a_gradient_that_nobody_asks_for_is_zero_and_a_nan_stays_in_its_row(device):
    logits, ids = torch.randn(3, 1500).to(device), torch.tensor([1, 2, 3]).to(device)
    logits[0, 700] = math.nan
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.tensor([0.0, math.nan, 2.0]).to(device))
    assert (grad[0] == 0).all()
    assert grad[1].isnan().all()
    assert grad[2].isfinite().all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_in_place_gradients_touch_nothing_around_them(device, dtype):
    frame = torch.randn(4, 5, 1100).to(device, dtype)
    ids = torch.randint(1090, (2, 4)).to(device)
    (expected,) = gradients(
        lambda x: token_stats(x, ids).logprobs, [frame[1:3, :-1, 3:-7]], torch.ones(2, 4).to(device)
    )
    leaf = frame.clone()
    view = leaf[1:3, :-1, 3:-7].detach().requires_grad_()
    token_stats(view, ids, grad="inplace").logprobs.sum().backward()
    close(leaf[1:3, :-1, 3:-7], expected, ROUNDING[dtype])
    leaf[1:3, :-1, 3:-7] = frame[1:3, :-1, 3:-7]
    assert torch.equal(leaf, frame)


def test_no_tokens(device):
    logits, ids = torch.empty(0, 3, 50).to(device), torch.empty(0, 3, dtype=torch.long).to(device)
    assert token_stats(logits, ids).logprobs.shape == (0, 3)
    (grad,) = gradients(lambda x: token_stats(x, ids).logprobs, [logits], torch.empty(0, 3).to(device))
    assert grad.shape == (0, 3, 50)


def test_ids_out_of_range_are_named(device):
    logits, ids = torch.randn(3, 4, 50).to(device), torch.randint(50, (3, 4)).to(device)
    for bad in (50, -1, -101, 2**40):
        ids[2, 1] = bad
        with pytest.raises(ValueError, match=rf"token_ids\[2, 1\] is {bad}, but the vocabulary has 50 tokens"):
            token_stats(logits, ids)
        with pytest.raises(ValueError, match=rf"linear_token_stats: token_ids\[2, 1\] is {bad}"):
            linear_token_stats(torch.randn(3, 4, 2).to(device), torch.randn(50, 2).to(device), ids)


def test_ids_out_of_range_where_nobody_may_wait(device, monkeypatch):
    monkeypatch.setattr(cuda, "capturing", lambda: True)
    logits, ids = torch.randn(3, 50).to(device), torch.tensor([4, 2**40, -7]).to(device)
    good = oracle.token_stats(logits[:1], ids[:1])
    stats = token_stats(logits, ids, want=STATISTICS)
    close(stats.logprobs[:1], good["logprobs"])
    assert all(stats[name][1:].isnan().all() for name in STATISTICS)
    head = linear_token_stats(torch.randn(3, 2).to(device), torch.randn(50, 2).to(device), ids, want=STATISTICS)
    assert head.logprobs.isnan().tolist() == [False, True, True]


def test_the_order_of_threads_changes_no_bit(device, seeded):
    logits, ids = torch.randn(2, 1100).to(device), torch.tensor([0, 1099]).to(device)
    rewards, values, mask = torch.randn(1, 4200).to(device), torch.randn(1, 4200).to(device), torch.rand(1, 4200) < 0.9
    answers = []
    for seed in range(5):
        seeded(seed)
        stats = token_stats(logits, ids, want=STATISTICS)
        divergence = kl_divergence(logits, logits.flip(0))
        answers.append([*(stats[n] for n in STATISTICS), *gae(rewards, values, mask=mask.to(device)), divergence])
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(answers[0], other))


# ----------------------------------------------------------------------------- token statistics from hidden states


class Largest(TorchDispatchMode):
    """The most elements that any tensor had which was made inside."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles, the last of them narrower and lower."""
    monkeypatch.setattr(cuda, "TILE", 160)
    monkeypatch.setattr(cuda, "TILE_ROWS", 4)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("options", [{}, {"softcap": 2.0, "temperature": 0.7}], ids=str)
def test_linear_token_stats_tile_by_tile(device, small_tiles, dtype, options):
    hidden, weight, bias = (torch.randn(*s).to(device, dtype) for s in ((2, 5, 6), (131, 6), (131,)))
    ids = torch.randint(131, (2, 5)).to(device)
    ids[1, 2] = -100

    def expected(h, w, b):
        return oracle.token_stats(h.double() @ w.double().t() + b.double(), ids, **options)

    stats = linear_token_stats(hidden, weight, ids, bias=bias, want=STATISTICS, **options)
    for name, value in expected(hidden, weight, bias).items():
        close(stats[name], value, 2e-5)
    upstream = torch.randn(2, 5).to(device)
    for name in DIFFERENTIABLE:
        leaves = [hidden, weight, bias]
        got = gradients(
            lambda h, w, b, n=name: linear_token_stats(h, w, ids, bias=b, want=(n,), **options)[n], leaves, upstream
        )
        want = gradients(lambda h, w, b, n=name: expected(h, w, b)[n], [leaf.double() for leaf in leaves], upstream)
        for a, b in zip(got, want):
            assert a.dtype == dtype
            close(a / b.abs().max(), b / b.abs().max(), ROUNDING[dtype])


def test_no_path_holds_all_logits(device, small_tiles):
    hidden, weight = torch.randn(16, 3).to(device).requires_grad_(), torch.randn(240, 3).to(device).requires_grad_()
    with Largest() as largest:
        linear_token_stats(hidden, weight, torch.randint(240, (16,)).to(device)).logprobs.sum().backward()
        linear_kl_divergence(hidden, weight, hidden.detach(), weight.detach()).sum().backward()
    assert largest.elements <= 720  # the weight; all logits would be 3840


def test_a_frozen_head_costs_no_third_product(device, monkeypatch):
    products = []
    original = cuda.product

    def counted(a, b, out):
        products.append(tuple(out.shape))
        return original(a, b, out)

    monkeypatch.setattr(cuda, "product", counted)
    hidden, weight = torch.randn(5, 3).to(device).requires_grad_(), torch.randn(60, 3).to(device)
    linear_token_stats(hidden, weight, torch.arange(5).to(device)).logprobs.sum().backward()
    assert products == [(5, 60), (5, 60), (5, 3)]
    assert weight.grad is None


def test_small_gradients_survive_a_float16_head(device):
    hidden, weight = torch.randn(4, 8).to(device, torch.float16), torch.randn(300, 8).to(device, torch.float16)
    ids = torch.arange(4).to(device)
    upstream = torch.full((4,), 1e-3).to(device)
    (small,) = gradients(lambda h: linear_token_stats(h, weight, ids).logprobs, [hidden], upstream / 100)
    want = gradients(
        lambda h: oracle.token_stats(h @ weight.double().t(), ids)["logprobs"], [hidden.double()], upstream / 100
    )[0]
    close(small / want.abs().max(), want / want.abs().max(), 2e-2)


# --------------------------------------------------------------------------------------------------------------- GAE


def check_gae(rewards, values, mask, gamma, lam, bootstrap=None, tolerance=2e-5):
    got = gae(rewards, values, mask=mask, gamma=gamma, lam=lam, bootstrap=bootstrap)
    counts = torch.ones_like(rewards, dtype=torch.bool) if mask is None else mask
    for i in range(len(rewards)):
        start = 0.0 if bootstrap is None else float(bootstrap[i])
        row = (rewards[i].double().tolist(), values[i].double().tolist(), counts[i].tolist())
        for ours, theirs in zip(got, oracle.gae(*row, gamma, lam, start)):
            assert ours.dtype == torch.float32
            close(ours[i], torch.tensor(theirs), tolerance)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 127, 128, 129, 300, 5000])
@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.95), (1.0, 0.0), (0.0, 1.0)])
def test_gae_is_the_recurrence(device, steps, gamma, lam):
    rows = 2 if steps > 1000 else 9
    rewards, values, bootstrap = torch.randn(rows, steps), torch.randn(rows, steps), torch.randn(rows)
    mask = torch.rand(rows, steps) < torch.linspace(0, 1, rows).unsqueeze(-1)  # from none to all
    rewards[~mask], values[~mask] = math.nan, math.inf
    check_gae(rewards.to(device), values.to(device), mask.to(device), gamma, lam, bootstrap.to(device))


def test_gae_undiscounted_is_the_sum_of_later_rewards(device):
    rewards, values = torch.randn(3, 700).to(device), torch.randn(3, 700).to(device)
    _, returns = gae(rewards, values, gamma=1.0, lam=1.0)
    close(returns, rewards.double().flip(1).cumsum(1).flip(1), 2e-4)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_gae_of_strided_rows(device, dtype):
    full = torch.randn(4, 3, 150).to(device, dtype)
    rewards, values = full[:3, :2, 1:140], full[1:, 1:, 11:150]
    mask = (torch.rand(3, 2, 300) < 0.8).to(device)[..., ::2][..., :139]
    advantages, returns = gae(rewards, values, mask=mask, gamma=0.9)
    flat = [t.reshape(6, 139).contiguous() for t in (rewards, values, mask)]
    assert torch.equal(advantages.reshape(6, 139), gae(*flat[:2], mask=flat[2], gamma=0.9)[0])
    close(returns, advantages + values.float() * mask, 1e-6)


def test_gae_packed_equals_its_rows(device):
    lengths = [0, 1, 700, 0, 33, 128, 0]
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(device)
    n = sum(lengths)
    rewards, values = torch.randn(n).to(device), torch.randn(n).to(device)
    mask, start = (torch.rand(n) < 0.8).to(device), torch.randn(len(lengths)).to(device)
    packed = gae(rewards, values, mask=mask, gamma=0.97, lam=0.9, bootstrap=start, offsets=offsets)
    for i, length in enumerate(lengths):
        cut = slice(int(offsets[i]), int(offsets[i + 1]))
        if length:
            row = oracle.gae(
                rewards[cut].tolist(), values[cut].tolist(), mask[cut].tolist(), 0.97, 0.9, float(start[i])
            )
            for ours, theirs in zip(packed, row):
                close(ours[cut], torch.tensor(theirs), 2e-5)


def test_gae_offsets_out_of_order(device, monkeypatch):
    rewards = torch.ones(10).to(device)
    for bad in ([0, 7, 3, 10], [0, 5], [1, 10], [0, 20]):
        offsets = torch.tensor(bad).to(device)
        with pytest.raises(ValueError, match="gae: offsets must"):
            gae(rewards, rewards, offsets=offsets)
        with monkeypatch.context() as inside:  # where nobody may wait they still lead nowhere else
            inside.setattr(cuda, "capturing", lambda: True)
            gae(rewards, rewards, offsets=offsets)
            assert torch.equal(rewards, torch.ones(10).to(device))


# ---------------------------------------------------------------------------------------------------------------- KL


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_kl_estimates_and_their_gradients(device, dtype):
    logprobs = (-torch.rand(3, 301)).to(device, dtype)
    ref = (logprobs.double() + torch.logspace(-4, 0.9, 301).to(device) * torch.randn(3, 301).sign().to(device)).to(
        dtype
    )
    names = ("k1", "k2", "k3")

    def expected(a, b):
        r = b.double() - a.double()
        return torch.stack([-r, r.square() / 2, torch.expm1(r) - r])

    got = torch.stack(kl_estimate(logprobs, ref, estimator=names))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), expected(logprobs, ref), rtol=1e-5, atol=0)
    upstream = torch.randn(3, 3, 301).to(device)
    ours = gradients(lambda a, b: torch.stack(kl_estimate(a, b, estimator=names)), [logprobs, ref], upstream)
    theirs = gradients(expected, [logprobs.double(), ref.double()], upstream)
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a.double(), b, rtol=ROUNDING[dtype], atol=1e-4 * b.abs().max().item())
    assert kl_estimate(torch.tensor([-80.0]).to(device), torch.tensor([10.0]).to(device)).item() == math.inf


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("vocabulary", [1, 9, 129, 2311])
def test_kl_divergence_and_its_gradients(device, dtype, vocabulary):
    p, q = (2 * torch.randn(2, 2, 3, vocabulary)).to(device, dtype)[..., 1:, :].unbind(0)
    got = kl_divergence(p, q, temperature=0.8)
    close(got, oracle.kl(p, q, 0.8), 2e-5)
    upstream = torch.randn(2, 2).to(device)
    ours = gradients(lambda a, b: kl_divergence(a, b, temperature=0.8), [p, q], upstream)
    theirs = gradients(lambda a, b: oracle.kl(a, b, 0.8), [p.double(), q.double()], upstream)
    for a, b in zip(ours, theirs):
        close(a, b, ROUNDING[dtype])


def test_kl_divergence_of_strange_rows(device):
    p, q = torch.randn(6, 2000).to(device), torch.randn(6, 2000).to(device)
    p[0, :1000] = -math.inf
    q[0, :500] = -math.inf  # inside what p cannot draw: finite
    p[0, 1500::7] = -math.inf  # and where a thread knows others already
    q[0, 1500::14] = -math.inf
    q[1, 1999] = -math.inf  # p draws what q cannot
    p[2, 5] = math.nan
    q[3, 5] = math.inf
    p[4] = q[4]
    q[5] = p[5] - 1e4
    value = kl_divergence(p, q)
    close(value[0], oracle.kl(p[:1], q[:1])[0])
    assert value[1] == math.inf
    assert value[2].isnan()
    assert value[3].isnan()
    assert value[4] == 0
    assert abs(value[5].item()) < 1e-3  # q has lost digits to its offset


@pytest.mark.parametrize("aligned", [True, False])
def test_kl_gradients_to_one_side_only(device, aligned):
    p, q = torch.randn(3, 1037).to(device), torch.randn(3, 1040).to(device)[:, 0 if aligned else 3 :][:, :1037]
    for needs in ((True, False), (False, True)):
        leaves = [x.detach().clone() if aligned else x.detach() for x in (p, q)]
        for leaf, need in zip(leaves, needs):
            leaf.requires_grad_(need)
        kl_divergence(*leaves).sum().backward()
        both = gradients(oracle.kl, [p.double(), q.double()], torch.ones(3).to(device))
        for leaf, need, expected in zip(leaves, needs, both):
            assert (leaf.grad is not None) == need
            if need:
                close(leaf.grad, expected)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_linear_kl_divergence_tile_by_tile(device, small_tiles, dtype):
    shapes = ((7, 6), (131, 6), (131,), (7, 4), (131, 4))
    h, w, b, ref_h, ref_w = (torch.randn(*s).to(device, dtype) for s in shapes)

    def ours(h, w, b, ref_h, ref_w):
        return linear_kl_divergence(h, w, ref_h, ref_w, bias=b, temperature=1.3)

    def theirs(h, w, b, ref_h, ref_w):
        return oracle.kl(h @ w.t() + b, ref_h @ ref_w.t(), 1.3)

    leaves = [h, w, b, ref_h, ref_w]
    wide = [leaf.double() for leaf in leaves]
    close(ours(*leaves), theirs(*wide), 5e-5)
    upstream = torch.randn(7).to(device)
    for a, b in zip(gradients(ours, leaves, upstream), gradients(theirs, wide, upstream)):
        assert a.dtype == dtype
        close(a / b.abs().max(), b / b.abs().max(), ROUNDING[dtype])


# --------------------------------------------------------------------------------------------------- the safety net


@pytest.mark.parametrize("op", cuda._QUESTIONS)
def test_each_op_agrees_with_the_reference_when_first_asked(device, op):
    assert cuda._compare(op, device) == ""


@pytest.mark.parametrize("op", cuda._QUESTIONS)
@pytest.mark.parametrize("half", ["", "_backward"])
def test_a_kernel_that_differs_is_left_to_the_reference(device, monkeypatch, op, half):
    if op + half == "gae_backward":
        pytest.skip("does not apply: gae has no gradient")
    original = getattr(cuda, op + half)

    def slightly_wrong(*args):
        out = original(*args)
        (out if isinstance(out, torch.Tensor) else out[0]).mul_(1.02)
        return out

    monkeypatch.setattr(cuda, "_differs", {})
    monkeypatch.setattr(cuda, op + half, slightly_wrong)
    with pytest.warns(RuntimeWarning, match=rf"the CUDA kernel of {op} differs from the reference on this GPU by"):
        assert cuda.trusted(op, device) is reference
    assert cuda.trusted(op, device) is reference  # and says so once
    assert list(cuda.distrusted()) == [op]


def test_a_kernel_that_fails_is_left_to_the_reference(device, monkeypatch):
    def fails(*args):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(cuda, "_differs", {})
    monkeypatch.setattr(cuda, "gae", fails)
    with pytest.warns(RuntimeWarning, match=r"gae failed on this GPU \(RuntimeError: no kernel image is available\)"):
        assert cuda.trusted("gae", device) is reference


def test_nothing_is_compared_while_a_graph_is_captured(device, monkeypatch):
    monkeypatch.setattr(cuda, "_differs", {})
    monkeypatch.setattr(cuda, "capturing", lambda: True)
    monkeypatch.setattr(cuda, "_compare", None)
    assert cuda.trusted("gae", device) is cuda
    assert cuda._differs == {}


def test_the_comparison_leaves_the_random_state_alone(device):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    cuda._compare("token_stats", device)
    assert torch.equal(torch.rand(3), expected)
