"""What only a real GPU can show: streams, graphs, sizes beyond 32 bits, a context that lives on after a wrong id.

`pytest tests -m gpu` runs these and the arithmetic of `test_cuda_arithmetic.py`; without a GPU they are skipped.
"""

from __future__ import annotations

import cuda_emulation
import kernels_oracle as oracle
import pytest
import torch

from hookline.kernels import (
    STATISTICS,
    backend,
    build_info,
    cuda,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    token_stats,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _gpu():
    cuda_emulation.need_gpu()
    torch.manual_seed(0)
    yield
    torch.cuda.synchronize()


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(
        actual.double().cpu(), expected.double().cpu(), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def everything(logits, ref, hidden, weight, ids, mask):
    """Every public function once, forward and backward; all results in one list."""
    leaves = [t.detach().clone().requires_grad_() for t in (logits, hidden, weight)]
    stats = token_stats(leaves[0], ids, want=STATISTICS[:4])
    head = linear_token_stats(leaves[1], leaves[2], ids)
    advantages, returns = gae(head.logprobs, stats.logprobs, mask=mask, gamma=0.99)
    values = [*(stats[n] for n in STATISTICS[:4]), head.logprobs, advantages, returns]
    values += [kl_estimate(stats.logprobs, head.logprobs), kl_divergence(leaves[0], ref)]
    values.append(linear_kl_divergence(leaves[1], leaves[2], hidden, weight.flip(0)))
    grads = torch.autograd.grad(sum(v.sum() for v in values), leaves)
    return [*(v.detach() for v in values), *grads]


def inputs(rows=6, steps=9, vocabulary=5000, width=64, dtype=torch.bfloat16, device="cuda"):
    def random(*shape):
        return torch.randn(*shape, device=device).to(dtype)

    ids = torch.randint(vocabulary, (rows, steps), device=device)
    logits, ref = random(rows, steps, vocabulary), random(rows, steps, vocabulary)
    return (
        logits,
        ref,
        random(rows, steps, width),
        random(vocabulary, width) / 8,
        ids,
        torch.rand_like(ids.float()) < 0.8,
    )


def test_the_compiled_kernels_answer_and_agree():
    for op in cuda._QUESTIONS:
        assert cuda.trusted(op, torch.device("cuda")) is cuda, cuda.distrusted()
    assert "cuda" in build_info()["kernels"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_reference_gives_the_same(dtype):
    args = inputs(dtype=dtype)
    ours = everything(*args)
    with backend("reference"):
        theirs = everything(*args)
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}[dtype]
    for a, b in zip(ours, theirs):
        assert a.dtype == b.dtype
        close(a / b.abs().max(), b / b.abs().max(), tolerance)


def test_equal_calls_give_equal_bits():
    args = inputs()
    first = everything(*args)
    for _ in range(3):
        assert all(torch.equal(a, b) for a, b in zip(first, everything(*args)))


def test_another_stream():
    args = inputs()
    expected = everything(*args)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # work on the wrong stream would read what is not there yet
        late = [a.clone() for a in args]
        got = everything(*late)
    torch.cuda.current_stream().wait_stream(stream)
    assert all(torch.equal(a, b) for a, b in zip(expected, got))


def test_a_graph_can_be_captured_and_replayed():
    logits, ref, hidden, weight, ids, mask = inputs()
    options = {"want": STATISTICS}

    def work():
        stats = token_stats(logits, ids, **options)
        head = linear_token_stats(hidden, weight, ids)
        a, r = gae(head.logprobs, stats.logprobs, mask=mask)
        return [*(stats[n] for n in STATISTICS), head.logprobs, a, r, kl_divergence(logits, ref)]

    work()  # comparisons and caches first, as every capture asks
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = work()
    logits.copy_(torch.randn_like(logits))
    ids.copy_(ids.roll(1))
    graph.replay()
    for a, b in zip(captured, work()):
        assert torch.equal(a, b)


def test_a_wrong_id_is_an_error_and_the_context_lives():
    logits, ids = torch.randn(4, 100, device="cuda"), torch.tensor([0, 99, 100, 2], device="cuda")
    with pytest.raises(ValueError, match=r"token_ids\[2\] is 100"):
        token_stats(logits, ids)
    with pytest.raises(ValueError, match="tensors are on cuda:0 and cpu"):
        token_stats(logits, ids.cpu())
    torch.cuda.synchronize()
    assert token_stats(logits, ids.clamp(max=99)).logprobs.isfinite().all()


def test_a_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    args = [a.to("cuda:1") for a in inputs()]
    torch.cuda.set_device(0)
    got = everything(*args)
    assert all(t.device.index == 1 for t in got)
    assert torch.cuda.current_device() == 0
    for a, b in zip(got, everything(*(a.to("cuda:0") for a in args))):
        close(a, b)


@pytest.mark.parametrize("rows", [2047, 2048, 70_000])
def test_many_rows(rows):
    logits, ids = torch.randn(rows, 130, device="cuda"), torch.randint(130, (rows,), device="cuda")
    stats = token_stats(logits, ids, want=STATISTICS)
    for name, value in oracle.token_stats(logits, ids).items():
        close(stats[name], value)


@pytest.mark.parametrize("vocabulary", [32_000, 151_936])
def test_real_vocabularies(vocabulary):
    logits = (4 * torch.randn(2500 if vocabulary == 32_000 else 300, vocabulary, device="cuda")).bfloat16()
    ids = torch.randint(vocabulary, logits.shape[:1], device="cuda")
    stats = token_stats(logits, ids, want=STATISTICS)
    some = slice(0, None, 97)
    for name, value in oracle.token_stats(logits[some], ids[some]).items():
        close(stats[name][some], value, 2e-5)


def test_more_than_2_to_the_31_logits():
    rows, vocabulary = 16_500, 131_072
    if torch.cuda.mem_get_info()[0] < 3 * rows * vocabulary * 2:
        pytest.skip("needs 13 GB of free GPU memory")
    logits = torch.zeros(rows, vocabulary, device="cuda", dtype=torch.bfloat16).requires_grad_()
    ids = torch.full((rows,), vocabulary - 1, device="cuda")
    with torch.no_grad():
        logits[-1, -1] = 5
    logprobs = token_stats(logits, ids).logprobs
    close(logprobs[-1], oracle.token_stats(logits[-1:], ids[-1:])["logprobs"][0])
    logprobs[-1].backward()
    assert (logits.grad[:-1] == 0).all()
    assert logits.grad[-1, -1] > 0


@pytest.mark.parametrize("shape", [(64, 16_384), (512, 2048), (4096, 1024), (65_536, 128), (8, 131_072)])
def test_gae_of_the_shapes_that_are_measured(shape):
    rewards, values = torch.randn(shape, device="cuda"), torch.randn(shape, device="cuda")
    mask = torch.rand(shape, device="cuda") < 0.9
    advantages, returns = gae(rewards, values, mask=mask, gamma=0.99)
    for i in (0, shape[0] // 2, shape[0] - 1):
        a, r = oracle.gae(rewards[i].tolist(), values[i].tolist(), mask[i].tolist(), 0.99, 0.95, 0.0)
        close(advantages[i], torch.tensor(a), 1e-4)
        close(returns[i], torch.tensor(r), 1e-4)


def test_a_head_rounds_no_logit():
    hidden, weight = torch.randn(4096, 512, device="cuda").bfloat16(), (torch.randn(32_000, 512) / 8).cuda().bfloat16()
    ids = torch.randint(32_000, (4096,), device="cuda")
    got = linear_token_stats(hidden, weight, ids).logprobs[:64]
    expected = oracle.token_stats(hidden[:64].double() @ weight.double().t(), ids[:64])["logprobs"]
    assert (got.double() - expected).abs().mean() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_opcheck(dtype):
    logits, ref, hidden, weight, ids, mask = inputs(2, 3, 19, 8, dtype)
    leaf = logits.requires_grad_()
    samples = {
        "token_stats": (leaf, ids, None, None, 0.7, 0.0, 63, "new"),
        "linear_token_stats": (hidden.requires_grad_(), weight.requires_grad_(), None, ids, None, None, 1.0, 4.0, 15),
        "gae": (ids.float(), ids.float(), mask, 0.9, 0.95, None, None),
        "kl_divergence": (leaf, ref, 0.8),
    }
    for name, args in samples.items():
        op = getattr(torch.ops.hookline, name).default
        torch.library.opcheck(op, args, test_utils=("test_schema", "test_autograd_registration", "test_faketensor"))


def test_one_whole_graph():
    torch._dynamo.reset()
    logits, ref, _, _, ids, mask = inputs(dtype=torch.float32)

    def loss(logits, ref, ids, mask):
        stats = token_stats(logits, ids, want=("logprobs", "entropy"))
        advantages, _ = gae(stats.logprobs, stats.entropy, mask=mask)
        return (stats.logprobs * advantages + stats.entropy + kl_divergence(logits, ref)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    close(compiled(logits, ref, ids, mask), loss(logits, ref, ids, mask))
