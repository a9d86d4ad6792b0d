"""Every kernel beside torch eager and torch.compile, on shapes of real runs sized down for a CPU.

    make bench ARGS="benchmarks/bench_kernels.py -k 'not compile'"

Each row first asserts that its result is the reference's. `extra_info` holds the bytes the problem must move, the share
of the read speed measured in the same process, and the ratio to torch eager, taken in turns with the benchmarked call so
that a busy machine slows both. Sizes follow what is trained with: V = 32 000 (Llama 2) and 151 936 (Qwen).
"""

from __future__ import annotations

import statistics
import time
from functools import cache

import pytest
import torch
from torch import Tensor

from hookline.kernels import backend, build_info, gae, kl_divergence, kl_estimate, linear_token_stats, token_stats

ROUNDS = 7


@cache
def read_speed() -> float:
    """Bytes per second of torch.sum over 128 MB, the best of ten."""
    x = torch.ones(32 << 20)
    return x.nbytes / min(seconds(x.sum) for _ in range(10))


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(benchmark, call, eager, moved: int) -> None:
    """Benchmark `call`; note its ratio to `eager` (median of rounds run in turns) and its share of the read speed."""
    ours, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(seconds(eager))
        ours.append(seconds(call))
    benchmark.extra_info.update(
        kernels=build_info()["kernels"],
        threads=torch.get_num_threads(),
        bytes=moved,
        ratio_to_eager=round(statistics.median(t / o for t, o in zip(theirs, ours)), 2),
        share_of_read=round(moved / min(ours) / read_speed(), 2),
    )
    benchmark.pedantic(call, rounds=ROUNDS, warmup_rounds=1)


def eager_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def eager_logprobs_and_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    logp = torch.log_softmax(logits.float(), -1)
    return logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - (logp.exp() * logp).sum(-1)


def eager_kl(p: Tensor, q: Tensor) -> Tensor:
    log_p, log_q = torch.log_softmax(p, -1), torch.log_softmax(q, -1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def eager_k3(p: Tensor, q: Tensor) -> Tensor:
    return torch.exp(q - p) - 1 - (q - p)


def eager_linear(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    return eager_logprobs(hidden @ weight.T, ids)


def ours_logprobs_and_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    stats = token_stats(logits, ids, want=("logprobs", "entropy"))
    return stats["logprobs"] + stats["entropy"]


def with_backward(function, *leaves: Tensor):
    def call():
        for leaf in leaves:
            leaf.grad = None
        function().sum().backward()

    return call


def logits_and_ids(rows: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, vocabulary).to(dtype), torch.randint(vocabulary, (rows,))


IMPLEMENTATIONS = ["ours", "reference", "compile"]


def chosen(implementation: str, ours, eager):
    """The function a row of the table measures."""
    if implementation == "compile":
        return torch.compile(eager, fullgraph=True)
    if implementation == "reference":

        def reference(*args):
            with backend("reference"):
                return ours(*args)

        return reference
    return ours


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "vocabulary"), [(1024, 32_000), (256, 151_936)])
@pytest.mark.parametrize("entropy", [False, True], ids=["logprobs", "logprobs+entropy"])
def bench_token_stats(benchmark, rows, vocabulary, dtype, entropy, implementation):
    logits, ids = logits_and_ids(rows, vocabulary, dtype)
    eager = eager_logprobs_and_entropy if entropy else eager_logprobs
    ours = ours_logprobs_and_entropy if entropy else lambda x, y: token_stats(x, y)["logprobs"]
    function = chosen(implementation, ours, eager)
    torch.testing.assert_close(function(logits, ids), eager(logits, ids), rtol=1e-4, atol=1e-4)
    benchmark.group = f"token_stats fwd [{rows}, {vocabulary}] {dtype} {'with entropy' if entropy else ''}"
    measure(benchmark, lambda: function(logits, ids), lambda: eager(logits, ids), logits.nbytes)


