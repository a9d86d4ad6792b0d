"""W&B, really: the run file it would send is read back, record by record, as its own reader does."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tracker_runs import CANARY, Followed, commit

import hookline
from hookline import Run

HEADER, BLOCK = 7, 32768


def records(path: Path) -> Iterator[Any]:
    """Every record of a .wandb file: blocks of 32 KiB, entries of checksum, length and kind, as LevelDB writes its log.

    W&B's own reader of this format lives in its binary since 0.20, so it is written down here again.
    """
    from wandb.proto import wandb_internal_pb2

    data, part = path.read_bytes(), b""
    assert struct.unpack("<4sHB", data[:HEADER]) == (b":W&B", 0xBEE1, 0)
    at = HEADER
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        body = data[at + HEADER : at + HEADER + length]
        if len(body) < length:
            return  # it is being written
        assert zlib.crc32(bytes([kind]) + body) & 0xFFFFFFFF == checksum
        at, part = at + HEADER + length, part + body
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


class Sent:
    """What an offline run would send."""

    def __init__(self, run: Run, name: str = "") -> None:
        self.name = name or run.id
        (self.folder,) = (run.directory / "wandb").glob("offline-run-*")
        for _ in range(100):  # W&B's service writes the file in its own time, until the process ends
            self._read(run)
            if self.ended is not None:
                break
            time.sleep(0.1)

    def _read(self, run: Run) -> None:
        self.history: list[dict[str, Any]] = []
        self.artifacts: list[Any] = []
        self.summary: dict[str, Any] = {}
        self.alerts: list[str] = []
        self.config: dict[str, Any] = {}
        self.ended: int | None = None
        for record in records(self.folder / f"run-{self.name}.wandb"):
            kind = record.WhichOneof("record_type")
            if kind == "history":
                self.history.append(
                    {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                )
                assert record.history.step.num == self.history[-1]["_step"]
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "run":
                self.id, self.project = record.run.run_id, record.run.project
                self._update(record.run.config)
            elif kind == "config":
                self._update(record.config)
            elif kind == "summary":
                self.summary |= {
                    "/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update
                }
            elif kind == "alert":
                self.alerts.append(record.alert.title)
            elif kind == "exit":
                self.ended = record.exit.exit_code

    def _update(self, config: Any) -> None:
        for item in config.update:
            self.config["/".join(item.nested_key) or item.key] = json.loads(item.value_json)


def test_offline_every_row_is_one_step(whole: Run) -> None:
    sent = Sent(whole)
    assert (sent.id, sent.project, sent.ended) == (whole.id, "hookline", 0)
    assert [row["_step"] for row in sent.history] == list(range(len(whole.rows())))
    for row, logged in zip(whole.rows(), sent.history):
        assert logged[f"{row['phase']}/step"] == row["step"]
        for name, value in {**row["metrics"], **row["timings"]}.items():
            assert logged[f"{row['phase']}/{name}"] == pytest.approx(value, rel=1e-12), name
        own = (row["phase"] + "/", "train/", "_")
        assert all(key.startswith(own) for key in logged), "phases are told apart"
        assert logged["train/global_step"] == row["row"] + 1
    tokens = [row["metrics"].get("tokens", 0) for row in whole.rows()]
    assert [logged["train/tokens"] for logged in sent.history] == [sum(tokens[: i + 1]) for i in range(len(tokens))]


def test_the_config_has_a_column_for_each_value_under_its_override(whole: Run) -> None:
    sent = Sent(whole)
    assert sent.config["about"] == whole.about
    assert sent.config["seed"] == whole.experiment["seed"]
    for phase in whole.experiment["phases"]:
        path = f"phases.{phase['name']}"
        assert sent.config[f"{path}.steps"] == phase["steps"]
        assert sent.config[f"{path}.rollout"] == phase["rollout"]["use"]
        if phase["update"]:
            assert sent.config[f"{path}.update"] == phase["update"]["use"]
            for option, value in phase["update"]["options"].items():
                assert sent.config[f"{path}.update.{option}"] == value


def test_the_config_names_items_of_lists_as_overrides_do() -> None:
    from hookline_plugins.trackers.wandb_columns import columns

    reward = [
        {"use": "length", "name": None, "weight": -0.1, "options": {"limit": 3}},
        {"use": "function", "name": "correct", "weight": 1.0, "options": {}},
    ]
    run = SimpleNamespace(experiment={"phases": [{"name": "rl@1", "reward": reward, "advantage": None}]})
    assert columns(run) == {  # type: ignore[arg-type]
        "phases.rl@1.name": "rl@1",
        "phases.rl@1.reward.length": "length",
        "phases.rl@1.reward.length.weight": -0.1,
        "phases.rl@1.reward.length.limit": 3,
        "phases.rl@1.reward.correct": "function",
    }


def test_the_commit_is_that_of_the_folder(tmp_path: Path) -> None:
    from hookline_plugins.trackers.wandb_columns import commit

    assert commit(tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "x").write_text("1")
    for words in (["init", "-q"], ["add", "x"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    assert commit(tmp_path)["git.dirty"] is False
    (tmp_path / "x").write_text("2")
    found = commit(tmp_path)
    assert len(found["git.commit"]) == 40
    assert found["git.dirty"] is True


VARIABLES = {
    "WANDB_PROJECT": "mine", "WANDB_ENTITY": "us", "WANDB_RUN_GROUP": "g", "WANDB_NAME": "n", "WANDB_JOB_TYPE": "eval",
    "WANDB_NOTES": "words", "WANDB_TAGS": "a, b",
}  # fmt: skip


def asked_for(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What wandb.init is asked for."""
    from hookline_plugins.trackers.wandb import WandB

    said: dict[str, Any] = {}
    begun = SimpleNamespace(define_metric=lambda *a, **k: None)
    monkeypatch.setattr("wandb.init", lambda **kwargs: said.update(kwargs) or begun)
    run = SimpleNamespace(id="1", directory=tmp_path, about={}, experiment={"phases": []})
    WandB(WandB.Config(**options))._begin(run, "offline")  # type: ignore[arg-type]
    return said


