"""What a process does once: an input is opened and hashed once, whoever names it and however often a role comes from it."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.config import yaml
from hookline.data import source
from hookline.data.sources import Catalogue
from hookline.models import folder
from hookline.storage import folders, trees
from hookline.study import sweep

MAY_BE_READ_AGAIN = {
    "metrics.jsonl": "the run's own: cut to the newest save at the start, synced to the disk at each save",
    "evaluations.jsonl": "the same",
    "completions.jsonl": "the same",
    "comparisons.jsonl": "the run's own: judgements that are being collected; copied into the phase when it ends",
    ".run.json.aside": "the run's own: written anew, and synced, for each thing that is noted",
    "config.json": "of a model folder, for each role that is made from it",
    "generation_config.json": "the same",
    "role.json": "the same",
    "model.json": "the same; the weights themselves are opened by safetensors",
}
"""File name → why it is opened more than once."""

EXPERIMENT: dict[str, Any] = {
    "name": "once",
    "threads": 1,
    "device": "cpu",
    "tokenizer": {"train": "words", "on": "words.jsonl"},
    "model": {"build": "gpt2", "layers": 1, "width": 8, "heads": 1, "context": 16},
    "trackers": [],
}
DATASET = {"use": "dataset", "path": "words.jsonl", "rows": 4}
DRAWN = {"use": "generate", "prompts": "jsonl:words.jsonl", "rows": 2, "samples_per_prompt": 2, "max_new_tokens": 3}
SFT = {
    "name": "sft", "steps": 1, "rollout": DATASET, "update": "sft",
    "evaluate": [{"rollout": {**DATASET, "path": "./words.jsonl"}, "rows": 4, "reward": "perplexity"}],
}  # fmt: skip
PHASES = [
    SFT,
    {"name": "comparisons", "steps": 1, "rollout": DRAWN, "reward": "length", "feedback": "simulated-annotator"},
    {
        "name": "judge", "steps": 1, "model": {"from": "sft", "head": "reward"}, "update": "bradley-terry",
        "rollout": {"use": "preferences", "path": "pairs.jsonl", "rows": 2},
    },
    {
        "name": "more", "steps": 1, "model": {"from": "judge", "head": "reward"}, "update": "bradley-terry",
        "rollout": {"use": "preferences", "from": "comparisons", "rows": 2},
    },
    {
        "name": "rl", "steps": 3, "model": {"from": "sft"}, "rollout": DRAWN, "update": "rloo", "wrap": "kl-penalty",
        "reward": [{"use": "reward-model", "from": "judge"}], "save": {"every": 1, "keep": 2},
        "evaluate": [{
            "every": 1, "rollout": DRAWN, "rows": 4,
            "reward": [{"use": "reward-model", "from": "judge"}, {"use": "kl", "to": "sft"}],
        }],
    },
]  # fmt: skip


class Opened(Counter[str]):
    """How often each file below the working directory was opened for reading, while `watching`."""

    watching = False

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not self.watching or not isinstance(args[0], str) or not isinstance(args[1], str):
            return  # a folder, or a file, that is only synced is opened without a mode
        path = Path(args[0]).absolute()
        if path.is_relative_to(Path.cwd()) and args[2] & os.O_ACCMODE == os.O_RDONLY:
            self[path.relative_to(Path.cwd()).as_posix()] += 1


OPENED = Opened()
sys.addaudithook(lambda event, args: OPENED.hear(event, args))


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """A folder with data, and what is opened there."""
    monkeypatch.chdir(tmp_path)
    words = "red green blue round square small large old new cat dog sun moon tree".split()
    rows = [{"prompt": words[i % 14], "completion": words[i * 5 % 14]} for i in range(16)]
    Path("words.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = [{"prompt": words[i % 14], "chosen": words[i * 5 % 14], "rejected": words[i * 3 % 14]} for i in range(8)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    monkeypatch.setattr(folders, "_verified", {})
    monkeypatch.setattr(source, "_known", {})
    OPENED.clear()
    OPENED.watching = True
    yield OPENED
    OPENED.watching = False


def written(phases: list[dict[str, Any]], name: str = "once.yaml", **changes: Any) -> str:
    Path(name).write_text(json.dumps({**EXPERIMENT, "phases": phases, **changes}))
    OPENED.pop(name, None)
    return name


def calls_of(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> list[Any]:
    """The first argument of every call of a function from now on."""
    calls: list[Any] = []
    real = getattr(place, name)
    monkeypatch.setattr(place, name, lambda first, *rest: (calls.append(first), real(first, *rest))[1])
    return calls


def test_every_file_is_opened_once_and_every_input_hashed_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    digests, hashed, verified = (
        calls_of(monkeypatch, place, name)
        for place, name in ((source, "digest"), (folders, "file_hash"), (folders, "_verify"))
    )
    hookline.run(written(PHASES), out="run")
    assert {"once.yaml", "words.jsonl", "pairs.jsonl", "run/phases/comparisons/data.jsonl"} <= opened.keys()
    again = {path: n for path, n in opened.items() if n > 1 and Path(path).name not in MAY_BE_READ_AGAIN}
    looked = {"words.jsonl": 3, "pairs.jsonl": 3, "run/phases/comparisons/data.jsonl": 2}
    assert again == looked, "a data file is opened for its first bytes and, before the run, its first rows; then it is read once"
    assert len(digests) == 3  # the words under three names, the pairs, the judgements that were collected
    assert max(Counter(hashed).values()) == 1
    assert not verified, "a folder that this process wrote and hashed is hashed again"


def test_a_folder_of_an_earlier_process_is_verified_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = written(PHASES)
    hookline.run(experiment, out="run")
    Path("run/phases/rl").rename("gone")
    about = json.loads(Path("run/run.json").read_text())  # as if the process had been killed just before the phase ended
    Path("run/run.json").write_text(json.dumps({**about, "ended": about["ended"][:-1]}))
    folders._verified.clear()
    verified = calls_of(monkeypatch, folders, "_verify")
    hashed = calls_of(monkeypatch, folders, "file_hash")
    hookline.run(experiment, out="run")  # sft is the start, the reference and an evaluation's measure of this phase
    ended = [path.resolve() for path in verified if path.parent.name == "phases"]
    assert sorted(path.name for path in ended) == ["comparisons", "judge", "more", "sft"]
    assert max(Counter(path.absolute() for path in hashed).values()) == 1


def test_a_model_folder_is_hashed_once_for_all_phases_that_begin_with_it(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    hookline.export(hookline.run(written([SFT]), out="made").directory, "model")
    asked = [{"name": f"ask{i}", "steps": 1, "rollout": DRAWN, "reward": "length"} for i in range(2)]
    asked = [{**phase, "feedback": "simulated-annotator"} for phase in asked]
    opened.clear()
    hashed = calls_of(monkeypatch, folders, "file_hash")
    path = written(asked, "from-folder.yaml", model={"path": "model"}, tokenizer={"path": "model"})
    hookline.run(path, out="run")
    weights = [each for each in hashed if each.parent.name == "model" and each.parent.parent == Path.cwd()]
    assert Counter(each.name for each in weights)["model.safetensors"] == 1
    with open("model/config.json", "a") as file:
        file.write(" ")
    assert folder.folder_hash("model") != json.loads(Path("run/run.json").read_text())["data"]["model:model"]["sha256"]


def test_a_frozen_role_is_hashed_when_the_phase_begins_and_ends_and_not_when_it_is_saved(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = calls_of(monkeypatch, trees, "hash_tensors")
    counts = []
    for every in (1, 100):
        hashed.clear()
        rl = {**PHASES[-1], "steps": 4, "save": {"every": every}, "reward": "length", "evaluate": []}
        hookline.run(written([SFT, rl], f"every-{every}.yaml"), out=f"every-{every}")
        counts.append(len(hashed))
    assert counts[0] == counts[1] == 4  # the two policies that are kept; the reference at start and end


def test_data_that_changed_is_read_again(opened: Opened) -> None:
    first = Catalogue().rows("words.jsonl")
    assert Catalogue().rows("words.jsonl").records is first.records
    Path("words.jsonl").write_text('{"prompt": "one"}\n')
    assert len(Catalogue().rows("words.jsonl")) == 1
    assert len(first) == 16


def test_the_experiment_file_of_a_sweep_is_read_once(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline.cli import main

    read = calls_of(monkeypatch, yaml, "parse")
    requests: list[dict[str, Any]] = []

    def work(given: list[dict[str, Any]], jobs: int, lock: int, stopping: Any, progress: Any, codes: Any, ended: Any) -> None:
        requests.extend(given)
        codes.update(dict.fromkeys((request["name"] for request in given), 7))

    monkeypatch.setattr(sweep, "work", work)
    path = written([SFT], matrix={"phases.sft.steps": [1, 2]})
    assert main(["run", path, "--seeds", "5", "--out", "runs"]) == 7
    assert opened[path] == len(read) == 1
    assert len(requests) == 10
    assert all(request["experiment"]["phases"] and "words.jsonl" in request["data"] for request in requests)


@pytest.mark.slow
def test_the_processes_of_a_sweep_read_its_data_once(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sitecustomize.py").write_text(
        "import os, sys\nlog = os.open(os.environ['OPENED'], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "def hear(event, args):\n    if event == 'open' and str(args[0]).endswith('words.jsonl'):\n"
        "        os.write(log, b'.')\nsys.addaudithook(hear)\n"
    )
    monkeypatch.setenv("OPENED", str(tmp_path / "opened"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    hookline.sweep(written([SFT]), seeds=3, out="runs")
    assert Path("opened").read_text() == "..."  # its first bytes show what it is, its first rows what they hold, then it is read
