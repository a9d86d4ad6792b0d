"""Muon beside torch's own and beside exact orthogonalisation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from hookline import UpdateConfig
from hookline.training.muon import Muon, orthogonalised
from hookline.training.optim import Optimiser
from hookline.world import devices

SHAPES = [(24, 24), (24, 96), (96, 24), (1, 7)]


@pytest.fixture(autouse=True)
def no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.training.muon.computes_in_bfloat16", lambda device: False)


def weights(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES * 2]


def gradients(steps: int = 3) -> Iterator[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield [torch.randn(shape, generator=generator) for shape in SHAPES * 2]


def test_steps_are_torch_s_but_for_its_bfloat16() -> None:
    mine, theirs = weights(), weights()
    ours = Muon([{"params": mine, "lr": 0.02}], weight_decay=0.1)
    peer = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for grads in gradients():
        for p, q, grad in zip(mine, theirs, grads):
            p.grad, q.grad = grad.clone(), grad.clone()
        ours.step()
        peer.step()
    for p, q, start in zip(mine, theirs, weights()):
        moved = float((q - start).detach().norm())
        assert float((p - q).detach().norm()) < 0.02 * moved  # bfloat16 keeps 8 bits: .4 % of each entry


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_singular_values_end_near_one_and_the_vectors_stay(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    out = orthogonalised(x)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ out @ vh.mT
    kept = s > 0.05 * s.amax(-1, keepdim=True)
    values = inner.diagonal(dim1=1, dim2=2)
    assert bool(((values > 0.6) & (values < 1.3))[kept].all())
    assert float((inner - torch.diag_embed(values)).abs().max()) < 1e-4


def test_matrices_together_are_matrices_alone_and_a_zero_gradient_moves_nothing() -> None:
    x = torch.randn(4, 12, 30, generator=torch.Generator().manual_seed(3))
    x[2] = 0
    together = orthogonalised(x)
    assert float(together[2].abs().max()) == 0
    for i in range(4):
        torch.testing.assert_close(together[i], orthogonalised(x[i : i + 1])[0], atol=1e-5, rtol=1e-5)


def test_products_are_bfloat16_where_the_device_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.training.muon.computes_in_bfloat16", lambda device: True)
    assert orthogonalised(torch.randn(1, 4, 4)).dtype == torch.bfloat16


def test_a_parameter_without_gradient_is_left_and_keeps_no_state() -> None:
    frozen, learns = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4, 4))
    muon = Muon([{"params": [frozen, learns], "lr": 0.1}], weight_decay=0.5)
    learns.grad = torch.eye(4)
    muon.step()
    assert torch.equal(frozen, torch.ones(4, 4))
    assert frozen not in muon.state
    assert not torch.equal(learns, torch.ones(4, 4))


def test_its_state_is_saved_by_name_and_goes_on_bit_for_bit() -> None:
    def optimiser() -> tuple[Optimiser, dict[str, nn.Parameter]]:
        parameters = {f"policy/{i}": p for i, p in enumerate(weights())}
        return Optimiser(UpdateConfig(optimizer="muon", lr=0.01), parameters, set(parameters)), parameters

    def go(made: Optimiser, parameters: dict[str, nn.Parameter], grads: list[Tensor]) -> None:
        for p, grad in zip(parameters.values(), grads):
            p.grad = grad.clone()
        made.step(1.0)

    one, its = optimiser()
    first, *rest = list(gradients(3))
    go(one, its, first)
    saved = one.state_dict()
    other, others = optimiser()
    with torch.no_grad():
        for p, q in zip(others.values(), its.values()):
            p.copy_(q)
    other.load_state_dict(saved)
    for grads in rest:
        go(one, its, grads)
        go(other, others, grads)
    assert all(torch.equal(p, q) for p, q in zip(its.values(), others.values()))


@pytest.mark.parametrize(
    ("name", "flags", "fast"),
    [
        ("Intel Xeon", ["amx_bf16", "avx512_bf16"], True),
        ("Intel Xeon", ["avx512_bf16"], False),  # half the rate of float32
        ("AMD EPYC", ["avx512_bf16"], True),  # twice the rate
        ("AMD EPYC", [], False),
    ],
)
def test_the_processor_decides(monkeypatch: pytest.MonkeyPatch, name: str, flags: list[str], fast: bool) -> None:
    there = {"cpu_name": name, **dict.fromkeys(flags, True)}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: there, raising=False)
    assert devices.computes_in_bfloat16(torch.device("cpu")) is fast


def test_a_torch_that_does_not_know_the_processor_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not devices.computes_in_bfloat16(torch.device("cpu"))
