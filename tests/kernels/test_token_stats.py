"""token_stats against a float64 oracle, on plain inputs and on the ones that break other people's kernels."""

from __future__ import annotations

import math
import os

import kernels_oracle as oracle
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hookline.kernels import STATISTICS, backend, token_stats

DIFFERENTIABLE = STATISTICS[:4]
GRADIENT_ERROR = {torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 1e-3}
FLOATS = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.usefixtures("implementation")


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def gradient(function, logits, upstream):
    leaf = logits.detach().clone().requires_grad_()
    (function(leaf) * upstream).sum().backward()
    return leaf.grad


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("vocabulary", [1, 15, 16, 17, 129, 1009])
@pytest.mark.parametrize("options", [{}, {"softcap": 5.0, "temperature": 0.7}], ids=str)
def test_every_statistic_and_its_gradient(dtype, vocabulary, options):
    logits, ids = (3 * torch.randn(2, 3, vocabulary)).to(dtype), torch.randint(vocabulary, (2, 3))
    expected = oracle.token_stats(logits, ids, **options)
    actual = token_stats(logits, ids, want=STATISTICS, **options)
    for name in STATISTICS:
        assert actual[name].dtype == torch.float32
        close(actual[name], expected[name])
    upstream = torch.randn(2, 3)
    for name in DIFFERENTIABLE:
        got = gradient(lambda x, n=name: token_stats(x, ids, want=(n,), **options)[n], logits, upstream)
        want = gradient(lambda x, n=name: oracle.token_stats(x, ids, **options)[n], logits.double(), upstream)
        assert got.dtype == dtype
        close(got, want, GRADIENT_ERROR[dtype])


