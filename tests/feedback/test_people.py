"""People in the loop: a phase waits for what they say, keeps it, and is the same after a kill, given its journal."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Comparison, ExperimentError, Skip
from warm import Warm

SAMPLES = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}


def experiment(store: str, **people: Any) -> dict[str, Any]:
    asks = {"use": "people", "store": store, "poll": 0.05, "at_most": "60s", **people}
    return {
        "name": "loop", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64},
        "phases": [{"repeat": 2, "phases": [
            {"name": "ask", "model": {"from": "rl", "first": None}, "rollout": SAMPLES, "feedback": asks, "steps": 2},
            {"name": "judge", "model": {"from": "rl", "first": None, "head": "reward"},
             "rollout": {"use": "preferences", "from": "ask", "rows": 2}, "update": {"use": "bradley-terry", "lr": 1e-3}, "steps": 2},
            {"name": "rl", "rollout": SAMPLES, "reward": {"use": "reward-model", "from": "judge"}, "steps": 1,
             "update": {"use": "rloo", "lr": 1e-3}},
        ]}],
    }  # fmt: skip


def one_phase(store: str, **people: Any) -> dict[str, Any]:
    made = experiment(store, **people)
    ask = copy.deepcopy(made["phases"][0]["phases"][0])
    del ask["model"]
    return {**made, "phases": [ask]}


class Person(threading.Thread):
    """Answers whatever waits in a store, the longer text first, until it is told to stop."""

    def __init__(self, url: str, name: str = "ann", most: int = 10_000, late: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.url, self.called, self.most, self.late, self.stop = url, name, most, late, threading.Event()

    def run(self) -> None:
        done = 0
        with hookline.store(self.url) as store:
            while not self.stop.is_set() and done < self.most:
                item = store.lease(self.called)
                if item is None:
                    time.sleep(0.02)
                    continue
                time.sleep(self.late)
                first, second = (len(one.text) for one in item.candidates[:2])
                said = Comparison(better="tie" if first == second else int(second > first))  # type: ignore[arg-type]
                store.append([item.event(said, self.called, id=f"{self.called}/{item.id}", submitted_at=time.time())])
                done += 1


@pytest.fixture
def person() -> Iterator[Callable[..., Person]]:
    begun: list[Person] = []

    def begin(*given: Any, **named: Any) -> Person:
        begun.append(Person(*given, **named))
        begun[-1].start()
        return begun[-1]

    yield begin
    for one in begun:
        one.stop.set()
        one.join(10)


def test_a_phase_waits_and_the_next_ones_train_on_what_was_said(tmp_path: Path, person: Callable[..., Person]) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    made = experiment(url)
    for phase in made["phases"][0]["phases"][:2]:
        phase["model"].pop("first")
    rows = {"use": "dataset", "path": "builtin:keywords/sentences", "rows": 4}
    made["phases"].insert(0, {"name": "sft", "rollout": rows, "update": "sft", "steps": 1})
    for phase in made["phases"][1]["phases"][:2]:
        phase["model"]["first"] = "sft"
    person(url)
    run = hookline.run(made, out=tmp_path / "run")
    for number in (1, 2):
        events = run.collected(f"ask@{number}").records
        assert events
        by = [candidate["by"] for event in events for candidate in event["candidates"]]
        assert {(one["phase"], one["run"]) for one in by} == {(f"ask@{number}", run.id)}
        assert {event["annotator"] for event in events} == {"ann"}
        assert {event["source"] for event in events} == {"people"}
        row = [row for row in run.rows() if row["phase"] == f"ask@{number}"][-1]
        assert row["metrics"]["answers"] == len(events)
        assert row["metrics"]["weights_age"] == 0
    with hookline.store(url) as store:
        assert len(list(store.events())) == sum(len(run.collected(f"ask@{n}").records) for n in (1, 2))


def test_a_phase_ends_with_n_answers_or_when_its_time_is_over(tmp_path: Path, person: Callable[..., Person]) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    person(url, most=3)
    run = hookline.run(one_phase(url, answers=3, overlap=2), out=tmp_path / "enough")
    assert len(run.collected("ask").records) >= 3
    other = f"sqlite:///{tmp_path / 'night.db'}"
    began = time.monotonic()
    run = hookline.run(one_phase(other, at_most=0.5), out=tmp_path / "night")
    assert time.monotonic() - began < 30
    with pytest.raises(hookline.DataError, match="collected no judgements"):
        run.collected("ask")
    with hookline.store(other) as store:  # somebody comes in the morning, and the answers are not lost
        assert store.counts().items > 0
        assert store.lease("ann") is not None


def test_after_a_night_without_answers_the_same_command_asks_again(tmp_path: Path, warm: Warm) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    made = experiment(url, at_most=1)
    made["phases"] = made["phases"][0]["phases"][:2]  # a phase that asks, and one that learns from the answers
    for phase in made["phases"]:
        phase["model"].pop("from")
        phase["model"].pop("first")
    (tmp_path / "loop.json").write_text(json.dumps(made))

    def night() -> list[str]:
        done = warm.start("-m", "hookline", "run", "loop.json", "--out", "run", cwd=tmp_path, stderr=subprocess.STDOUT)
        said, _ = done.communicate(timeout=120)
        assert done.returncode == 7, said
        assert "nobody has answered in phase 'ask', and a later phase learns from the answers" in said
        assert "run the same command again" in said
        assert said.count("waits for 8 answers") == 1
        with hookline.store(url) as store:
            return [item.id for item in store.items()]

    first = night()
    with hookline.store(url) as store:  # who only skips has not answered
        for item in store.items():
            store.append([item.event(Skip(reason="tired"), "cem")])
    assert night() == first, "the same samples are asked about"
    with hookline.store(url) as store:  # in the morning, before the run is started again
        for item in store.items():
            store.append([item.event(Comparison(better=0), "ann")])
    done = warm.start("-m", "hookline", "run", "loop.json", "--out", "run", cwd=tmp_path, stderr=subprocess.STDOUT)
    said, _ = done.communicate(timeout=120)
    assert done.returncode == 0, said
    run = hookline.Run.read(tmp_path / "run")
    assert len(run.collected("ask").records) == 2 * len(first)
    assert [row["phase"] for row in run.rows()] == ["ask", "ask", "judge", "judge"]
    (tmp_path / "answers.db").unlink()  # given the journal, the run is the same without the store
    assert hookline.reproduce(tmp_path / "run", tmp_path / "again")["equal"]


def test_a_phase_goes_on_after_a_kill_with_the_same_items(tmp_path: Path, warm: Warm) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    (tmp_path / "loop.json").write_text(json.dumps(one_phase(url)))
    command = ("-m", "hookline", "run", "loop.json", "--out", "run")
    for code in (signal.SIGTERM, signal.SIGKILL):
        child = warm.start(*command, cwd=tmp_path, stderr=subprocess.STDOUT)
        said = ""
        for line in child.stdout:
            said += line
            if "waits for" in line:
                break
        with hookline.store(url) as store:
            before = [item.id for item in store.items()]
        assert before, said
        time.sleep(0.5)  # until it waits
        os.kill(child.pid, code)
        rest, _ = child.communicate(timeout=30)
        if code == signal.SIGTERM:
            assert child.returncode == 143, said + rest
            assert "stopped while 'people' waited" in rest
            assert "finished and saved first" not in rest
            assert "Traceback" not in rest
    someone = Person(url)
    someone.start()
    done = warm.start(*command, cwd=tmp_path, stderr=subprocess.STDOUT)
    said, _ = done.communicate(timeout=120)
    someone.stop.set()
    someone.join(10)
    assert done.returncode == 0, said
    with hookline.store(url) as store:
        assert [item.id for item in store.items()] == before, "the same samples are asked about, once"
        given = len(list(store.events()))
    run = hookline.Run.read(tmp_path / "run")
    assert len(run.collected("ask").records) == given
    assert "waits for" in said


def test_answers_that_come_late_are_kept_by_the_next_round(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    made = one_phase(url, at_most=0.3)
    made["phases"] = [{"repeat": 2, "phases": made["phases"]}]
    stop = threading.Event()

    def slow() -> None:  # answers only once the second round has begun to ask
        with hookline.store(url) as store:
            while not stop.is_set():
                items = list(store.items())
                if any(item.candidates[0].by and item.candidates[0].by.phase == "ask@2" for item in items):
                    while (item := store.lease("late")) is not None:
                        answer = Skip(reason="tired") if item.id == items[1].id else Comparison(better=0)
                        store.append([item.event(answer, "late", id=f"late/{item.id}")])
                    return
                time.sleep(0.005)

    thread = threading.Thread(target=slow, daemon=True)
    made["phases"][0]["phases"][0]["feedback"]["at_most"] = "2s"
    thread.start()
    run = hookline.run(made, out=tmp_path / "run")
    stop.set()
    thread.join()
    assert not (run.directory / "phases/ask@1/data.jsonl").exists()
    second = run.collected("ask@2").records
    assert {event["candidates"][0]["by"]["phase"] for event in second} == {"ask@1", "ask@2"}
    row = [row for row in run.rows() if row["phase"] == "ask@2"][-1]
    assert 0 < row["metrics"]["weights_age"] < 1


def test_what_earlier_rounds_left_over_is_given_out_last(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    made = one_phase(url, at_most=0)
    made["phases"] = [{"repeat": 2, "phases": made["phases"]}]
    hookline.run(made, out=tmp_path / "run")
    given = []
    with hookline.store(url) as store:
        while (item := store.lease("ann")) is not None:
            given.append(item.extra["phase"])
            store.append([item.event(Comparison(better=0), "ann", id=item.id)])
    assert set(given) == {"ask@1", "ask@2"}
    assert given == sorted(given, reverse=True), "the newest samples come first"


@pytest.mark.parametrize(
    ("option", "words"),
    [({"at_most": "soon"}, "is not a time"), ({"answers": -1}, "answers"), ({"store": "x.txt"}, "store")],
    ids=str,
)
def test_options_that_cannot_be_are_refused(option: dict[str, Any], words: str, tmp_path: Path) -> None:
    given = {"store": "sqlite:///a.db", **option}
    with pytest.raises((ExperimentError, hookline.DataError)) as caught:
        hookline.run(one_phase(given.pop("store"), **given), out=tmp_path / "run")
    assert words in str(caught.value) + " ".join(getattr(caught.value, "problems", ()))


@pytest.mark.slow(30)
def test_two_processes_ask_about_the_rows_of_both_and_keep_each_answer_once(
    tmp_path: Path, person: Callable[..., Person]
) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    (tmp_path / "loop.json").write_text(json.dumps(one_phase(url)))
    with hookline.store(url):
        pass
    person(url)
    command = [sys.executable, "-m", "hookline", "run", "loop.json", "--out", "run", "--processes", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with hookline.store(url) as store:
        stored = sorted(event.id for event in store.events())
        assert len(list(store.items())) == 8
    records = hookline.Run.read(tmp_path / "run").collected("ask").records
    assert sorted(record["id"] for record in records) == stored
