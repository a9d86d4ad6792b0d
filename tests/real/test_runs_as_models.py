"""A run's model is a folder: transformers loads it, and another run starts from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_folders import experiment, phases, rows

import hookline
from hookline.loop.api import open_finished


@pytest.mark.parametrize("shape", ["llama3", "gpt2"])
def test_the_model_of_a_phase_is_a_folder_that_transformers_loads(
    shape: str, shelf_of_folders: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files = rows(tmp_path)
    run = hookline.run(experiment(shelf_of_folders / shape, "sft", phases(files)["sft"]), out=tmp_path / "first")
    folder = run.directory / "phases/sft/model"
    net, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template
    ids = torch.tensor([tokenizer("open the file")["input_ids"]])
    with open_finished(hookline.Run.read(run.directory)) as loop, torch.no_grad():
        torch.testing.assert_close(net(input_ids=ids).logits, loop.phase.roles["policy"].net(input_ids=ids).logits)
    for path in (run.directory, run.directory / "phases/sft", folder):
        again = experiment(path, "dpo", phases(files)["dpo"])
        with hookline.testing.open_phase(again) as opened:
            here = opened.phase.roles["policy"].tensors()
            assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in here.items())
            assert opened.session.tokenizer.chat is not None


def test_a_run_that_built_its_model_starts_another_too(tiny: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    run = hookline.run(tiny(reward="tokens"), out=tmp_path / "first")
    described = tiny(reward="tokens")
    described["model"] = {"path": str(run.directory)}
    del described["tokenizer"]
    again = hookline.run(described, out=tmp_path / "second")
    assert again.rows()
    first, second = (hookline.Tokenizer.load(each.directory / "tokenizer") for each in (run, again))
    assert first.prompt("open the file") == second.prompt("open the file")
    assert first.ends == second.ends


def test_an_adapter_is_exported_alone_or_merged(
    shelf_of_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    files, base = rows(tmp_path), shelf_of_folders / "qwen2"
    described = experiment(base, "sft", {**phases(files)["sft"], "model": {"adapter": {"lora": {"rank": 2}}}})
    run = hookline.run(described, out=tmp_path / "run")
    merged = AutoModelForCausalLM.from_pretrained(hookline.export(run, tmp_path / "merged"))
    with monkeypatch.context() as alone_on_disk:
        alone_on_disk.setattr("hookline.study.finished.export", None)  # a run is asked without a copy of its weights
        said = hookline.generate(run, ["open the file", "close"], max_new_tokens=12, temperature=0)
    assert hookline.generate(tmp_path / "merged", ["open the file", "close"], max_new_tokens=12, temperature=0) == said
    alone = hookline.export(run, tmp_path / "alone", adapter=True)
    assert not (alone / "model.safetensors").exists()
    net = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), alone)
    ids = torch.tensor([AutoTokenizer.from_pretrained(alone)("open the file")["input_ids"]])
    torch.testing.assert_close(net(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    plain = hookline.run(experiment(base, "sft", phases(files)["sft"]), out=tmp_path / "plain")
    with pytest.raises(hookline.HooklineError, match="has no adapter"):
        hookline.export(plain, tmp_path / "none", adapter=True)
    with pytest.raises(hookline.HooklineError, match="holds an adapter beside the weights of its base"):
        hookline.run(experiment(run.directory, "dpo", phases(files)["dpo"]), out=tmp_path / "again")


def test_a_reward_model_gives_no_answers(shelf_of_folders: Path, tmp_path: Path) -> None:
    run = hookline.run(experiment(shelf_of_folders / "qwen2", "rm", phases(rows(tmp_path))["rm"]), out=tmp_path / "run")
    with pytest.raises(hookline.HooklineError, match="is a reward model, which gives no answers"):
        hookline.generate(run, ["open"])
