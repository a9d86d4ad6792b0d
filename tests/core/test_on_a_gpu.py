"""What only a GPU shows of how a model is placed: `pytest -m gpu`. tests/core/test_placement.py has what a CPU shows."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hookline.batch.stages import Rollout
from hookline.loop.loop import PhaseLoop
from hookline.training.statistics import forward

Lab = Callable[..., PhaseLoop]
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")]
DEVICE = "cuda"
LLAMA = {"build": "llama", "layers": 2, "width": 64, "heads": 2, "context": 64}
SGD = {"lr": 0.1, "optimizer": "sgd", "grad_clip": 100.0, "micro_tokens": 60}
"""Plain steps, so that weights differ by as much as gradients do."""


@pytest.fixture
def grpo(lab: Lab, sampled: dict[str, Any], tmp_path: Path) -> Callable[..., PhaseLoop]:
    """`grpo(device, attention="eager")`: a phase of GRPO whose rewards differ within each group."""
    (tmp_path / "second.py").write_text(
        "def second(completions, **kwargs):\n    return [i % 2 for i in range(len(completions))]\n"
    )

    def make(device: str = DEVICE, update: dict[str, Any] | None = None, **model: Any) -> PhaseLoop:
        loop = lab(
            {**LLAMA, **model},
            device=device,
            rollout=sampled,
            reward=f"{tmp_path / 'second.py'}:second",
            update={"use": "grpo", **SGD, **(update or {})},
        )
        assert {p.device.type for p in loop.ctx.role_named("policy").parameters().values()} == {device}
        return loop

    return make


def drawn(loop: PhaseLoop) -> Rollout:
    return loop.hooks.rollout(loop.ctx)


def stepped(loop: PhaseLoop, rollout: Rollout) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """The log-probs before a step over these rows, and the weights before and after it, on the CPU."""
    role = loop.ctx.role_named("policy")
    before = {name: tensor.cpu().clone() for name, tensor in role.tensors().items()}
    batch = loop.hooks.advantage(loop.ctx, loop.hooks.score(loop.ctx, rollout))
    logprobs_BT = loop.ctx.stats(batch).logprobs_BT
    loop.hooks.update(loop.ctx, batch)
    return logprobs_BT, before, {name: tensor.cpu() for name, tensor in role.tensors().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_a_step_of_grpo_is_the_same_with_both_of_torchs_attentions(grpo: Callable[..., PhaseLoop]) -> None:
    eager, sdpa = grpo(attention="eager"), grpo(attention="sdpa")
    rollout = drawn(eager)
    expected, before, weights = stepped(eager, rollout)
    found, _, others = stepped(sdpa, rollout)
    assert moved(before, weights)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=1e-5, rtol=0)


def test_flash_attention_draws_and_trains_as_sdpa_does(grpo: Callable[..., PhaseLoop]) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        pytest.skip("needs flash_attn: pip install flash-attn")
    flash, sdpa = (grpo(attention=name, dtype="bfloat16") for name in ("flash", "sdpa"))
    assert flash.ctx.role_named("policy").net.config._attn_implementation == "flash_attention_2"
    rollout = drawn(flash)
    found, before, weights = stepped(flash, rollout)
    expected, _, others = stepped(sdpa, rollout)
    assert rollout.behaviour is not None
    torch.testing.assert_close(found, rollout.behaviour.logprobs_BT, atol=5e-2, rtol=0)
    torch.testing.assert_close(found, expected, atol=5e-2, rtol=0)
    assert moved(before, weights)
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=1e-2, rtol=1e-2)


def test_bfloat16_weights_on_a_gpu_have_a_float32_copy_there(grpo: Callable[..., PhaseLoop]) -> None:
    loop = grpo(dtype="bfloat16", update={"optimizer": "adamw", "lr": 1e-5})
    trainer = loop.phase.trainer
    assert trainer is not None
    start = {name: master.detach().clone() for name, master in trainer.optimiser.masters.items()}
    _, before, weights = stepped(loop, drawn(loop))
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert start.keys() == trainer.parameters.keys()
    for name, master in trainer.optimiser.masters.items():
        assert (master.device.type, master.dtype) == (DEVICE, torch.float32)
        assert not torch.equal(master, start[name]), "a step far below bfloat16's spacing is kept"
        assert torch.equal(master.bfloat16(), trainer.parameters[name])
    assert len(moved(before, weights)) < len(weights), "norms, whose weights are 1, stay in bfloat16"


def test_recomputation_takes_less_memory_and_gives_the_same_gradient(
    lab: Lab, sampled: dict[str, Any], corpus: Path
) -> None:
    found = []
    for recompute in (False, True):
        model = {**LLAMA, "layers": 8, "width": 256, "gradient_checkpointing": recompute}
        loop = lab(model, device=DEVICE, rollout={**sampled, "rows": 16, "samples_per_prompt": 4, "max_new_tokens": 48},
                   reward="length", update={"use": "grpo"})  # fmt: skip
        role = loop.ctx.role_named("policy")
        batch = drawn(loop).to(role.device) if not found else found[0][0]
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        (-forward(role, batch, ("logprobs",))["logprobs"].mean()).backward()
        peak = torch.cuda.max_memory_allocated() - start
        found.append((batch, peak, {name: p.grad.cpu() for name, p in role.trainable().items() if p.grad is not None}))
    (_, peak, gradients), (_, less, others) = found
    assert less < 0.7 * peak
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-5, rtol=1e-4)


def test_an_adapter_on_a_gpu_takes_the_step_that_it_takes_on_the_cpu(grpo: Callable[..., PhaseLoop]) -> None:
    loops = [grpo(device, adapter={"lora": {"rank": 4}}) for device in ("cpu", DEVICE)]
    rollout = drawn(loops[0])
    (expected, before, weights), (found, _, others) = (stepped(loop, rollout) for loop in loops)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert moved(before, others)
    assert all("lora_" in name for name in moved(before, others)), "the base stays"
    for name, tensor in weights.items():
        torch.testing.assert_close(others[name], tensor, atol=1e-4, rtol=0)
