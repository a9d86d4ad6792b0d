"""Adapters that peft saved: merged into their base, or trained further; equal to what peft itself computes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_folders import experiment, phases, rows

import hookline
from hookline import ExperimentError
from hookline.testing import open_phase

IDS = torch.tensor([[3, 5, 7, 11, 13, 17]])
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama3", {}),
    "rslora": ("llama3", {"use_rslora": True, "target_modules": ["q_proj", "down_proj"]}),
    "dora": ("llama3", {"use_dora": True}),
    "ranks": ("qwen2", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}}),
    "whole": ("llama3", {"modules_to_save": ["norm"], "target_modules": ["q_proj"]}),
    "conv1d": ("gpt2", {"fan_in_fan_out": True, "target_modules": ["c_attn"]}),
    "dropout": ("qwen2", {"lora_dropout": 0.3}),
    "regex": ("qwen2", {"target_modules": r".*layers\.0\.self_attn\.(q|v)_proj"}),
}
"""A shape of model, and options of peft."""


def adapter(base: Path, folder: Path, **options: Any) -> Any:
    """Write an adapter as peft does, with weights far from its start. Returns peft's model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **options})
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for p in made.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p) * 0.1)
    made.save_pretrained(folder)
    return made.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_computes_what_it_computes_in_peft(kind: str, shelf_of_folders: Path, tmp_path: Path) -> None:
    shape, options = KINDS[kind]
    base = shelf_of_folders / shape
    theirs = adapter(base, tmp_path / "adapter", **options)
    with torch.no_grad():
        expected = theirs(input_ids=IDS).logits
    files = rows(tmp_path)
    dpo = phases(files)["dpo"]
    with open_phase(experiment(tmp_path / "adapter", "dpo", dpo)) as opened, torch.no_grad():
        role = opened.phase.roles["policy"]
        assert not role.adapter
        torch.testing.assert_close(role.net(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-4)
        assert all(p.requires_grad for p in role.net.parameters())
    goes_on = experiment(base, "dpo", {**dpo, "model": {"adapter": {"lora": {"from": str(tmp_path / "adapter")}}}})
    with open_phase(goes_on) as opened, torch.no_grad():
        role, reference = opened.phase.roles["policy"], opened.phase.roles["reference"]
        torch.testing.assert_close(role.net(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-4)
        with reference.computing():  # the phase begins with the adapter, and so does what it is compared with
            torch.testing.assert_close(reference.net(input_ids=IDS).logits, expected, atol=1e-5, rtol=1e-4)
        trained = {name for name, p in role.net.named_parameters() if p.requires_grad}
        assert trained == {name for name, p in theirs.named_parameters() if p.requires_grad}
        with role.net.disable_adapter(), theirs.disable_adapter():
            torch.testing.assert_close(role.net(input_ids=IDS).logits, theirs(input_ids=IDS).logits)


def test_a_run_goes_on_with_an_adapter_is_resumed_and_gives_one_back(shelf_of_folders: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base, files = shelf_of_folders / "qwen2", rows(tmp_path)
    adapter(base, tmp_path / "adapter", rank_pattern={"q_proj": 2})
    described = experiment(base, "sft", phases(files)["sft"])
    described["model"]["adapter"] = {"lora": {"from": "adapter"}}
    described["folder"] = str(tmp_path)
    run = hookline.run(described, out=tmp_path / "run")
    assert f"model:{tmp_path / 'adapter'}" in run.about["data"]
    shutil.rmtree(tmp_path / "adapter")  # a run needs only itself afterwards
    said = hookline.generate(run, ["open the file"], max_new_tokens=8, temperature=0)
    merged = AutoModelForCausalLM.from_pretrained(hookline.export(run, tmp_path / "merged"))
    alone = hookline.export(run, tmp_path / "alone", adapter=True)
    assert json.loads((alone / "adapter_config.json").read_text())["rank_pattern"] == {"q_proj": 2}
    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alone)
    torch.testing.assert_close(net(input_ids=IDS).logits, merged(input_ids=IDS).logits, atol=1e-5, rtol=1e-4)
    assert hookline.generate(alone, ["open the file"], max_new_tokens=8, temperature=0) == said, "an adapter is a model"
    again = hookline.run(experiment(alone, "sft", phases(files)["sft"]), out=tmp_path / "second")
    resolved = json.loads((again.directory / "experiment.json").read_text())
    assert resolved["model"]["merge"] == str(alone)
    assert resolved["model"]["path"] == str(base)
    assert {f"model:{alone}", f"model:{base}"} <= again.about["data"].keys()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda about: about.update(base_model_name_or_path="someone/base"), "model someone/base, which is not a folder here"),
        (lambda about: about.pop("base_model_name_or_path"), "does not name its model"),
        (lambda about: about.update(task_type="SEQ_CLS"), "adapter of a reward model or classifier"),
        (lambda about: about.update(peft_type="PROMPT_TUNING"), "holds learned prompts"),
        (lambda about: about.update(peft_type="NEW"), "does not fit Qwen2ForCausalLM"),
        (lambda about: about.update(megatron_config={"a": 1}, megatron_core="os"), "Megatron's layers"),
        (lambda about: about.update(r=5), "does not fit Qwen2ForCausalLM: size mismatch"),
        (lambda about: about.update(target_modules=["gone"]), "does not fit Qwen2ForCausalLM"),
        (lambda about: about.update(target_modules=["q_proj"]), "weights for layers that the model lacks"),
        (lambda about: about.pop("peft_type"), "names no peft_type"),
    ],
)  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_before_weights_are_read(
    change: Callable[[Any], Any], words: str, shelf_of_folders: Path, tmp_path: Path
) -> None:
    base, files = shelf_of_folders / "qwen2", rows(tmp_path)
    adapter(base, tmp_path / "adapter")
    config = tmp_path / "adapter/adapter_config.json"
    about = json.loads(config.read_text())
    change(about)
    config.write_text(json.dumps(about))
    with pytest.raises(ExperimentError) as caught:
        hookline.explain(experiment(tmp_path / "adapter", "sft", phases(files)["sft"]))
    assert words in str(caught.value) + " ".join(caught.value.problems)