@given(data=st.data())
def test_any_shape_stride_and_support(implementation, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
    vocabulary = data.draw(st.integers(1, 300))
    dtype = data.draw(st.sampled_from(FLOATS))
    scale = data.draw(st.sampled_from([0.01, 1.0, 30.0]))
    full = (scale * torch.randn(*[n + 1 for n in shape], vocabulary + 2, generator=generator)).to(dtype)
    logits = full[tuple(slice(1, None) for _ in shape)][..., 1 : vocabulary + 1]
    if shape and data.draw(st.booleans()):
        logits = logits.transpose(0, -1).contiguous().transpose(0, -1)  # last dimension not dense
    ids = torch.randint(vocabulary, shape, generator=generator)
    ids = torch.where(torch.rand(shape, generator=generator) < 0.2, -100, ids)
    keep = torch.rand(*shape, vocabulary, generator=generator) < data.draw(st.sampled_from([0.05, 0.5, 1.0]))
    keep.scatter_(-1, ids.clamp(min=0).unsqueeze(-1), True)
    supported = data.draw(st.booleans())
    expected = oracle.token_stats(logits, ids, keep=keep if supported else None)
    actual = token_stats(logits, ids, want=STATISTICS, support=oracle.ragged(keep) if supported else None)
    for name in STATISTICS:
        assert actual[name].shape == ids.shape
        close(actual[name], expected[name])


def test_only_what_is_asked_for():
    logits, ids = torch.randn(4, 9), torch.arange(4)
    stats = token_stats(logits, ids, want=("entropy",))
    assert stats.entropy is not None
    assert all(getattr(stats, name) is None for name in STATISTICS if name != "entropy")
    with pytest.raises(KeyError, match=r"logprobs.*add it to want"):
        stats["logprobs"]


def test_chosen_logit_is_logprob_plus_logsumexp():
    logits, ids = 5 * torch.randn(6, 50), torch.randint(50, (6,))
    stats = token_stats(logits, ids, want=("logprobs", "logsumexp"))
    close(stats.logprobs + stats.logsumexp, logits.gather(1, ids[:, None])[:, 0])


def test_a_first_block_of_minus_infinity():
    logits = torch.randn(3, 4096)
    logits[:, :2048] = -math.inf
    ids = torch.tensor([2048, 3000, 4095])
    stats = token_stats(logits, ids, want=STATISTICS)
    for name, value in oracle.token_stats(logits, ids).items():
        close(stats[name], value)
    grad = gradient(lambda x: token_stats(x, ids).logprobs, logits, torch.ones(3))
    assert (grad[:, :2048] == 0).all()
    assert grad.isfinite().all()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_stay_in_their_row(bad):
    logits, ids = torch.randn(3, 1000), torch.tensor([1, 2, 3])
    logits[1, 777] = bad
    stats = token_stats(logits, ids, want=STATISTICS)
    for name in DIFFERENTIABLE:
        assert stats[name].isnan().tolist()[1] or name == "logsumexp", name
        assert stats[name][[0, 2]].isfinite().all()
    grad = gradient(lambda x: token_stats(x, ids).logprobs, logits, torch.ones(3))
    assert grad[1].isnan().any()
    assert grad[[0, 2]].isfinite().all()


def test_a_row_of_minus_infinity_is_nan_and_alone():
    logits = torch.randn(3, 100)
    logits[1] = -math.inf
    stats = token_stats(logits, torch.zeros(3, dtype=torch.long), want=STATISTICS)
    assert stats.logprobs.isnan().tolist() == [False, True, False]
    assert stats.logsumexp[1] == -math.inf


def test_a_token_that_cannot_be_drawn():
    logits = torch.randn(1, 20)
    logits[0, 7] = -math.inf
    stats = token_stats(logits, torch.tensor([7]), want=STATISTICS)
    assert stats.logprobs.item() == -math.inf
    assert stats.rank.item() == 19
    assert stats.top_p_mass.item() == pytest.approx(1)
    assert stats.entropy.isfinite().all()


@pytest.mark.parametrize("offset", [-1e4, -500.0, 1e4, 3e38])
def test_a_common_offset_changes_nothing(offset):
    logits = torch.randint(-40, 40, (4, 333)) / 8.0 if abs(offset) < 1e5 else torch.zeros(4, 333)
    ids = torch.randint(333, (4,))
    plain, moved = (token_stats(x, ids, want=("logprobs", "entropy")) for x in (logits, logits + offset))
    close(moved.logprobs, plain.logprobs, 1e-3 / 1024)
    close(moved.entropy, plain.entropy, 1e-3 / 1024)
    grads = [gradient(lambda x: token_stats(x, ids).logprobs, x, torch.ones(4)) for x in (logits, logits + offset)]
    close(*grads, 1e-6)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_confident_token_keeps_three_digits_of_what_is_left(dtype):
    logits = torch.zeros(1, 1000)
    logits[0, 123] = 18.0
    logits = logits.to(dtype)
    ids = torch.tensor([123])
    left = 999 / (math.exp(18.0) + 999)  # 1.5e-5
    assert -token_stats(logits, ids).logprobs.item() == pytest.approx(-math.log1p(-left), rel=1e-4)
    grad = gradient(lambda x: token_stats(x, ids).logprobs, logits, torch.ones(1))
    assert grad[0, 123].item() == pytest.approx(left, rel=1e-3 if dtype == torch.float32 else 8e-3)


@pytest.mark.parametrize("vocabulary", [7, 100, 4097, 32003, 151_936])
def test_vocabularies_that_divide_by_nothing(vocabulary):
    logits, ids = torch.randn(2, vocabulary), torch.tensor([0, vocabulary - 1])
    for name, value in oracle.token_stats(logits, ids).items():
        close(token_stats(logits, ids, want=STATISTICS)[name], value)


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0)])
def test_no_tokens(shape):
    logits = torch.randn(*shape, 11, requires_grad=True)
    stats = token_stats(logits, torch.zeros(shape, dtype=torch.long), want=STATISTICS)
    assert all(stats[name].shape == shape for name in STATISTICS)
    stats.logprobs.sum().backward()
    assert logits.grad.shape == logits.shape


def test_ids_of_minus_100_are_left_out():
    logits = torch.randn(2, 2, 50)
    logits[0, 1] = math.nan
    ids = torch.tensor([[3, -100], [-100, 4]])
    stats = token_stats(logits, ids, want=STATISTICS)
    assert all((stats[name][ids == -100] == 0).all() for name in STATISTICS)
    grad = gradient(lambda x: token_stats(x, ids).logprobs, logits, torch.ones(2, 2))
    assert (grad[ids == -100] == 0).all()
    assert (grad[ids != -100] != 0).any()
    nothing = gradient(lambda x: token_stats(x, torch.full((2, 2), -100)).logprobs, logits, torch.ones(2, 2))
    assert (nothing == 0).all()


