"""How a model is placed and adapted: attention, LoRA's options, RMSprop; each trains, is exported, and is what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import hookline
from hookline import ExperimentError, UpdateConfig
from hookline.loop.api import open_finished
from hookline.testing import open_phase
from hookline.training.optim import Optimiser

PHASE: dict[str, Any] = {
    "name": "p",
    "steps": 2,
    "rollout": {
        "use": "generate",
        "prompts": "builtin:keywords",
        "rows": 4,
        "samples_per_prompt": 4,
        "max_new_tokens": 8,
    },
    "reward": "length",
    "update": {"use": "grpo", "lr": 1e-2, "kl_loss": 0.1},
}


def experiment(phase: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    return {
        "name": "placed",
        "seed": 1,
        "threads": 1,
        "tokenizer": {"train": "bpe", "on": "builtin:keywords/sentences", "vocabulary": 300},
        "model": {"build": "llama", "layers": 2, "width": 32, "heads": 2, "context": 64, **model},
        "phases": [{**PHASE, **(phase or {})}],
        "trackers": [],
    }


@pytest.mark.parametrize(
    "options",
    [
        {"rslora": True},
        {"dora": True},
        {"modules_to_save": ["down_proj"]},
        {"modules_to_save": ["norm"], "modules": ["q_proj"]},
    ],
    ids=str,
)
def test_an_adapter_is_exported_as_it_was_trained(options: dict[str, Any], tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    run = hookline.run(experiment(adapter={"lora": {"rank": 4, **options}}), out=tmp_path / "run")
    first, last = run.rows()[0]["metrics"], run.rows()[-1]["metrics"]
    assert first["behaviour_gap"] == pytest.approx(1.0, abs=1e-4), "what is drawn is what is trained"
    assert last["grad_norm"] > 0
    merged = AutoModelForCausalLM.from_pretrained(hookline.export(run, tmp_path / "merged"))
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with open_finished(hookline.Run.read(run.directory)) as loop, torch.no_grad():
        role = loop.phase.roles["policy"]
        torch.testing.assert_close(merged(input_ids=ids).logits, role.net(input_ids=ids).logits, atol=1e-4, rtol=1e-3)
        trained = role.net(input_ids=ids).logits
        reference = role.without_adapter("reference")
        with reference.computing():
            base = reference.net(input_ids=ids).logits
    assert not torch.allclose(base, trained, atol=1e-4)
    with open_phase(experiment()) as plain, torch.no_grad():
        assert torch.equal(base, plain.phase.roles["policy"].net(input_ids=ids).logits), (
            "with the adapter off, the base"
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 0.1}, "dropout is always off"),
        ({"lora_dropout": 0.1}, "dropout is always off"),
        ({"modules_to_save": ["head"]}, "the model has no module 'head' with weights of its own"),
        ({"modules_to_save": ["q_proj"], "modules": ["q_proj"]}, "a layer is adapted or trained whole"),
        ({"use_dora": True}, "did you mean 'dora'"),
        ({"r": 8}, "did you mean 'rank'"),
    ],
    ids=str,
)
def test_options_that_are_not_there_are_answered(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        hookline.explain(experiment(adapter={"lora": options}))
    assert words in str(caught.value) + " ".join(caught.value.problems)


def test_attention_is_computed_as_asked_and_gives_the_same(tmp_path: Path) -> None:
    rows = {}
    for attention in ("sdpa", "eager"):
        run = hookline.run(experiment(attention=attention), out=tmp_path / attention)
        rows[attention] = run.rows()[-1]["metrics"]["grad_norm"]
        with open_finished(hookline.Run.read(run.directory)) as loop:
            assert loop.phase.roles["policy"].net.config._attn_implementation == attention
    assert rows["sdpa"] == pytest.approx(rows["eager"], rel=1e-2)


def test_flash_attention_is_refused_without_a_gpu() -> None:
    assert "attention: flash needs a GPU" in refusal({**experiment(attention="flash"), "device": "cpu"})


def refusal(made: dict[str, Any] | str) -> str:
    """What `explain` answers, which loads no weights."""
    with pytest.raises(ExperimentError) as caught:
        hookline.explain(made)
    return "\n".join([str(caught.value), *caught.value.problems])


def saved(kind: str, folder: Path, **sizes: Any) -> str:
    """A tiny network of a transformers type, as a folder."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    config = CONFIG_MAPPING[kind](vocab_size=300, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return str(folder)


BLOOM = {"hidden_size": 16, "n_layer": 1, "n_head": 2}
FLINT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "num_experts": 2,
         "intermediate_size": 16, "moe_intermediate_size": 16}  # fmt: skip
FALCON = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64}


def of_folder(path: str, phase: dict[str, Any] | None = None, **model: Any) -> dict[str, Any]:
    return {**experiment(phase), "model": {"path": path, **model}}


