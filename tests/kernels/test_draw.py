"""draw against a float64 oracle that sorts: which token, its log-prob, and what is kept."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from hookline.kernels import draw, token_stats

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
CUTS = [
    {}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.1}, {"top_k": 7, "top_p": 0.8}, {"top_k": 3, "min_p": 0.5},
    {"top_k": 200, "top_p": 0.5}, {"top_k": 9, "top_p": 0.9, "min_p": 0.2},
]  # fmt: skip

pytestmark = pytest.mark.usefixtures("implementation")


def kept(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The kept ids of one row, ascending, and their probabilities, by sorting in float64."""
    p = torch.softmax(logits.double() / temperature, -1).tolist()
    order = sorted(range(len(p)), key=lambda i: (-p[i], i))[: top_k or None]
    found, mass, reached = [], 0.0, top_p * math.fsum(p[i] for i in order)
    for i in order:
        if (top_p < 1 and mass >= reached) or p[i] < min_p * p[order[0]] or p[i] == 0:
            break
        found.append(i)
        mass += p[i]
    return sorted(found), {i: p[i] / math.fsum(p[j] for j in found) for i in found}


def rows(drawn, n):
    ids, offsets = drawn.support
    return ids[offsets[n] : offsets[n + 1]].tolist()


@given(data=st.data())
def test_the_token_and_what_is_kept_are_those_of_a_sorted_distribution(implementation, data):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    dtype, vocabulary = data.draw(st.sampled_from(FLOATS)), data.draw(st.sampled_from([1, 2, 15, 17, 511, 513, 1030]))
    scale, temperature = data.draw(st.sampled_from([0.01, 1.0, 8.0])), data.draw(st.sampled_from([0.5, 1.0, 3.0]))
    options = data.draw(st.sampled_from(CUTS)) | {"temperature": temperature}
    x = (scale * torch.randn(4, vocabulary, generator=generator)).to(dtype)
    if data.draw(st.booleans()):
        x = x.round()  # many equal logits
    if vocabulary > 2:
        x[0, 1], x[1, 0] = -math.inf, -1e4
    u = torch.rand(4, dtype=torch.float64, generator=generator)
    drawn = draw(x, u, **options)
    assert drawn.ids.dtype == torch.int64
    assert drawn.logprobs.dtype == torch.float32
    assert (drawn.support is None) == (options.keys() <= {"temperature"})
    for n in range(4):
        ids, p = kept(x[n], **options)
        if drawn.support is not None:
            assert rows(drawn, n) == ids or borderline(x[n], rows(drawn, n), ids, options)
            ids, p = rows(drawn, n), kept_of(x[n], rows(drawn, n), temperature)
        token = int(drawn.ids[n])
        below = math.fsum(p[i] for i in ids if i < token)
        assert below - 1e-5 <= float(u[n]) <= below + p[token] + 1e-5
        assert float(drawn.logprobs[n]) == pytest.approx(math.log(p[token]), rel=1e-5, abs=1e-5)


def kept_of(logits, ids, temperature):
    p = torch.softmax(logits.double() / temperature, -1)
    return {i: float(p[i] / p[ids].sum()) for i in ids}


def borderline(logits, mine, theirs, options):
    """Whether two kept sets differ in one token, at which the mass reaches top-p or min-p but for rounding."""
    odd = sorted(set(mine) ^ set(theirs))
    p = torch.softmax(logits.double() / options["temperature"], -1)
    p = p / p.topk(min(len(p), options.get("top_k", 0) or len(p))).values.sum()
    mass, least = float(p[sorted(set(mine) & set(theirs))].sum()), float(p.max()) * options.get("min_p", 0.0)
    return len(odd) == 1 and (abs(mass - options.get("top_p", 1.0)) < 1e-5 or abs(float(p[odd[0]]) - least) < 1e-6)


