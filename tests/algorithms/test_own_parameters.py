"""Parameters that a component has beside heads (`ctx.parameter`)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from judged_events import EVENTS, experiment
from safetensors.torch import load_file

import hookline


def test_a_parameter_has_its_own_rate_is_kept_and_left_behind(tmp_path: Path) -> None:
    made = experiment(
        tmp_path / "events.jsonl", EVENTS, {"comparison": "davidson", "own_lr": 0.25, "weight_decay": 1.0}
    )
    made["phases"].append(
        {**made["phases"][0], "name": "again", "model": {"from": "learn", "head": "reward"}, "evaluate": []}
    )
    made["phases"][1]["update"] = {"use": "latent-reward", "own_lr": 0.001}
    hookline.run(made, out=tmp_path / "run")
    first, second = (load_file(tmp_path / f"run/phases/{name}/model/model.safetensors") for name in ("learn", "again"))
    assert float(first["own.ties"]) != pytest.approx(
        math.log(0.5), abs=0.1
    )  # two steps of .25, where the network has .001
    assert float(second["own.thumb-cut"]) == pytest.approx(0.0, abs=0.003)  # began anew
    assert "own.ties" not in second
    assert first["own.leniency"].shape == (256,)
