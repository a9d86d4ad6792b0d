"""The matrix product below the head's tiles: every layout, every odd size, and one rounding at the end."""

from __future__ import annotations

import pytest
import torch

from hookline.kernels import cpu, native

pytestmark = pytest.mark.usefixtures("compiled")

SIZES = [(1, 1, 2), (7, 65, 34), (48, 130, 600), (50, 64, 258), (400, 33, 20), (13, 200, 1000), (0, 4, 2), (3, 0, 2)]


@pytest.fixture(params=native.module.instruction_sets() if native.module else [])
def instruction_set(request):
    before = native.module.build_info()["instruction_set"]
    native.module.use(request.param)
    yield request.param
    native.module.use(before)


def laid_out(matrix, transposed):
    """Rows further apart than they are long, and dense in one direction or the other."""
    rows = matrix.t() if transposed else matrix
    wide = torch.full((len(rows), rows.shape[1] + 6), torch.nan, dtype=matrix.dtype)
    wide[:, : rows.shape[1]] = rows
    view = wide[:, : rows.shape[1]]
    return view.t() if transposed else view


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("a_transposed", [False, True])
@pytest.mark.parametrize("b_transposed", [False, True])
def test_every_layout(instruction_set, dtype, a_transposed, b_transposed):
    if not native.module.has_product(cpu._DTYPES[dtype]):
        pytest.skip("does not apply: torch multiplies here")
    torch.manual_seed(0)
    for m, n, k in SIZES:
        a, b, out = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), torch.randn(m, n)
        expected = a.double() @ b.double()
        before = out.clone()
        cpu.product(laid_out(a, a_transposed), laid_out(b, b_transposed), out, add=True)
        torch.testing.assert_close(out.double(), before.double() + expected, rtol=1e-4, atol=1e-4)
        cpu.product(laid_out(a, a_transposed), laid_out(b, b_transposed), out)
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-4)
        if dtype == torch.bfloat16:
            narrow = torch.empty(m, n, dtype=dtype)
            cpu.product(laid_out(a, a_transposed), laid_out(b, b_transposed), narrow)
            assert torch.equal(narrow, out.to(dtype))


def test_threads_change_no_bit(instruction_set):
    torch.manual_seed(0)
    a, b, before = torch.randn(500, 300), torch.randn(300, 70), torch.get_num_threads()
    if not native.module.has_product(cpu._DTYPES[a.dtype]):
        pytest.skip("does not apply: torch multiplies here")
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(torch.empty(500, 70))
            cpu.product(a, b, results[-1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_odd_depth_in_bfloat16_meets_a_zero(instruction_set):
    if not native.module.has_product(cpu._DTYPES[torch.bfloat16]):
        pytest.skip("does not apply: torch multiplies here")
    torch.manual_seed(0)
    a, b = torch.randn(9, 8).bfloat16(), torch.randn(7, 20).bfloat16()
    a[:, 7] = 0
    out = torch.empty(9, 20)
    cpu.product(a, b, out)
    torch.testing.assert_close(out, a[:, :7].float() @ b.float())
    cpu.product(a[:, :7].contiguous().t().contiguous().t(), b, out)
    torch.testing.assert_close(out, a[:, :7].float() @ b.float())