def test_what_is_missing_or_unsafe_is_refused(shelf_of_folders: Path, tmp_path: Path) -> None:
    base, files = shelf_of_folders / "qwen2", rows(tmp_path)

    def refused(words: str, **model: Any) -> None:
        described = experiment(base, "sft", phases(files)["sft"])
        described["model"] |= model
        with pytest.raises(ExperimentError) as caught:
            hookline.explain(described)
        assert words in str(caught.value) + " ".join(caught.value.problems)

    folder = tmp_path / "adapter"
    refused("there is no folder", merge=str(folder))
    adapter(base, folder)
    hookline.explain({**experiment(base, "sft", phases(files)["sft"]), "model": {"path": str(base), "merge": str(folder)}})
    refused("leave `rank` out", adapter={"lora": {"from": str(folder), "rank": 4}})
    weights = folder / "adapter_model.safetensors"
    weights.rename(folder / "adapter_model.bin")
    refused("would have to be unpickled", merge=str(folder))
    refused("would have to be unpickled", adapter={"lora": {"from": str(folder)}})
    weights.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    refused("cannot be read", merge=str(folder))
    shutil.rmtree(folder)
    tied = shelf_of_folders / "gpt2"
    adapter(tied, folder, target_modules=["lm_head"])
    refused("whose weight is shared with another layer", path=str(tied), merge=str(folder))
    refused("whose weight is shared with another layer", path=str(tied), adapter={"lora": {"from": str(folder)}})
    shutil.rmtree(folder)
    adapter(base, folder, bias="all")
    refused("stays changed when the adapter is off", adapter={"lora": {"from": str(folder)}})
    hookline.explain({**experiment(base, "sft", phases(files)["sft"]), "model": {"path": str(base), "merge": str(folder)}})
    refused("is for the model of a folder", path=None, build="llama", merge=str(folder))