def test_the_environment_chooses_what_the_experiment_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = ("project", "entity", "group", "name", "job_type", "notes", "tags")
    said = asked_for({}, monkeypatch, tmp_path)
    assert [said[key] for key in asked] == ["hookline", None, None, tmp_path.name, "train", None, None]
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    said = asked_for({}, monkeypatch, tmp_path)
    assert [said[key] for key in asked] == ["mine", "us", "g", "n", "eval", "words", ("a", "b")]
    said = asked_for({"project": "p", "tags": ["t"], "job_type": "train"}, monkeypatch, tmp_path)
    assert (said["project"], said["tags"], said["job_type"], said["name"]) == ("p", ("t",), "train", "n")


def test_the_agent_of_a_sweep_chooses_the_id_and_a_resume_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert asked_for({}, monkeypatch, tmp_path)["id"] == "1", "without a sweep the run's own id counts"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    assert asked_for({}, monkeypatch, tmp_path)["id"] == "agents"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert asked_for({}, monkeypatch, tmp_path)["id"] == "agents"


def test_answers_of_training_are_one_table_that_grows(opened: Callable[..., Followed]) -> None:
    run = opened("wandb")
    for step in range(1, 4):
        answer = {
            "row": step - 1,
            "phase": "pretrain",
            "step": step,
            "prompt": "p",
            "completion": f"c{step}",
            "reward": 0.5,
        }
        run.tell("completions", phase="pretrain", step=step, completions=[answer])
        run.commit_row("pretrain", step, {"loss": 1.0}, {"seconds/update": 0.01})
    run.tell("run_finished", status="finished")
    assert not [notice for notice in run.notices if "failed" in notice], run.notices
    sent = Sent(run)  # type: ignore[arg-type]
    found = []
    for logged in sent.history:
        read = json.loads((sent.folder / "files" / logged["pretrain/completions/path"]).read_text())
        found += [dict(zip(read["columns"], cells)) for cells in read["data"]]
    assert {row["completion"] for row in found} == {"c1", "c2", "c3"}
    assert found[0] == {"step": 1, "prompt": "p", "completion": "c1", "reward": 0.5}


