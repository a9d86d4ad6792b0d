"""W&B, really: the run file it would send is read back, record by record, as its own reader does."""

from __future__ import annotations

import json
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tracker_runs import CANARY, Followed, commit

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

    def __init__(self, run: Run) -> None:
        (self.folder,) = (run.directory / "wandb").glob("offline-run-*")
        for _ in range(100):  # W&B's service writes the file in its own time, until the process ends
            self._read(run)
            if self.ended is not None:
                break
            time.sleep(0.1)

    def _read(self, run: Run) -> None:
        self.history: list[dict[str, Any]] = []
        self.artifacts: list[Any] = []
        self.config: dict[str, Any] = {}
        self.ended: int | None = None
        for record in records(self.folder / f"run-{run.id}.wandb"):
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
        own = (row["phase"] + "/", "_")
        assert all(key.startswith(own) for key in logged), "phases are told apart"


def test_the_config_is_the_experiment_as_resolved(whole: Run) -> None:
    sent = Sent(whole)
    assert {key: sent.config[key] for key in whole.experiment} == whole.experiment
    assert sent.config["about"] == whole.about
    assert sent.config["about"]["data"]


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
    assert kinds <= {"heldout", "text"}, "tables only: no code, diff, requirements, metadata or console output"


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
