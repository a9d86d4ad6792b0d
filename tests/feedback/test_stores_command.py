"""`hookline store`, and a store as the data of a run or a command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Candidate, Comparison, DataError, Item
from hookline.cli import main

CANDIDATES = (Candidate(text="A pear."), Candidate(text="A spoon."))


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with answers.db: 24 items that ann and bob have answered."""
    monkeypatch.chdir(tmp_path)
    with hookline.store("sqlite:///answers.db") as store:
        items = [Item(prompt=f"fruit {k}", candidates=CANDIDATES, overlap=2) for k in range(24)]
        store.put(items)
        store.append([item.event(Comparison(better=0), who) for item in items for who in ("ann", "bob")])
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    assert main([*command, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_verify_backup_and_copy(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "store", "verify", "sqlite:///answers.db")
    assert found["counts"] == {"items": 24, "complete": 24, "events": 48, "annotators": 2, "newest": 72}
    told(capsys, "store", "backup", "sqlite:///answers.db", "backup.db")
    assert told(capsys, "store", "verify", "sqlite:///backup.db") == found
    assert told(capsys, "store", "copy", "sqlite:///answers.db", "copy.jsonl") == {"copied": 72, **found}
    assert told(capsys, "store", "copy", "sqlite:///answers.db", "copy.jsonl") == {"copied": 0, **found}
    assert main(["store", "verify", "copy.jsonl"]) == 0
    assert f"72 entries, chain intact, newest {found['head']}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["verify", "none.jsonl"], 3, "there is no store none.jsonl"),
        (["copy", "sqlite:///answers.db"], 2, "`copy` takes STORE TARGET → hookline store copy STORE TARGET"),
        (["verify", "sqlite:///answers.db", "more"], 2, "`verify` takes STORE"),
        (["forget", "sqlite:///answers.db", "cem"], 3, "has nothing of 'cem'"),
        (["backup", "sqlite:///answers.db", "answers.db"], 3, "answers.db already exists"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    collected: Path, command: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (collected / "answers.db").read_bytes()
    assert main(["store", *command]) == code
    assert words in capsys.readouterr().err
    assert (collected / "answers.db").read_bytes() == before


def test_who_is_forgotten_is_in_no_export(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("events.jsonl", "events.parquet", "packed.jsonl.gz", "only.jsonl"):
        assert main(["data", "convert", "sqlite:///answers.db", file]) == 0
    only = [row for row in map(json.loads, Path("only.jsonl").read_text().splitlines()) if row["annotator"] == "ann"]
    Path("only.jsonl").write_text("".join(json.dumps(row) + "\n" for row in only))
    Path("rows.jsonl").write_text('{"text": "not a judgement"}\n')
    capsys.readouterr()
    assert main(["store", "forget", "sqlite:///answers.db", "ann", "rows.jsonl"]) == 3
    assert "this row is not a judgement" in capsys.readouterr().err
    files = ["events.jsonl", "events.parquet", "packed.jsonl.gz", "only.jsonl"]
    found = told(capsys, "store", "forget", "sqlite:///answers.db", "ann", *files)
    assert found == {"events": 24, "files": dict.fromkeys(files, 24)}
    assert not Path("only.jsonl").exists()
    for name in ("sqlite:///answers.db", *files[:3]):
        assert {event.annotator for event in hookline.read_events(name)} == {"bob"}


def test_a_store_is_data(collected: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with hookline.store("sqlite:///answers.db") as store, hookline.store("copy.jsonl") as copy:
        events = list(store.events())
        store.copy_to(copy)
    for name in ("sqlite:///answers.db", "store:copy.jsonl"):
        assert hookline.read_events(name) == events
        assert hookline.rows(name, split="[:10]").records[9]["id"] == events[9].id
        assert len(hookline.rows(f"{name}?split=[10:]")) == 38
        assert told(capsys, "data", "inspect", name)["rows"] == 48
    with pytest.raises(DataError, match=r'is a store, which has no splits → a part of its events: split: "\[:1000\]"'):
        hookline.rows("sqlite:///answers.db", split="train")
    with pytest.raises(DataError, match=r"there is no store none\.db"):
        hookline.rows("sqlite:///none.db")
    hookline.store("sqlite:///empty.db").close()
    with pytest.raises(DataError, match="nobody has answered"):
        hookline.rows("sqlite:///empty.db")


def test_the_first_events_stay_the_same_data_when_others_come(collected: Path) -> None:
    first = hookline.rows("sqlite:///answers.db", split="[:40]").sha256
    with hookline.store("sqlite:///answers.db") as store:
        store.append([Item(prompt="one more", candidates=CANDIDATES).event(Comparison(better=1), "cem")])
    assert hookline.rows("sqlite:///answers.db", split="[:40]").sha256 == first
    assert hookline.rows("sqlite:///answers.db").sha256 != first


@pytest.mark.slow(25)
def test_a_run_reads_a_store_and_goes_on_only_with_the_same_events(collected: Path) -> None:
    experiment: dict[str, Any] = {
        "name": "stored",
        "seed": 1,
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 32, "context": 64},
        "data": {"judged": {"path": "sqlite:///answers.db", "split": "[:40]"}},
        "phases": [
            {
                "name": "rm",
                "model": {"head": "reward"},
                "rollout": {"use": "preferences", "path": "judged", "rows": 4},
                "update": "bradley-terry",
                "steps": 2,
            }
        ],
        "trackers": [],
    }
    hookline.run(experiment, out="run")
    with hookline.store("sqlite:///answers.db") as store:
        item = Item(prompt="one more", candidates=CANDIDATES)
        store.append([item.event(Comparison(better=1), "cem")])
    experiment["phases"][0]["steps"] = 3
    shutil.copytree("run", "other")
    assert len(hookline.run(experiment, out="run").rows()) == 3, "of the same 40 events"
    with hookline.store("sqlite:///answers.db") as store:
        store.forget("ann")
    with pytest.raises(hookline.HooklineError, match="is not the data this run began with"):
        hookline.run(experiment, out="other")