def test_a_run_that_the_process_has_begun_is_used_and_left_open(
    opened: Callable[..., Followed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    mine = wandb.init(project="mine", mode="offline", dir=str(tmp_path), settings=wandb.Settings(silent=True))
    try:
        mine.log({"before": 1})
        run = opened("wandb")
        commit(run, "pretrain", 2)
        run.tell("run_finished", status="finished")
        assert wandb.run is mine
        assert mine.step == 3
        assert mine.config["phases.pretrain.rollout"] == "text"
        assert not (run.directory / "wandb").exists()
    finally:
        mine.finish()


def test_answers_come_as_tables_in_the_step_of_their_row(whole: Run, resumed: tuple[Run, list[str]]) -> None:
    for run in (whole, resumed[0]):
        sent = Sent(run)
        for entry in run.evaluations():
            path = sent.history[entry["row"]][f"{entry['phase']}/samples/{entry['name']}/path"]
            read = json.loads((sent.folder / "files" / path).read_text())
            assert read["columns"][:2] == ["prompt", "response"]
            assert [cells[:2] for cells in read["data"]] == [[s["prompt"], s["response"]] for s in entry["samples"]]
            terms = [dict(zip(read["columns"][2:], cells[2:])) for cells in read["data"]]
            assert [{k: v for k, v in t.items() if v is not None} for t in terms] == [
                s["terms"] for s in entry["samples"]
            ]


def test_report_and_manifests_are_artifacts_whose_files_are_there(whole: Run) -> None:
    found = {artifact.type: artifact for artifact in Sent(whole).artifacts}
    report, manifest = found["report"].manifest.contents, found["manifest"].manifest.contents
    assert sorted(item.path for item in report) == ["report.html", "report.json"]
    assert sorted(item.path for item in manifest) == sorted(
        f"phases/{p['name']}/manifest.json" for p in whole.experiment["phases"]
    )
    for artifact in Sent(whole).artifacts:
        for item in artifact.manifest.contents:
            local = Path(item.local_path)
            assert local.is_file()
            assert whole.directory in local.parents, "a run that is moved or archived keeps what is to be sent"


def test_a_killed_run_goes_on_under_its_id_with_every_row_once(resumed: tuple[Run, list[str]], whole: Run) -> None:
    run, left = resumed
    assert len(left) == 1
    sent = Sent(run)
    assert sent.folder.name not in left
    assert sent.id == run.id != whole.id
    assert [row["_step"] for row in sent.history] == list(range(len(whole.rows())))
    for row, other in zip(sent.history, Sent(whole).history):
        same = {key for key in row if "seconds" not in key and "tokens_per" not in key and not key.startswith("_")}
        figures = [key for key in same if isinstance(row[key], int | float)]
        assert {key: row[key] for key in figures} == {key: other[key] for key in figures}


def test_rows_that_wandb_has_are_not_sent_twice(opened: Callable[..., Followed]) -> None:
    run = opened("wandb")
    commit(run, "pretrain", 3)
    tracker: Any = run.trackers["wandb"]
    tracker._catch_up(run)  # as after a resume of an online run, whose last rows had arrived before the kill
    commit(run, "comparisons", 2)
    run.tell("run_finished", status="finished")
    assert not [notice for notice in run.notices if "failed" in notice]
    assert [row["_step"] for row in Sent(run).history] == list(range(5))


def test_the_key_is_nowhere_in_the_run(resumed: tuple[Run, list[str]]) -> None:
    files = [path for path in resumed[0].directory.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert CANARY.encode() not in path.read_bytes(), path


def test_nothing_leaves_but_what_the_run_says(resumed: tuple[Run, list[str]]) -> None:
    sent = Sent(resumed[0])
    kinds = {path.name.split("_")[0] for path in (sent.folder / "files").rglob("*") if path.is_file()}
    assert kinds <= {"heldout", "text", "completions"}, (
        "tables only: no code, diff, requirements, metadata or console output"
    )


def test_a_key_written_into_the_experiment_is_blotted_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline_plugins.trackers.wandb import hidden

    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    assert hidden({"a": [f"--key={CANARY}", 1]}) == {"a": ["--key=(hidden)", 1]}


def test_online_without_a_key_asks_nothing_and_writes_offline(opened: Callable[..., Followed]) -> None:
    run = opened({"use": "wandb", "mode": "online"})
    commit(run, "pretrain", 2)
    run.tell("run_finished", status="stopped")
    assert "no key" in run.notices[0]
    sent = Sent(run)
    assert (len(sent.history), sent.ended) == (2, 1)


def test_an_unreachable_server_delays_little_and_loses_nothing(
    opened: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    import wandb

    wandb.teardown()  # so that the address is read anew
    began = time.monotonic()
    run = opened({"use": "wandb", "timeout": 2})
    commit(run, "pretrain", 2)
    run.tell("run_finished", status="finished")
    assert time.monotonic() - began < 20
    assert any("cannot be reached" in notice and "127.0.0.1:9" in notice for notice in run.notices)
    assert [row["_step"] for row in Sent(run).history] == [0, 1]


def test_without_wandb_the_run_goes_on_and_says_so(
    opened: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = opened("wandb", "jsonl")
    commit(run, "pretrain", 2)
    run.tell("run_finished", status="finished")
    assert len(run.notices) == 1
    assert "'wandb' failed" in run.notices[0]
    assert len((run.directory / "rows.jsonl").read_text().splitlines()) == 2


def test_wandb_mode_disabled_is_obeyed(opened: Callable[..., Followed], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run = opened("wandb")
    commit(run, "pretrain", 1)
    run.tell("run_finished", status="finished")
    assert not (run.directory / "wandb").exists()
    assert not run.notices


def test_a_login_in_netrc_is_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline_plugins.trackers.wandb import has_key

    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert has_key()


@pytest.mark.slow(20)
def test_the_best_value_a_message_and_the_best_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The experiment's own `model` counts more than WANDB_LOG_MODEL; without it the environment decides."""
    from transformers import AutoModelForCausalLM

    rows = {"use": "dataset", "path": "builtin:keywords/sentences", "rows": 4}
    experiment: dict[str, Any] = {
        "name": "best", "seed": 1, "threads": 1,
        "tokenizer": {"train": "bpe", "on": "builtin:keywords/sentences", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "heads": 1, "context": 64},
        "phases": [{
            "name": "sft", "steps": 2, "rollout": rows, "update": {"use": "sft", "lr": 1e-2},
            "evaluate": [{"every": 1, "rollout": rows, "rows": 4, "reward": ["perplexity"]}],
            "save": {"best": {"figure": "eval/perplexity", "lowest": True}},
        }],
    }  # fmt: skip
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    sent = {}
    for name, model in (("own", "best"), ("environment", None), ("none", "none")):
        tracker = {"use": "wandb", "alerts": True, **({"model": model} if model else {})}
        run = hookline.run({**experiment, "trackers": [tracker]}, out=tmp_path / name)
        sent[name] = Sent(run)  # type: ignore[arg-type]
    best = [artifact for artifact in sent["own"].artifacts if artifact.type == "model"]
    assert [sorted(artifact.aliases) for artifact in best] == [["best", "latest"]]
    end = [artifact for artifact in sent["environment"].artifacts if artifact.type == "model"]
    assert [sorted(artifact.aliases) for artifact in end] == [["end", "latest"]]
    assert not [artifact for artifact in sent["none"].artifacts if artifact.type == "model"]
    [folder] = {str(Path(item.local_path).parent) for item in best[0].manifest.contents}
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0
    figures = [row["metrics"]["eval/perplexity"] for row in run.rows()]
    assert sent["own"].summary["best/sft/eval/perplexity"] == pytest.approx(min(figures))
    assert sent["own"].alerts == ["own finished"]


def test_overrides_with_dashes_are_answered(capsys: pytest.CaptureFixture[str]) -> None:
    from hookline.cli import main

    assert main(["run", "mine.yaml", "--phases.rl.update.lr=0.1"]) == 2
    assert "an override has no dashes: phases.rl.update.lr=VALUE" in capsys.readouterr().err


@pytest.mark.slow(20)
def test_a_trial_of_a_sweep_is_run_as_an_agent_runs_it(tmp_path: Path) -> None:
    """The agent sets the environment and appends `${args_no_hyphens}`; each trial has a run directory of its own."""
    experiment = {
        "name": "swept", "seed": 1, "threads": 1, "trackers": ["wandb"],
        "tokenizer": {"train": "words", "on": "builtin:arms/answers"},
        "model": {"build": "tabular", "task": "builtin:arms", "sees": ["position", "last"], "context": 12},
        "phases": [{
            "name": "rl", "steps": 2, "update": {"use": "rloo", "lr": 0.1}, "reward": {"use": "task", "task": "builtin:arms"},
            "rollout": {"use": "generate", "prompts": "builtin:arms", "rows": 2, "samples_per_prompt": 4, "max_new_tokens": 2},
        }],
    }  # fmt: skip
    (tmp_path / "swept.yaml").write_text(json.dumps(experiment))
    for trial, lr in (("one", "0.5"), ("two", "0.25")):
        agents = {"WANDB_SWEEP_ID": "s1", "WANDB_RUN_ID": trial, "WANDB_PROJECT": "mine", "WANDB_MODE": "offline"}
        said = ["-m", "hookline", "run", "swept.yaml", f"phases.rl.update.lr={lr}", "seed=3"]
        done = subprocess.run(
            [sys.executable, *said], cwd=tmp_path, env=os.environ | agents, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    for name, trial, lr in (("swept-0001", "one", 0.5), ("swept-0002", "two", 0.25)):
        [folder] = (tmp_path / "runs" / name / "wandb").glob("offline-run-*")
        assert folder.name.endswith(f"-{trial}")
        sent = Sent(Run.read(tmp_path / "runs" / name), trial)  # type: ignore[attr-defined]
        assert sent.config["phases.rl.update.lr"] == lr
        assert sent.project == "mine"
