"""Weights in bfloat16 are trained through a float32 master copy, which is saved and resumed exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hookline import UpdateConfig
from hookline.loop.loop import PhaseLoop
from hookline.training.optim import Optimiser

Lab = Callable[..., PhaseLoop]
OPTIMISERS = ["adamw", "muon", "rmsprop", "sgd"]


def made(kind: Any, dtype: torch.dtype, lr: float = 1e-5) -> tuple[Optimiser, dict[str, nn.Parameter]]:
    values = {"policy/matrix": torch.ones(4, 4), "policy/vector": torch.linspace(0.5, 2, 4)}
    parameters = {name: nn.Parameter(value.to(dtype)) for name, value in values.items()}
    return Optimiser(UpdateConfig(optimizer=kind, lr=lr, weight_decay=0.0), parameters, {"policy/matrix"}), parameters


def go(optimiser: Optimiser, parameters: dict[str, nn.Parameter], steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in parameters.values():
            p.grad = (1 + torch.rand(p.shape, generator=generator)).bfloat16().to(p.dtype)
        optimiser.step(1.0)
        optimiser.zero()


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_steps_too_small_for_bfloat16_add_up(kind: str) -> None:
    """Each step is far below bfloat16's spacing at 1, .0078; their sum is the sum of float32 weights, rounded."""
    lr = 1e-4
    exact, exact_parameters = made(kind, torch.float32, lr)
    rounded, parameters = made(kind, torch.bfloat16, lr)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    for optimiser, its in ((exact, exact_parameters), (rounded, parameters)):
        with torch.no_grad():
            for p, value in zip(its.values(), start.values()):
                p.copy_(value)
        go(optimiser, its, 200)
    for name, p in parameters.items():
        assert p.dtype == torch.bfloat16
        assert p.grad is None
        torch.testing.assert_close(p.float(), exact_parameters[name].detach(), atol=2e-3, rtol=4e-3)
        assert not torch.equal(p, start[name])


@pytest.mark.parametrize("kind", OPTIMISERS)
def test_a_master_goes_on_bit_for_bit(kind: str) -> None:
    one, its = made(kind, torch.bfloat16)
    go(one, its, 3)
    saved = {name: {k: v.clone() for k, v in state.items()} for name, state in one.state_dict().items()}
    weights = {name: p.detach().clone() for name, p in its.items()}
    other, others = made(kind, torch.bfloat16)
    with torch.no_grad():
        for name, p in others.items():
            p.copy_(weights[name])
    other.load_state_dict(saved)
    go(one, its, 2, seed=2)
    go(other, others, 2, seed=2)
    for name, master in one.masters.items():
        assert torch.equal(master, other.masters[name])
        assert not torch.equal(master, master.bfloat16().float()), "what bfloat16 cannot hold is kept"


def test_a_weight_that_something_else_wrote_is_read_again() -> None:
    optimiser, parameters = made("adamw", torch.bfloat16)
    go(optimiser, parameters, 2)
    before = optimiser.masters["policy/matrix"].detach().clone()
    with torch.no_grad():
        parameters["policy/matrix"][0] = 7.0
    go(optimiser, parameters, 1)
    after = optimiser.masters["policy/matrix"]
    assert (after[0] - 7).abs().max() < 1e-3
    assert 0 < (after[1:] - before[1:]).abs().max() < 1e-3, "the others keep their float32 digits"


def test_an_adapter_on_bfloat16_weights_trains_in_float32(lab: Lab) -> None:
    shape = {"build": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 64, "dtype": "bfloat16"}
    loop = lab(model={**shape, "adapter": {"lora": {"rank": 2}}}, update={"use": "sft", "lr": 1e-5})
    trainer: Any = loop.phase.trainer
    assert all(p.dtype == torch.float32 for p in trainer.optimiser.parameters.values())


def test_a_run_in_bfloat16_is_saved_and_restored_exactly(lab: Lab, tmp_path: Path) -> None:
    from hookline.loop.checkpoint import Checkpoint

    shape = {"build": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 64, "dtype": "bfloat16"}
    loop = lab(model=shape, update={"use": "sft", "lr": 1e-5})
    trainer: Any = loop.phase.trainer
    loop.step()
    loop.phase.scope.step = 1
    Checkpoint(loop.phase).save()
    kept = {name: master.detach().clone() for name, master in trainer.optimiser.masters.items()}
    assert len(kept) == len(trainer.optimiser.weights)
    loop.step()
    Checkpoint(loop.phase).restore()
    assert all(torch.equal(master, kept[name]) for name, master in trainer.optimiser.masters.items())
    assert all(torch.equal(w, kept[name].bfloat16()) for name, w in trainer.optimiser.weights.items())