def test_zero_upstream_shields_from_nan():
    logits, ids = torch.randn(2, 40), torch.tensor([1, 2])
    logits[1] = math.nan
    grad = gradient(lambda x: token_stats(x, ids).logprobs[:1], logits, torch.ones(1))
    assert (grad[1] == 0).all()


@pytest.mark.parametrize("upstream", [torch.tensor([0.0, -2.5, 1e-3]), torch.tensor([1e6, -1e6, 1.0])], ids=str)
def test_upstream_is_multiplied_in(upstream):
    logits, ids = torch.randn(3, 70), torch.randint(70, (3,))
    expected = gradient(lambda x: oracle.token_stats(x, ids)["logprobs"], logits.double(), upstream)
    close(gradient(lambda x: token_stats(x, ids).logprobs, logits, upstream), expected)


def test_shifted_logits_are_read_where_they_lie():
    logits = torch.randn(3, 9, 65)
    ids = torch.randint(65, (3, 8, 2))[..., 0]  # label stride 2
    close(token_stats(logits[:, :-1], ids).logprobs, oracle.token_stats(logits[:, :-1], ids)["logprobs"])
    expanded = torch.randn(1, 65).expand(4, 65)
    close(token_stats(expanded, ids[0, :4]).logprobs, oracle.token_stats(expanded, ids[0, :4])["logprobs"])


@pytest.mark.parametrize("temperature", [0.01, 100.0])
def test_temperatures_far_from_one(temperature):
    logits, ids = torch.randn(4, 200), torch.randint(200, (4,))
    stats = token_stats(logits, ids, temperature=temperature, want=STATISTICS)
    for name, value in oracle.token_stats(logits, ids, temperature=temperature).items():
        close(stats[name], value, 3e-5)


def test_a_token_outside_its_support():
    logits, keep = torch.randn(2, 30), torch.zeros(2, 30, dtype=torch.bool)
    keep[:, [3, 9, 20]] = True
    ids = torch.tensor([9, 10])
    stats = token_stats(logits, ids, support=oracle.ragged(keep), want=STATISTICS)
    assert stats.logprobs[1].item() == -math.inf
    assert stats.rank[1].item() == 3
    assert stats.top_p_mass[1].item() == pytest.approx(1)
    expected = oracle.token_stats(logits, ids, keep=keep)
    for name in ("entropy", "logsumexp", "sum_sq_probs"):
        close(stats[name], expected[name])


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("grad", ["new", "pooled", "inplace"])
def test_gradients_over_a_support(name, grad):
    logits, keep = torch.randn(5, 1300), torch.rand(5, 1300) < 0.6  # more kept ids than a block
    ids = torch.randint(1300, (5,))
    keep.scatter_(1, ids[:, None], True)
    upstream = torch.randn(5)
    expected = gradient(lambda x: oracle.token_stats(x, ids, keep=keep)[name], logits.double(), upstream)
    support = oracle.ragged(keep)
    got = gradient(lambda x: token_stats(x * 1, ids, support=support, want=(name,), grad=grad)[name], logits, upstream)
    close(got, expected)
    assert (got[~keep] == 0).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("grad", ["pooled", "inplace"])
