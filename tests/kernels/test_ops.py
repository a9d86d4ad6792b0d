"""The ops as torch sees them: schema, fake tensors, autograd, torch.compile, vmap."""

from __future__ import annotations

import pytest
import torch

from hookline.kernels import (
    STATISTICS,
    backend,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    token_stats,
)

DIFFERENTIABLE = STATISTICS[:4]
OPS = torch.ops.hookline


def tensor(*shape, dtype=torch.float32, grad=True):
    return torch.randn(*shape).to(dtype).requires_grad_(grad)


def samples(dtype):
    ids = torch.randint(19, (2, 3))
    support = torch.arange(12), torch.arange(7) * 2
    t = {"dtype": dtype}
    return {
        "token_stats": (tensor(2, 3, 19, **t), ids, None, None, 0.7, 0.0, 63, "new"),
        "linear_token_stats": (tensor(2, 3, 5, **t), tensor(19, 5, **t), tensor(19, **t), ids, *support, 1.0, 4.0, 15),
        "gae": (tensor(3, 9, grad=False, **t), tensor(3, 9, grad=False, **t), None, 0.9, 0.95, None, None),
        "kl_estimate": (tensor(3, 9, **t), tensor(3, 9, **t), 5),
        "kl_divergence": (tensor(2, 19, **t), tensor(2, 19, **t), 0.8),
        "linear_kl_divergence": (
            *(tensor(2, 5, **t), tensor(19, 5, **t), None),
            *(tensor(2, 4, **t), tensor(19, 4, **t), tensor(19, **t)),
            1.0,
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("name", samples(torch.float32))
def test_opcheck(name, dtype):
    torch.manual_seed(0)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    if dtype != torch.float32:
        checks = checks[:3]
    torch.library.opcheck(getattr(OPS, name).default, samples(dtype)[name], test_utils=checks)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_gradcheck_of_token_stats(name, softcap):
    torch.manual_seed(0)
    logits, hidden, weight, bias = (
        t.double().detach().requires_grad_() for t in (tensor(4, 11), tensor(4, 3), tensor(11, 3), tensor(11))
    )
    ids = torch.tensor([1, 10, -100, 4])
    kept = torch.tensor([[1, 2, 3], [0, 5, 10], [7, 8, 9], [2, 4, 6]])
    for support in (None, (kept.flatten(), torch.arange(5) * 3)):
        options = {"softcap": softcap, "temperature": 0.7, "support": support, "want": (name,)}
        assert torch.autograd.gradcheck(lambda x, o=options: token_stats(x, ids, **o)[name], logits)
        assert torch.autograd.gradcheck(
            lambda h, w, b, o=options: linear_token_stats(h, w, ids, bias=b, **o)[name], (hidden, weight, bias)
        )


def test_gradcheck_of_kl():
    torch.manual_seed(0)
    a, b = (t.double().detach().requires_grad_() for t in (tensor(3, 9), tensor(3, 9)))
    assert torch.autograd.gradcheck(lambda a, b: kl_estimate(a, b, estimator=("k1", "k2", "k3")), (a, b))
    assert torch.autograd.gradcheck(lambda a, b: kl_divergence(a, b, temperature=0.6), (a, b))
    heads = [
        t.double().detach().requires_grad_()
        for t in (tensor(3, 4), tensor(9, 4), tensor(3, 2), tensor(9, 2), tensor(9))
    ]
    assert torch.autograd.gradcheck(lambda *t: linear_kl_divergence(*t[:4], ref_bias=t[4]), heads)


def everything(logits, ref, hidden, weight, ids, mask):
    """One graph with every public function in it, as an algorithm would use them."""
    stats = token_stats(logits, ids, want=("logprobs", "entropy"), temperature=0.9)
    head = linear_token_stats(hidden, weight, ids)
    advantages, returns = gae(stats.logprobs, head.logprobs, mask=mask)
    loss = stats.logprobs * advantages + returns + stats.entropy
    loss = loss + kl_estimate(stats.logprobs, head.logprobs) + kl_divergence(logits, ref)
    return (loss + linear_kl_divergence(hidden, weight, hidden, weight.detach())).sum()


def run_everything(function, rows):
    torch.manual_seed(rows)
    tensors = [tensor(rows, 6, 40), tensor(rows, 6, 40), tensor(rows, 6, 5), tensor(40, 5)]
    loss = function(*tensors, torch.randint(40, (rows, 6)), torch.rand(rows, 6) < 0.8)
    loss.backward()
    return [loss.detach(), *(t.grad for t in tensors)]


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_one_whole_graph_and_any_number_of_rows(compiler):
    torch._dynamo.reset()
    compiled = torch.compile(everything, fullgraph=True, dynamic=True, backend=compiler)
    for rows in (2, 5, 3):
        for ours, eager in zip(run_everything(compiled, rows), run_everything(everything, rows)):
            torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)


def test_in_a_graph_the_compiler_plans_memory():
    torch._dynamo.reset()
    ids = torch.randint(40, (3,))
    for grad in ("pooled", "inplace"):
        leaf = tensor(3, 40)
        compiled = torch.compile(
            lambda x, g=grad: token_stats(x, ids, grad=g).logprobs, fullgraph=True, backend="aot_eager"
        )
        before = leaf.detach().clone()
        compiled(leaf).sum().backward()
        assert torch.equal(leaf.detach(), before)


def test_an_id_out_of_range_is_an_error_in_a_graph_too():
    torch._dynamo.reset()
    compiled = torch.compile(lambda x, i: token_stats(x, i).logprobs, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"token_ids\[1\] is 40"):
        compiled(tensor(2, 40), torch.tensor([0, 40]))


@pytest.mark.parametrize(
    "call",
    [
        lambda x: token_stats(x, torch.tensor(1)).logprobs,
        lambda x: linear_token_stats(x, torch.ones(3, 9), torch.tensor(1)).logprobs,
        lambda x: kl_divergence(x, x),
        lambda x: kl_estimate(x, x),
        lambda x: gae(x, x)[0],
        lambda x: linear_kl_divergence(x, torch.ones(3, 9), x, torch.ones(3, 9)),
    ],
)
def test_vmap_is_refused(call):
    with pytest.raises(NotImplementedError, match=r"does not work under torch.vmap; it takes any leading shape"):
        torch.vmap(call)(torch.randn(4, 9))


def test_second_derivatives_are_refused():
    leaf, ids = tensor(2, 9), torch.tensor([1, 2])
    for value in (token_stats(leaf, ids).logprobs, kl_divergence(leaf, leaf + 1), kl_estimate(leaf, leaf * 2)):
        (grad,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        with pytest.raises(RuntimeError, match="has no second derivative"):
            grad.sum().backward()


def test_backends_give_the_same_answers():
    torch.manual_seed(0)
    compiled = run_everything(everything, 4)
    with backend("reference"):
        reference = run_everything(everything, 4)
    for a, b in zip(compiled, reference):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


def test_kernels_import_nothing_else_of_hookline():
    import subprocess
    import sys

    code = (
        "import sys, hookline.kernels; "
        "print(sorted(m for m in sys.modules if m.startswith('hookline') and not m.startswith(('hookline.kernels', 'hookline._native'))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['hookline', 'hookline._version']"
