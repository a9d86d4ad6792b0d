"""One small experiment with all trackers, run once whole and once killed on the way, for all tests of this folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracker_runs import ALL, CANARY, Followed

import hookline
from hookline import Run
from hookline.loop.api import open_run, plan
from hookline.loop.session import Session
from warm import Warm

KILLER = """
import os, signal
from hookline import Component, hookimpl

class Killer(Component):
    name = "killer"

    @hookimpl
    def hookline_row(self, row):
        if row["phase"] == "rl" and row["step"] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Pretraining, comparisons, a reward model and two policies, in a few seconds, on text written here."""
    folder = tmp_path_factory.mktemp("small")
    animals, verbs = ["cat", "dog", "bird", "fish", "fox", "hen"], ["eats", "sees", "likes", "finds"]
    rows = [
        {
            "text": f"The {a} {v} the {b}.",
            "prompt": f"{a} {b}",
            "completion": f"The {a} {v} the {b}.",
            "keywords": [a, b],
        }
        for a in animals
        for v in verbs
        for b in animals
    ]
    data = folder / "animals.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    generate = {"use": "generate", "prompts": str(data), "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 6}
    policy: dict[str, Any] = {
        "model": {"from": "pretrain"},
        "rollout": generate,
        "wrap": [{"use": "kl-penalty", "target": 3.0}],
        "advantage": "gae",
        "update": {"use": "ppo", "lr": 3e-3},
        "steps": 4,
        "save": {"every": 2, "best": "eval/keyword-coverage"},
        "evaluate": [
            {"every": 2, "rows": 8, "rollout": generate, "reward": ["keyword-coverage", {"use": "kl", "to": "pretrain"}]},
            {
                "name": "text", "rows": 8, "reward": ["perplexity"],
                "rollout": {"use": "dataset", "path": str(data), "rows": 8},
            },
        ],
    }  # fmt: skip
    pairs = {"use": "preferences", "from": "comparisons", "rows": 4}
    measured = [
        {"use": "pair-accuracy", "name": "accuracy"},
        {"use": "pair-accuracy", "name": "ceiling", "against": "ceiling"},
    ]
    return {
        "name": "small",
        "seed": 1,
        "threads": 1,
        "tokenizer": {"train": "bpe", "on": str(data), "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 48},
        "phases": [
            {
                "name": "pretrain",
                "rollout": {"use": "text", "path": str(data), "rows": 4, "length": 12},
                "update": {"use": "causal-lm", "lr": 1e-2},
                "steps": 3,
                "evaluate": [{"rows": 8, "rollout": {"use": "text", "path": str(data), "rows": 8, "length": 12},
                              "reward": ["perplexity"]}],
            },
            {"name": "comparisons", "rollout": generate, "reward": "keyword-coverage", "feedback": "simulated-annotator", "steps": 2},
            {
                "name": "reward-model", "model": {"from": "pretrain", "head": "reward"}, "rollout": pairs,
                "update": {"use": "bradley-terry", "lr": 1e-2}, "steps": 2,
                "evaluate": [{"rows": 8, "rollout": pairs, "reward": measured}],
            },
            {"name": "rl", "reward": [{"use": "reward-model", "from": "reward-model"}], **policy},
            {"name": "rl-oracle", "reward": "keyword-coverage", **policy},
        ],
        "trackers": ALL,
    }  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def no_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No W&B login of the person who runs the tests is used, and no mode of theirs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(tmp_path_factory.mktemp("home") / "netrc"))
        yield


@pytest.fixture(scope="session")
def whole(small: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The experiment, run without a break."""
    return hookline.run(small, out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="session")
def resumed(
    small: dict[str, Any], whole: Run, warm: Warm, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, list[str]]:
    """The same, killed after `rl` had committed a step that no checkpoint holds, then resumed; W&B has a key, stays offline.

    Returns the run, and the W&B directories that the kill left behind.
    """
    folder = tmp_path_factory.mktemp("resumed")
    (folder / "killer.py").write_text(KILLER)
    (folder / "small.json").write_text(json.dumps({**small, "trackers": [*ALL, "killer"]}))
    out = folder / "run"
    code = (
        f"import json, hookline; hookline.run(json.load(open('small.json')), out={str(out)!r}, plugins=['./killer.py'])"
    )
    alone = {name: value for name, value in os.environ.items() if "WANDB" not in name}  # not our process's W&B service
    key = {"WANDB_API_KEY": CANARY, "WANDB_MODE": "offline"}
    child = warm.run("-c", code, cwd=folder, env={**alone, **key})
    assert child.returncode == -signal.SIGKILL, child.stderr
    left = sorted(path.name for path in (out / "wandb").glob("offline-run-*"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in key.items():
            patch.setenv(name, value)
        return hookline.run(small, out=out), left


@pytest.fixture
def opened(small: dict[str, Any], tmp_path: Path) -> Iterator[Callable[..., Followed]]:
    """`opened("console", {"use": "jsonl", "path": "-"})`: a real run with these trackers, told that it has started."""
    with contextlib.ExitStack() as stack:

        def make(*trackers: Any, directory: str = "run") -> Followed:
            planned = plan({**small, "trackers": list(trackers)})
            run = open_run(tmp_path / directory, planned)
            stack.callback(run.close)
            session = Session(planned, run, stack.enter_context(asyncio.Runner()))
            stack.callback(session.close)
            if run.resumed:
                run.cut_back(sum(1 for _ in (run.directory / "metrics.jsonl").open()))
            session.trackers.tell("run_started")
            return Followed(session)

        yield make
