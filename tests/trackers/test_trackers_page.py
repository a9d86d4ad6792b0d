"""docs/trackers.md: the figures that its table names are declared, and its sweep is one that runs take."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from hookline.contract.metrics import CORE_METRICS
from hookline_plugins.algorithms.dpo import DPO
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.ppo import PPO
from hookline_plugins.trackers.wandb import AXES, ENVIRONMENT
from hookline_plugins.wrappers.kl_penalty import KLPenalty

PAGE = (Path(__file__).resolve().parents[2] / "docs/trackers.md").read_text(encoding="utf-8")


def test_every_figure_of_the_table_is_declared() -> None:
    table = PAGE.partition("## The panels you look for")[2]
    shown = {
        name
        for row in re.findall(r"^\| .* \| .* \| (.*) \|$", table, re.MULTILINE)
        for name in re.findall(r"`([\w/]+)`", row)
    }
    declared = {
        metric.name
        for part in (CORE_METRICS, PPO.metrics, GRPO.metrics, DPO.metrics, KLPenalty.metrics)
        for metric in part
    }
    known = declared | set(AXES) | {"reward/NAME", "seconds/rollout", "seconds/reward", "seconds/update"}
    assert {name.removeprefix("eval/") for name in shown} - known == set()


def test_every_variable_of_the_environment_is_named() -> None:
    assert set(ENVIRONMENT.values()) <= set(re.findall(r"WANDB_\w+", PAGE))


def test_the_sweep_is_yaml_whose_command_ends_with_overrides() -> None:
    sweep = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    assert sweep["command"][:2] == ["hookline", "run"]
    assert sweep["command"][-1] == "${args_no_hyphens}"
