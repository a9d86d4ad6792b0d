"""Models as experiments ask for them: types, recomputation, architectures, local folders, and what `export` writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline.cli import main
from hookline.loop.loop import PhaseLoop
from hookline.training.statistics import forward

Lab = Callable[..., PhaseLoop]
GPT2 = {"build": "gpt2", "layers": 2, "width": 32, "heads": 2, "context": 64}
LLAMA = {"build": "llama", "layers": 2, "width": 32, "heads": 2, "context": 64}


def ppo(sampled: dict[str, Any]) -> dict[str, Any]:
    return {
        "rollout": sampled,
        "reward": "length",
        "wrap": ["kl-penalty"],
        "advantage": "gae",
        "update": {"use": "ppo", "lr": 1e-3},
    }


@pytest.mark.parametrize(
    "model",
    [
        {**GPT2, "dtype": "bfloat16"},
        {**GPT2, "autocast": "bfloat16"},
        {**GPT2, "gradient_checkpointing": True},
        LLAMA,
        {**LLAMA, "adapter": {"lora": {"rank": 2}}},
    ],
    ids=["bfloat16", "autocast", "checkpointing", "llama", "llama-lora"],
)
def test_ppo_runs_saves_and_goes_on(lab: Lab, sampled: dict[str, Any], model: dict[str, Any]) -> None:
    loop = lab(model, **ppo(sampled))
    before = loop.ctx.role_named("policy").hash()
    loop.step()
    loop.phase.scope.step = 1
    loop.checkpoint.save()
    assert loop.ctx.role_named("policy").hash() != before
    saved = loop.ctx.role_named("policy").hash()
    loop.step()
    loop.checkpoint.restore()
    assert loop.ctx.role_named("policy").hash() == saved


def test_recomputation_happens_in_training_alone_and_changes_no_gradient(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.utils.checkpoint

    calls: list[int] = []
    real = torch.utils.checkpoint.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return real(*args, **kwargs)

    gradients = []
    for recompute in (False, True):
        loop = lab({**GPT2, "gradient_checkpointing": recompute}, update="sft")
        role = loop.ctx.role_named("policy")
        if recompute:
            for module in role.net.modules():
                if hasattr(module, "_gradient_checkpointing_func"):
                    inner = module._gradient_checkpointing_func
                    module._gradient_checkpointing_func = lambda *a, _inner=inner, **k: (
                        calls.append(1),
                        _inner(*a, **k),
                    )[1]
        batch = loop.hooks.rollout(loop.ctx)
        loop.ctx.stats(batch)
        assert not calls, "statistics need no recomputation"
        (-forward(role, batch, ("logprobs",))["logprobs"].sum()).backward()
        gradients.append({name: p.grad.clone() for name, p in role.trainable().items() if p.grad is not None})
    assert calls, "the flag does something"
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-5)


def test_a_local_folder_is_loaded_as_it_was_exported(
    lab: Lab, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loop = lab(update={"use": "sft", "lr": 1e-3}, steps=2)
    from hookline.world.signals import Stopping

    loop.run(Stopping())
    loop.session.run.close()
    folder = tmp_path / "exported"
    assert main(["export", str(loop.session.run.directory), str(folder)]) == 0
    text = "To open a file."
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    assert ids[0].tolist() == loop.ctx.tokenizer.encode(text)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder)(ids).logits
        ours = loop.ctx.role_named("policy").net(ids).logits
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
    again = lab({"path": str(folder)}, update="sft")
    batch = again.hooks.rollout(again.ctx)
    torch.testing.assert_close(again.ctx.stats(batch).logprobs_BT, loop.ctx.stats(batch).logprobs_BT, atol=1e-5, rtol=0)


def test_dropout_of_a_loaded_model_is_off_even_where_training_mode_is_on() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from hookline.models.load import never_drop_out

    net = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=1, n_positions=16, resid_pdrop=0.5, attn_pdrop=0.5)
    )
    never_drop_out(net)
    net.train()
    ids = torch.arange(8)[None]
    with torch.no_grad():
        torch.testing.assert_close(net(ids).logits, net(ids).logits, atol=0, rtol=0)