@pytest.mark.parametrize("top_k", [1, 4, 50, 600])
def test_the_cuts_are_those_of_transformers_one_after_the_other(implementation, top_k):
    """Each cut sees what the one before left: the nucleus is one of the k likeliest, not of all tokens."""
    x = 2 * torch.randn(6, 513, generator=torch.Generator().manual_seed(top_k))
    u = torch.rand(6, dtype=torch.float64)
    for temperature, top_p, min_p in itertools.product((0.6, 1.0, 1.8), (0.05, 0.5, 0.9, 0.99, 1.0), (0.0, 0.02, 0.3)):
        warpers = [TopKLogitsWarper(top_k), *([TopPLogitsWarper(top_p)] if top_p < 1 else []), MinPLogitsWarper(min_p)]
        theirs = LogitsProcessorList(warpers)(torch.zeros(6, 0), x.double() / temperature)
        drawn = draw(x, u, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        assert [rows(drawn, n) for n in range(6)] == [row.isfinite().nonzero()[:, 0].tolist() for row in theirs]
        p = theirs.softmax(-1)
        assert torch.equal(drawn.ids, torch.searchsorted(p.cumsum(-1), u[:, None], right=True)[:, 0])
        logprobs = p.log().gather(1, drawn.ids[:, None])[:, 0]
        torch.testing.assert_close(drawn.logprobs.double(), logprobs, rtol=1e-5, atol=1e-6)


def test_the_nucleus_is_one_of_the_likeliest_k():
    """Of .4, .3, .2 and .1, the first two have .7 of all, but 7/9 of the likeliest three: .75 is reached a token earlier."""
    x, u = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log(), torch.tensor([0.999], dtype=torch.float64)
    assert rows(draw(x, u, top_p=0.75), 0) == [0, 1, 2]
    assert rows(draw(x, u, top_p=0.75, top_k=3), 0) == [0, 1]
    equal = torch.zeros(1, 8)  # the first of equal ones are kept, and half of them
    assert rows(draw(equal, u, top_k=6, top_p=0.5), 0) == [0, 1, 2]


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_tokens_come_as_often_as_they_are_likely(options):
    x = torch.tensor([2.0, 1.0, 1.0, 0.0, -1.0, -math.inf, -2.0, 0.5])
    n = 20_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    drawn = draw(x.expand(n, -1), u, **options)
    share = torch.bincount(drawn.ids, minlength=8).double() / n
    expected = torch.zeros(8, dtype=torch.float64)
    for i, p in kept(x, **options)[1].items():
        expected[i] = p
    torch.testing.assert_close(share, expected, rtol=0, atol=2 / n)


def test_log_probs_are_those_of_token_stats_on_the_same_support():
    x, u = 2 * torch.randn(3, 5, 700), torch.rand(3, 5, dtype=torch.float64)
    for options in CUTS:
        drawn = draw(x, u, temperature=0.7, **options)
        assert drawn.ids.shape == (3, 5)
        stats = token_stats(x, drawn.ids, temperature=0.7, support=drawn.support)
        torch.testing.assert_close(drawn.logprobs, stats.logprobs, rtol=1e-5, atol=1e-6)


def test_a_greedy_row_takes_the_first_of_the_likeliest_and_keeps_its_log_prob():
    x = torch.tensor([[0.0, 3.0, 3.0, 1.0]] * 2)
    drawn = draw(x, torch.tensor([0.99, 0.99], dtype=torch.float64), greedy=torch.tensor([True, False]))
    assert drawn.ids.tolist() == [1, 3]
    torch.testing.assert_close(drawn.logprobs[0], torch.log_softmax(x[0], -1)[1])


def test_the_ends_of_the_unit_interval_draw_tokens_that_can_be_drawn():
    x = torch.full((2, 1000), -math.inf)
    x[:, 300], x[:, 700] = 0.0, -30.0
    drawn = draw(x, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64))
    assert drawn.ids.tolist() in ([300, 300], [300, 700])
    assert drawn.ids[0] == 300
    assert drawn.logprobs.isfinite().all()


@pytest.mark.parametrize("options", CUTS, ids=str)
def test_a_broken_row_is_nan_and_leaves_its_neighbours_alone(options):
    x = torch.randn(5, 40)
    x[1, 3], x[2, 7], x[3] = math.nan, math.inf, -math.inf
    u = torch.rand(5, dtype=torch.float64)
    drawn, alone = draw(x, u, **options), draw(x[[0, 4]], u[[0, 4]], **options)
    assert drawn.logprobs.isnan().tolist() == [False, True, True, True, False]
    assert drawn.ids[[0, 4]].tolist() == alone.ids.tolist()
    assert drawn.ids[1:4].tolist() == [0, 0, 0]
    if drawn.support is not None:
        assert [rows(drawn, n) for n in (1, 2, 3)] == [[0]] * 3


def test_a_large_offset_of_all_logits_changes_nothing():
    x, u = torch.randn(6, 900), torch.rand(6, dtype=torch.float64)
    near, far = draw(x.half().float(), u, top_p=0.9), draw(x.half().float() - 4096, u, top_p=0.9)
    assert torch.equal(near.ids, far.ids)
    assert torch.equal(near.support[0], far.support[0])
    torch.testing.assert_close(near.logprobs, far.logprobs, rtol=1e-4, atol=1e-4)


def test_nothing_at_all():
    drawn = draw(torch.empty(0, 7), torch.empty(0, dtype=torch.float64), top_k=2)
    assert drawn.ids.shape == (0,)
    assert drawn.support[0].shape == (0,)
    assert drawn.support[1].tolist() == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"uniform": torch.zeros(2)}, "uniform is float32"),
        ({"uniform": torch.zeros(3, dtype=torch.float64)}, r"uniform is float64 \[3\]; give float64 \[2\]"),
        ({"greedy": torch.zeros(2)}, "greedy is float32"),
        ({"logits": torch.zeros(2, 0)}, "at least one token"),
        ({"logits": torch.zeros(2, 4, dtype=torch.int64)}, "logits is int64"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_k": True}, "top_k is True"),
        ({"top_p": 0.0}, "top_p is 0"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": 1.5}, "min_p is 1.5"),
    ],
    ids=lambda case: str(case)[:20],
)
def test_wrong_arguments_are_named(given, said):
    arguments = {"logits": torch.zeros(2, 4), "uniform": torch.zeros(2, dtype=torch.float64)} | given
    with pytest.raises(ValueError, match=said):
        draw(**arguments)
