"""A finished run is exported and evaluated from its directory: data, base model, working directory and updates may be gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Tokenizer
from hookline.errors import DataError, PluginError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run `run` whose training data and base model had relative names, and are gone; `held.jsonl` is
    still there."""
    from transformers import GPT2Config, GPT2LMHeadModel

    home = tmp_path_factory.mktemp("finished")
    rows = [{"prompt": word, "completion": f"list {word}"} for word in ("open", "close", "read", "write")]
    for name in ("data.jsonl", "held.jsonl"):
        (home / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (home / "m").mkdir()
    tokenizer = Tokenizer.train(["open close read write list"], 270)
    tokenizer.save(home / "m")
    shape = {"n_positions": 32, "n_embd": 8, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.vocabulary, **shape, **tokenizer.special)).save_pretrained(
        home / "m"
    )
    evaluation = {"rollout": {"use": "dataset", "path": str(home / "held.jsonl")}, "reward": ["length"], "rows": 4}
    phase: dict[str, Any] = {"name": "p", "steps": 1, "rollout": {"use": "dataset", "path": "data.jsonl", "rows": 4}}
    phase |= {"update": {"use": "sft", "lr": 1e-3}, "evaluate": [evaluation]}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        experiment = {"name": "x", "threads": 1, "model": {"path": "m"}, "trackers": [], "phases": [phase]}
        hookline.run(experiment, out=home / "run")
        shutil.rmtree(home / "m")
        (home / "data.jsonl").unlink()
    return home


def copied(home: Path, to: Path, **changes: Any) -> Path:
    """A copy of the run whose phase is changed, as if a component of another name had been used."""
    shutil.copytree(home / "run", to)
    experiment = json.loads((to / "experiment.json").read_text(encoding="utf-8"))
    experiment["phases"][0].update(changes)
    (to / "experiment.json").write_text(json.dumps(experiment), encoding="utf-8")
    return to


def test_export_and_eval_need_no_training_data_and_no_base_model(finished: Path, tmp_path: Path) -> None:
    assert (hookline.export(finished / "run", tmp_path / "out") / "model.safetensors").is_file()
    [figure] = hookline.evaluate(finished / "run")
    row = json.loads((finished / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert figure["value"] == row["metrics"]["eval/length"]


def test_an_update_that_is_no_longer_installed_is_not_needed(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run", update={"use": "gone", "options": {}})
    assert hookline.export(run, tmp_path / "out").is_dir()
    assert hookline.evaluate(run) == hookline.evaluate(finished / "run")


def test_what_an_evaluation_needs_is_named(finished: Path, tmp_path: Path) -> None:
    where = {"use": "dataset", "options": {"path": str(tmp_path / "none.jsonl")}}
    evaluation = {"name": "heldout", "rollout": where, "reward": [{"use": "length", "options": {}}], "rows": 4}
    with pytest.raises(DataError, match=r"no data file .*none\.jsonl"):
        hookline.evaluate(copied(finished, tmp_path / "a", evaluate=[evaluation]))
    evaluation["reward"] = [{"use": "gone", "options": {}}]
    with pytest.raises(PluginError, match="gone"):
        hookline.evaluate(copied(finished, tmp_path / "b", evaluate=[evaluation]))
