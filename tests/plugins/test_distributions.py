"""The three example distributions, from their wheels in a clean environment: run, killed, resumed, compared, uninstalled."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from environments import Environment, make_environment, manifest_of, rows_of

PLUG = """
import os, signal
from hookline import Component, hookimpl

class Plug(Component):
    @hookimpl(wrapper=True)
    def hookline_rollout(self, ctx):
        result = yield
        if os.environ.get("PULL_AT") == f"{ctx.phase}:{ctx.step}":
            os.kill(os.getpid(), signal.SIGKILL)
        return result
"""
WALKS: dict[str, Any] = {"use": "task", "task": "builtin:walks"}
EXACT: dict[str, Any] = {"use": "exact", "task": "builtin:walks"}
DRAWN: dict[str, Any] = {
    "rollout": {
        "use": "generate", "prompts": "builtin:walks", "rows": 20, "samples_per_prompt": 4, "max_new_tokens": 10
    },
    "reward": WALKS,
}  # fmt: skip
JUDGED: dict[str, Any] = {
    "evaluate": [
        {
            "prompts": "heldout",
            "rows": 40,
            "reward": [{**EXACT, "name": "return"}, {**EXACT, "name": "kl", "figure": "kl"}],
        }
    ]
}
PLUGGED: dict[str, Any] = {"wrap": "plug", "save": {"every": 2}}
PANEL = {"use": "panel", "errors": [0.1, 0.2, 0.6]}
PPO, AWR = {"use": "ppo", "lr": 0.1}, {"use": "awr", "lr": 0.1}
TRIO: dict[str, Any] = {
    "name": "trio",
    "seed": 1,
    "threads": 1,
    "trackers": [],
    "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
    "model": {"build": "tabular", "task": "builtin:walks", "sees": ["position", "last"], "context": 12},
    "phases": [
        {"name": "ask", "steps": 4, **DRAWN, **PLUGGED, "feedback": PANEL},
        {"name": "rl", "steps": 6, **DRAWN, **JUDGED, "advantage": "loo", "update": PPO},
        {"name": "imitate", "steps": 6, "model": {"from": "rl"}, **DRAWN, **JUDGED, **PLUGGED, "update": AWR},
    ],
}


@pytest.fixture(scope="module")
def environment(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return make_environment(tmp_path_factory.mktemp("distributions") / "venv", list(wheels.glob("*.whl")))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("desk")
    (folder / "plug.py").write_text(PLUG)
    (folder / "trio.yaml").write_text(yaml.safe_dump({**TRIO, "plugins": [str(folder / "plug.py")]}, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def whole(environment: Environment, desk: Path) -> Path:
    said = environment.hookline("run", desk / "trio.yaml", "--out", desk / "whole")
    assert said.code == 0, said.err
    for dist in ("loo (hookline-loo 0.1.0)", "awr (hookline-awr 0.1.0)", "panel (hookline-panel 0.1.0)"):
        assert dist in said.out.splitlines()[0]
    return desk / "whole"


def test_all_three_are_offered_and_explained(environment: Environment, desk: Path) -> None:
    listed, explained = environment.ask([["plugins", "list"], ["explain", desk / "trio.yaml"]])
    for kind, name in (("advantage", "loo"), ("update", "awr"), ("feedback", "panel")):
        assert re.search(rf"{kind} +{name} +hookline-{name} +0\.1\.0 +offered", listed.out)
    assert re.search(r"feedback +judges +panel +hookline-panel 0\.1\.0", explained.out)
    assert re.search(r"update +answers +awr +hookline-awr 0\.1\.0", explained.out)


def test_they_learn(whole: Path) -> None:
    rows = rows_of(whole)
    returns = {row["phase"]: row["metrics"]["eval/return"] for row in rows if "eval/return" in row["metrics"]}
    assert 0.3462 < returns["rl"] < returns["imitate"] <= 1.0
    first = next(row for row in rows if row["phase"] == "ask")
    assert {"panel_right", "outvoted", "judgements"} <= first["metrics"].keys()
    told = [json.loads(line) for line in (whole / "phases/ask/data.jsonl").read_text().splitlines()]
    assert {entry["annotator"] for entry in told} == {"panel of 3"}


@pytest.mark.parametrize("at", ["ask:3", pytest.param("imitate:3", marks=pytest.mark.slow)])
def test_killed_and_resumed_they_end_the_same(environment: Environment, desk: Path, whole: Path, at: str) -> None:
    """The panel's counts and the algorithm's scale and critic come back with the checkpoint."""
    out = desk / at.replace(":", "-")
    assert environment.hookline("run", desk / "trio.yaml", "--out", out, PULL_AT=at).code == -signal.SIGKILL
    assert environment.hookline("run", desk / "trio.yaml", "--out", out).code == 0
    assert rows_of(out) == rows_of(whole)
    assert (out / "phases/ask/data.jsonl").read_bytes() == (whole / "phases/ask/data.jsonl").read_bytes()
    for phase in ("rl", "imitate"):
        assert manifest_of(out, phase)["weights"] == manifest_of(whole, phase)["weights"]


@pytest.mark.slow
def test_they_pass_the_checker(environment: Environment) -> None:
    for name in ("loo", "awr", "panel"):
        said = environment.hookline("plugins", "check", name)
        assert said.code == 0, said.out + said.err


@pytest.mark.slow(20)
def test_one_is_compared_with_a_built_in(environment: Environment, desk: Path) -> None:
    values = {**TRIO, "matrix": {"phases.0.update": [AWR, PPO]}}
    values["phases"] = [{k: v for k, v in TRIO["phases"][1].items() if k != "advantage"}]
    (desk / "duel.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    swept = environment.hookline("run", desk / "duel.yaml", "--seeds", "2", "--out", desk / "duel")
    assert swept.code == 0, swept.err
    said = environment.hookline("compare", desk / "duel", "--metric", "eval/return", "--json")
    assert said.code == 0, said.err
    assert "awr" in said.out
    assert "ppo" in said.out


@pytest.mark.parametrize("name", ["loo", "awr", "panel"])
def test_uninstalled_a_run_says_what_to_install(environment: Environment, desk: Path, whole: Path, name: str) -> None:
    """The last tests of this file: they take the plugins out, one after the other."""
    environment.pip("uninstall", "--yes", f"hookline-{name}")
    said = environment.hookline("run", desk / "trio.yaml", "--out", whole)
    assert said.code == 5
    assert f"hookline-{name}==0.1.0" in said.err
    assert "Traceback" not in said.err
