"""Parameters that a component has beside heads (`ctx.parameter`)."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from judged_events import EVENTS, experiment
from safetensors.torch import load_file
from torch import nn

import hookline
from hookline import PluginError
from hookline.testing import open_phase
from hookline.training.optim import Optimiser
from hookline_plugins.algorithms.judged import Options


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


def test_a_parameter_of_another_component_or_shape_is_refused(tmp_path: Path) -> None:
    with open_phase(experiment(tmp_path / "events.jsonl", EVENTS)) as loop:
        roles = loop.ctx._resources.roles
        roles.settling = True
        mine = roles.add_parameter("mine", "a", torch.zeros(2), "policy", None)
        assert roles.add_parameter("mine", "a", torch.zeros(2), "policy", None) is mine
        for who, shape in (("b", 2), ("a", 3)):
            with pytest.raises(
                PluginError, match=rf"'{who}' asks for a parameter 'mine' of shape \[{shape}\], but 'a' has"
            ):
                roles.add_parameter("mine", who, torch.zeros(shape), "policy", None)


def test_own_parameters_are_not_decayed() -> None:
    """Whatever their shape, unlike a matrix of the network."""
    own = {f"policy/own.{d}": nn.Parameter(torch.ones([2] * d)) for d in (1, 2)}
    weight = {"policy/weight": nn.Parameter(torch.ones(2, 2))}
    made = Optimiser(Options(lr=0.1, weight_decay=0.5), {**own, **weight}, set(), dict.fromkeys(own, 0.1))
    decayed = {
        made.names[id(p)]: group["weight_decay"]
        for part in made.parts
        for group in part.param_groups
        for p in group["params"]
    }
    assert decayed == {"policy/own.1": 0.0, "policy/own.2": 0.0, "policy/weight": 0.5}