@pytest.mark.parametrize("implementation", ["new", "pooled", "reference", "compile"])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1024, 32_000), (256, 151_936)])
def bench_token_stats_backward(benchmark, rows, vocabulary, implementation):
    logits, ids = logits_and_ids(rows, vocabulary, torch.float32)
    leaf = logits.requires_grad_()
    grad = implementation if implementation in ("new", "pooled") else "new"
    function = chosen(implementation, lambda x, y: token_stats(x, y, grad=grad)["logprobs"], eager_logprobs)
    call, eager = (with_backward(lambda f=f: f(leaf, ids), leaf) for f in (function, eager_logprobs))
    eager()
    expected = leaf.grad
    call()
    torch.testing.assert_close(leaf.grad, expected, rtol=1e-4, atol=1e-6)
    del expected
    benchmark.group = f"token_stats fwd+bwd [{rows}, {vocabulary}]"
    measure(benchmark, call, eager, 3 * logits.nbytes)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backward", [False, True], ids=["fwd", "fwd+bwd"])
def bench_linear_token_stats(benchmark, dtype, backward, implementation):
    torch.manual_seed(0)
    tokens, width, vocabulary = 512, 1024, 32_000
    hidden = torch.randn(tokens, width).to(dtype).requires_grad_(backward)
    weight = (torch.randn(vocabulary, width) / width**0.5).to(dtype).requires_grad_(backward)
    ids = torch.randint(vocabulary, (tokens,))
    function = chosen(implementation, lambda h, w, y: linear_token_stats(h, w, y)["logprobs"], eager_linear)
    exact = eager_linear(hidden.detach().float(), weight.detach().float(), ids)
    rounding = (
        1e-4 if implementation != "compile" or dtype == torch.float32 else 5e-2
    )  # eager rounds logits to bfloat16
    torch.testing.assert_close(function(hidden, weight, ids).detach(), exact, rtol=rounding, atol=rounding)
    call, eager = (lambda: function(hidden, weight, ids)), (lambda: eager_linear(hidden, weight, ids))
    if backward:
        call, eager = with_backward(call, hidden, weight), with_backward(eager, hidden, weight)
    benchmark.group = (
        f"linear_token_stats [{tokens}, {width}] x {vocabulary} {dtype} {'fwd+bwd' if backward else 'fwd'}"
    )
    measure(benchmark, call, eager, weight.nbytes * (3 if backward else 1))


@pytest.mark.parametrize("implementation", ["ours", "reference"])
@pytest.mark.parametrize("shape", [(256, 1024), (8, 16_384), (4096, 1024)], ids=str)
def bench_gae(benchmark, shape, implementation):
    """Eager is the loop over T that every framework ships."""
    torch.manual_seed(0)
    rewards, values = torch.randn(2, *shape)
    mask = torch.arange(shape[1]) < torch.randint(shape[1] // 2, shape[1] + 1, (shape[0], 1))

    def loop():
        with backend("reference"):
            return gae(rewards, values, mask=mask, gamma=0.99)

    function = loop if implementation == "reference" else lambda: gae(rewards, values, mask=mask, gamma=0.99)
    torch.testing.assert_close(function()[0], loop()[0], rtol=1e-4, atol=1e-4)
    benchmark.group = f"gae {list(shape)}"
    measure(benchmark, function, loop, 17 * rewards.numel())


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("backward", [False, True], ids=["fwd", "fwd+bwd"])
def bench_kl_divergence(benchmark, backward, implementation):
    torch.manual_seed(0)
    p, q = (torch.randn(512, 32_000, requires_grad=backward) for _ in range(2))
    function = chosen(implementation, kl_divergence, eager_kl)
    torch.testing.assert_close(function(p, q), eager_kl(p, q), rtol=1e-4, atol=1e-4)
    call, eager = (lambda: function(p, q)), (lambda: eager_kl(p, q))
    if backward:
        call, eager = with_backward(call, p, q), with_backward(eager, p, q)
    benchmark.group = f"kl_divergence [512, 32000] {'fwd+bwd' if backward else 'fwd'}"
    measure(benchmark, call, eager, p.nbytes * (6 if backward else 2))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def bench_kl_estimate(benchmark, implementation):
    torch.manual_seed(0)
    p, q = torch.randn(2, 1 << 20)
    function = chosen(implementation, kl_estimate, eager_k3)
    torch.testing.assert_close(function(p, q), eager_k3(p, q), rtol=1e-4, atol=1e-5)
    benchmark.group = "kl_estimate k3, 1M tokens"
    measure(benchmark, lambda: function(p, q), lambda: eager_k3(p, q), 12 * p.numel())
