"""Which types a model computes in: `auto` is settled once, at the start, by the folder and the machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import hookline
from hookline.cli import main
from hookline.loop.api import plan
from hookline.runs.run import Run
from hookline.world import devices

Machine = Callable[[bool], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """`machine(True)`: from here on the processor computes in bfloat16."""

    def be(fast: bool) -> None:
        flags = {"avx512_bf16": fast, "amx_bf16": False}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)

    return be


def auto(tiny: Any, **model: Any) -> dict[str, Any]:
    experiment: dict[str, Any] = tiny(reward="tokens", advantage="loo", steps=2, save={"every": 1})
    experiment["model"] |= {"autocast": "auto", "dtype": "auto", **model}
    return experiment


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bfloat16"), (False, "none")])
def test_autocast_auto_is_what_the_processor_computes_in(tiny: Any, machine: Machine, fast: bool, chosen: str) -> None:
    machine(fast)
    model = plan({**auto(tiny), "device": "cpu"}).experiment.model
    assert (model.autocast, model.dtype) == (chosen, "float32")


@pytest.mark.parametrize(("capability", "fast"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_computes_in_bfloat16_from_sm80(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.computes_in_bfloat16(torch.device("cuda", 0)) is fast
    assert not devices.computes_in_bfloat16(torch.device("mps"))


def test_the_choice_is_written_down_and_shown(
    tiny: Any, tmp_path: Path, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(True)
    experiment = {**auto(tiny), "device": "cpu"}
    experiment["phases"][0]["model"] = {"autocast": "auto"}
    run = hookline.run(experiment, out=tmp_path / "run")
    assert '"auto"' not in json.dumps({**run.experiment, "device": ""})
    assert run.experiment["model"]["autocast"] == run.experiment["phases"][0]["model"]["autocast"] == "bfloat16"
    (tmp_path / "e.yaml").write_text(json.dumps(experiment))
    assert main(["explain", str(tmp_path / "e.yaml")]) == 0
    assert "in float32, products in bfloat16" in capsys.readouterr().out


def test_a_run_that_goes_on_keeps_the_types_it_began_with(tiny: Any, tmp_path: Path, machine: Machine) -> None:
    experiment = {**auto(tiny), "device": "cpu"}
    machine(True)
    hookline.run(experiment, out=tmp_path / "run")
    machine(False)  # the same command on another machine
    more = {**experiment, "trackers": []}
    run = hookline.run(more, out=tmp_path / "run")
    assert run.resumed
    assert Run.read(tmp_path / "run").experiment["model"]["autocast"] == "bfloat16"


@pytest.mark.parametrize(
    ("config", "own"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({"dtype": "float32"}, "float32"),
        ({"dtype": "float16"}, "float32"),
        ({}, "float32"),
    ],
)
def test_dtype_auto_is_the_folder_s_own(tiny: Any, tmp_path: Path, config: dict[str, Any], own: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **config}))
    (folder / "model.safetensors").write_bytes(b"")
    experiment = tiny(reward="length", advantage="loo")
    experiment["model"] = {"path": str(folder), "dtype": "auto"}
    planned = plan(experiment)
    assert planned.experiment.model.dtype == own
    assert any("float16, which is not suitable for training" in n for n in planned.notes) == (
        config.get("dtype") == "float16"
    )