def test_attention_that_a_network_lacks_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    bloom = saved("bloom", tmp_path / "bloom", **BLOOM)
    why = "BloomForCausalLM cannot compute it: it was built with eager, which cannot be changed"
    file = tmp_path / "experiment.yaml"
    for made in (of_folder(bloom, attention="sdpa"), of_folder(bloom, {"model": {"attention": "sdpa"}})):
        file.write_text(json.dumps(made, indent=1))
        line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if '"attention"' in text)
        said = refusal(str(file))
        assert f"line {line}: attention: sdpa: the network {why}" in said
    hookline.explain(of_folder(bloom, attention="eager"))


def test_attention_of_a_named_reward_model_is_tried_too(tmp_path: Path) -> None:
    from transformers import (
        AutoTokenizer,
        BloomConfig,
        BloomForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
    )

    run = hookline.run(experiment({"steps": 1}), out=tmp_path / "run")
    folder = hookline.export(run, tmp_path / "model")
    made = {}
    for name, net in {
        "bloom": BloomForSequenceClassification(BloomConfig(vocab_size=300, num_labels=1, pad_token_id=0, **BLOOM)),
        "gpt2": GPT2ForSequenceClassification(GPT2Config(vocab_size=300, num_labels=1, pad_token_id=0, **GPT)),
    }.items():
        net.save_pretrained(tmp_path / name)
        AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / name)
        made[name] = experiment({"reward": {"use": "reward-model", "path": str(tmp_path / name)}}, attention="sdpa")
    said = refusal(made["bloom"])
    assert "BloomForSequenceClassification cannot compute it" in said
    hookline.explain(made["gpt2"])


@pytest.mark.parametrize(
    ("kind", "sizes", "why"),
    [
        ("falcon", FALCON, "FalconForCausalLM cannot compute it: it was built with sdpa, which cannot be changed"),
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 1}, "MambaForCausalLM does not support Flash Attention 2"),
        ("flint", FLINT, "its kernels are others (kernels-community/vllm-flash-attn3"),
    ],
)
def test_flash_attention_that_a_network_lacks_is_refused_where_all_else_is_there(
    kind: str, sizes: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hookline.plan import networks

    folder = saved(kind, tmp_path / kind, **sizes)
    there = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: object()))
    monkeypatch.setattr(networks.devices, "resolve", lambda name, local=0: torch.device("cuda"))
    monkeypatch.setattr(networks, "importlib", there)
    assert why in refusal(of_folder(folder, attention="flash", dtype="bfloat16"))


def test_a_run_that_was_trained_with_flash_attention_is_exported_and_asked_without_a_gpu(tmp_path: Path) -> None:
    run = hookline.run(experiment({"steps": 1}), out=tmp_path / "run")
    said = hookline.generate(run, ["open"], max_new_tokens=4, temperature=0)
    file = run.directory / "experiment.json"
    made = json.loads(file.read_text())
    made["model"]["attention"] = "flash"
    file.write_text(json.dumps(made))
    assert hookline.generate(run.directory, ["open"], max_new_tokens=4, temperature=0, device="cpu") == said
    folder = hookline.export(run.directory, tmp_path / "exported")
    assert hookline.generate(folder, ["open"], max_new_tokens=4, temperature=0) == said


def test_recomputing_that_a_network_lacks_is_refused_before_weights_are_loaded(tmp_path: Path) -> None:
    folder = saved("openai-gpt", tmp_path / "gpt", **GPT)
    said = refusal(of_folder(folder, gradient_checkpointing=True))
    assert "gradient_checkpointing: the network OpenAIGPTLMHeadModel cannot recompute activations" in said
    hookline.explain(of_folder(folder))


def test_rmsprop_is_torchs_with_decay_apart() -> None:
    torch.manual_seed(0)
    weight, twin = (torch.nn.Parameter(value) for value in torch.randn(1, 4, 4).repeat(2, 1, 1))
    ours = Optimiser(
        UpdateConfig(optimizer="rmsprop", lr=1e-2, betas=(0.0, 0.9), weight_decay=0.1), {"policy/w": weight}, set()
    )
    theirs = torch.optim.RMSprop([twin], lr=1e-2, alpha=0.9)
    for _ in range(3):
        gradient = torch.randn(4, 4)
        weight.grad, twin.grad = gradient.clone(), gradient.clone()
        ours.step(1.0)
        with torch.no_grad():
            twin.mul_(1 - 1e-2 * 0.1)
        theirs.step()
    torch.testing.assert_close(weight, twin)


def test_rmsprop_goes_on_bit_for_bit(tmp_path: Path) -> None:
    phase = {"update": {**PHASE["update"], "optimizer": "rmsprop"}}
    whole = hookline.run(experiment({**phase, "steps": 4}), out=tmp_path / "whole")
    run = hookline.run(experiment({**phase, "steps": 2}), out=tmp_path / "run")
    longer = hookline.run(experiment({**phase, "steps": 4}), out=tmp_path / "run")
    assert len(run.rows()) < len(longer.rows())
    assert [row["metrics"]["loss"] for row in longer.rows()] == [row["metrics"]["loss"] for row in whole.rows()]
