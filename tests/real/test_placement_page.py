"""docs/placement.md: its commands are run on a small model, and what its tables name exists and is as they say."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from torch import nn

import hookline
from hookline import UpdateConfig
from hookline.cli import main
from hookline.config.experiment import ModelSpec
from hookline.training.optim import Optimiser
from hookline_plugins.models.lora import LoRA

PAGE = (Path(__file__).resolve().parents[2] / "docs/placement.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    table = PAGE.partition(f"## {heading}\n")[2].partition("|---")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]


def test_the_page_from_top_to_bottom(
    shelf_of_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shelf_of_folders / "qwen2", tmp_path / "models/base")
    output = ""
    for language, name, text in FENCE.findall(PAGE):
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
        elif language == "sh":
            output = ""
            for command in text.splitlines():
                code = main(shlex.split(command, comments=True)[1:])
                said = capsys.readouterr()
                assert code == 0, f"$ {command}\n{said.out}{said.err}"
                output += said.out
        elif language == "text":
            for line in text.splitlines():
                assert re.search(".*".join(re.escape(part) for part in line.split("…")), output), (line, output)
    above, further = (hookline.Run.read(f"runs/{name}") for name in ("above", "further"))
    assert above.experiment["model"]["merge"] == "adapter"
    for run in (above, further):
        assert any(name.startswith("model:") and name.endswith("adapter") for name in run.about["data"])


def test_every_option_that_the_page_names_exists() -> None:
    for words in re.findall(r"`((?:\w+: \w+(?:, )?)+)`", PAGE):
        for option, value in (word.split(": ") for word in words.split(", ")):
            fields = UpdateConfig.model_fields if option in UpdateConfig.model_fields else ModelSpec.model_fields
            assert option in fields, words
            if option in ("dtype", "autocast", "attention"):
                ModelSpec.model_validate({option: value})


def test_the_table_of_pefts_names_is_about_options_that_exist() -> None:
    for theirs, ours, _ in rows("Adapters, in and out"):
        assert theirs.strip("`") in LoraConfig.__dataclass_fields__
        assert ours == "–" or ours.strip("`") in LoRA.Config.model_fields
    assert LoraConfig().r == LoRA.Config().rank == 8
    assert LoraConfig().lora_alpha == 8


@pytest.mark.parametrize("kind", ["adamw", "muon", "rmsprop", "sgd"])
def test_the_state_of_an_optimiser_has_the_bytes_that_the_page_says(kind: str) -> None:
    said = next(row[2] for row in rows("Optimisers") if row[0].startswith(f"`{kind}`"))
    expected = [int(number) for number in re.findall(r"\d+", said)]
    weights = {"policy/hidden": nn.Parameter(torch.randn(64, 64)), "policy/outer": nn.Parameter(torch.randn(64, 64))}
    optimiser = Optimiser(UpdateConfig(optimizer=kind, lr=1e-3), weights, {"policy/hidden"})
    for weight in weights.values():
        weight.grad = torch.ones_like(weight)
    optimiser.step(1.0)
    held = [
        sum(t.numel() * t.element_size() for t in part.state[weight].values() if torch.is_tensor(t) and t.dim()) / 64**2
        for weight in weights.values()
        for part in optimiser.parts
        if weight in part.state or kind == "sgd"
    ]
    assert held == (expected if len(expected) == 2 else expected * 2)


def test_decay_reaches_matrices_alone() -> None:
    weights = {"policy/matrix": nn.Parameter(torch.ones(4, 4)), "policy/vector": nn.Parameter(torch.ones(4))}
    optimiser = Optimiser(UpdateConfig(lr=1e-2, weight_decay=0.5), weights, set())
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimiser.step(1.0)
    assert torch.equal(weights["policy/vector"], torch.ones(4))
    assert not torch.equal(weights["policy/matrix"], torch.ones(4, 4))