def test_where_the_gradient_goes_changes_no_bit(dtype, grad):
    logits, ids = torch.randn(3, 7, 30_001).to(dtype), torch.randint(30_001, (3, 7))
    upstream = torch.randn(3, 7)
    results = [
        gradient(lambda x, g=g: token_stats(x * 1, ids, want=("logprobs",), grad=g).logprobs, logits, upstream)
        for g in ("new", grad, grad)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("vocabulary", [40, 40_000], ids=["small", "pooled"])
def test_a_pooled_gradient_that_someone_holds_is_left_alone(vocabulary):
    logits, ids = torch.randn(8, vocabulary), torch.randint(vocabulary, (8,))
    first = gradient(lambda x: token_stats(x, ids, grad="pooled").logprobs, logits, torch.ones(8))
    kept = first.clone()
    gradient(lambda x: token_stats(x, ids, grad="pooled").logprobs, logits, torch.full((8,), -3.0))
    assert torch.equal(first, kept)


def test_a_pooled_gradient_that_nobody_holds_is_used_again(implementation):
    logits, ids = torch.randn(8, 40_000, requires_grad=True), torch.randint(40_000, (8,))
    addresses = set()
    for _ in range(3):
        logits.grad = None
        token_stats(logits, ids, grad="pooled").logprobs.sum().backward()
        addresses.add(logits.grad.data_ptr())
    assert len(addresses) == 1 or implementation == "reference"


def test_inplace_tells_whoever_still_needs_the_logits():
    leaf, ids = torch.randn(4, 30, requires_grad=True), torch.randint(30, (4,))
    logits = leaf * 1
    loss = logits.square().sum() + token_stats(logits, ids, grad="inplace").logprobs.sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_logits_used_twice_and_retained_graphs():
    leaf, ids = torch.randn(4, 30, requires_grad=True), torch.randint(30, (4,))
    stats = token_stats(leaf, ids)
    loss = stats.logprobs.sum() + token_stats(leaf, ids, want=("entropy",)).entropy.sum() + leaf.square().sum()
    (once,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    (twice,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(once, twice)


def test_the_same_bits_every_time():
    logits, ids = torch.randn(37, 3001), torch.randint(3001, (37,))
    runs = [token_stats(logits, ids, want=STATISTICS) for _ in range(3)]
    for name in STATISTICS:
        assert torch.equal(runs[0][name], runs[1][name])
        assert torch.equal(runs[0][name], runs[2][name])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_no_bit(threads):
    logits, ids = torch.randn(37, 3001), torch.randint(3001, (37,))
    before = torch.get_num_threads()
    one = token_stats(logits, ids, want=STATISTICS)
    torch.set_num_threads(threads)
    try:
        other = token_stats(logits, ids, want=STATISTICS)
    finally:
        torch.set_num_threads(before)
    # A row is never split among threads. (The reference uses torch's sums, which promise less.)
    for name in STATISTICS:
        torch.testing.assert_close(one[name], other[name], rtol=1e-6, atol=1e-6)


def test_both_backends_agree_across_forward_and_backward():
    logits, ids = torch.randn(6, 100), torch.randint(100, (6,))
    leaf = logits.clone().requires_grad_()
    stats = token_stats(leaf, ids, want=("logprobs", "entropy"))
    with backend("reference"):
        (stats.logprobs + stats.entropy).sum().backward()
    expected = gradient(
        lambda x: sum(oracle.token_stats(x, ids)[n] for n in ("logprobs", "entropy")), logits.double(), 1
    )
    close(leaf.grad, expected)


@pytest.mark.slow
def test_more_than_two_to_the_31_logits(implementation):
    """The gradient goes over the logits, so that 4.3 GB do."""
    if implementation == "reference":
        pytest.skip("does not apply: would hold all of them in float32, several times")
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 7e9:
        pytest.skip("needs 7 GB of free memory")
    rows, vocabulary = 14_200, 151_936
    logits = torch.zeros(1, vocabulary, dtype=torch.bfloat16).expand(rows, vocabulary).contiguous()
    logits[-1, -1] = 5.0
    last = logits[-1:].clone()
    ids = torch.full((rows,), vocabulary - 1)
    assert logits.numel() > 2**31
    got = token_stats(logits.requires_grad_(), ids, grad="inplace").logprobs
    close(got[-1], oracle.token_stats(last, ids[-1:])["logprobs"][0])
    close(got[0], torch.tensor(-math.log(vocabulary)))
    (grad,) = torch.autograd.grad(got[-2:].sum(), logits)
    assert grad.data_ptr() == logits.data_ptr()
    expected = gradient(lambda x: token_stats(x, ids[-1:]).logprobs, last, torch.ones(1))
    assert torch.equal(grad[-1:], expected)
    assert not grad[0].any()
