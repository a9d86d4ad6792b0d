"""A component named with its distribution, `hookline:NAME`, is called NAME in every place where a name can stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import figure_name, instance_name
from hookline.loop.api import plan
from hookline_plugins.report import words

TASK = {"use": "hookline:task", "task": "builtin:walks"}


def experiment() -> dict[str, Any]:
    rollout = {"use": "hookline:generate", "prompts": "builtin:walks", "rows": 4, "max_new_tokens": 10}
    return {
        "name": "long-names",
        "threads": 1,
        "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
        "model": {
            "build": {"use": "hookline:tabular", "task": "builtin:walks", "sees": ["position", "last"], "context": 12}
        },
        "phases": [
            {
                "name": "rl",
                "rollout": {**rollout, "samples_per_prompt": 2},
                "reward": [TASK],
                "wrap": {"use": "hookline:kl-penalty", "target": 3.0},
                "update": {"use": "hookline:rloo", "lr": 1e-3},
                "engine": "hookline:local",
                "steps": 2,
                "evaluate": [
                    {"rollout": rollout, "rows": 6, "reward": [TASK, "hookline:kl"]},
                    {"name": "again", "rollout": rollout, "rows": 6, "reward": TASK},
                ],
                "save": {"best": "eval/task"},
            }
        ],
        "trackers": ["hookline:report"],
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hookline.Run:
    return hookline.run(experiment(), out=tmp_path_factory.mktemp("names") / "run")


def test_rows_and_the_best_weights(run: hookline.Run) -> None:
    figures = run.rows()[-1]["metrics"]
    assert {"eval/task", "eval/kl", "eval/again/task", "reward/task"} <= figures.keys()
    assert not [name for name in figures if "hookline:" in name]
    assert (run.directory / "best/rl/model").is_dir()


def test_compare_chooses_the_same_figure_and_its_interval(run: hookline.Run) -> None:
    chosen, asked = hookline.compare([run.directory]), hookline.compare([run.directory], metric="eval/task")
    assert chosen["metric"] == asked["metric"] == "eval/task"
    assert asked["configurations"] == chosen["configurations"]
    [configuration] = chosen["configurations"]
    assert configuration["low"] is not None, "an interval, from the rows of the evaluation"
    assert not [note for note in asked["notes"] if "training rows" in note]


@pytest.mark.parametrize("metric", ["eval/hookline:task", "hookline:task"])
def test_a_figure_that_is_asked_for_with_the_distribution_is_never_another_one(run: hookline.Run, metric: str) -> None:
    assert hookline.compare([run.directory], metric=metric)["metric"] == "eval/task"
    [phase] = plan(experiment(), ["phases.rl.save.best=eval/again/hookline:task"]).phases
    assert phase.spec.save.best is not None
    assert phase.spec.save.best.figure == "eval/again/task"


def test_the_report_has_the_values(run: hookline.Run) -> None:
    numbers = json.loads((run.directory / "report.json").read_text())
    [phase] = numbers["phases"]
    assert [list(e["figures"]) for e in phase["evaluations"]] == [["task", "kl"], ["task"]]
    for evaluation in phase["evaluations"]:
        for figure in evaluation["figures"].values():
            assert ":" not in figure["component"]
            assert all(point["value"] is not None for point in figure["points"])
    assert phase["kl_target"] == 3.0
    assert "hookline:" not in phase["does"] + phase["chain"]


def test_words_for_a_tracker(run: hookline.Run) -> None:
    assert words.chain(run.experiment["phases"][0]) == "generate → task → rloo"


def test_an_override_reaches_it_by_either_name() -> None:
    for name in ("task", "hookline:task"):
        [phase] = plan(experiment(), [f"phases.rl.reward.{name}.weight=2"]).phases
        assert phase.rewards[0].weight == 2.0


@pytest.mark.parametrize(
    ("use", "name"),
    [
        ({"use": "kl"}, "kl"),
        ({"use": "hookline:kl", "name": None}, "kl"),
        ({"use": "hookline:kl", "name": "far"}, "far"),
        (hookline.Use.model_validate("hookline:kl"), "kl"),
        (hookline.Use.model_validate({"use": "kl", "name": "far"}), "far"),
    ],
)
def test_an_instance_has_one_name(use: Any, name: str) -> None:
    assert instance_name(use) == name


def test_a_figure_has_one_name() -> None:
    assert figure_name("heldout", "kl") == "eval/kl"
    assert figure_name("again", "kl") == "eval/again/kl"
    assert Path(figure_name("heldout", "a.b")).name == "a.b"
