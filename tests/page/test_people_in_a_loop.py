"""The loop as a team runs it: a run that waits, a page for its experiment, and simulated annotators who use the page by HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from serving import Served, item

import hookline
from hookline import ServiceError
from hookline_plugins.page.access import People

SAMPLES = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}
LOOP: dict[str, Any] = {
    "name": "loop", "seed": 1, "threads": 1, "trackers": [],
    "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
    "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64},
    "phases": [
        {"name": "ask", "rollout": SAMPLES, "steps": 2,
         "feedback": {"use": "people", "store": "sqlite:///answers.db", "poll": 0.05, "at_most": "90s", "answers": 6}},
        {"name": "judge", "model": {"head": "reward"}, "rollout": {"use": "preferences", "from": "ask", "rows": 2},
         "update": {"use": "bradley-terry", "lr": 1e-3}, "steps": 2},
    ],
}  # fmt: skip
GOLD = "def longer(prompt, answer):\n    return float(len(answer))\n"


def hookline_of(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hookline", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def wait_for(child: subprocess.Popen[str], words: str) -> str:
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was not said: {said}")


def test_a_run_a_page_and_simulated_annotators(tmp_path: Path) -> None:
    (tmp_path / "loop.json").write_text(json.dumps(LOOP))
    (tmp_path / "gold.py").write_text(GOLD)
    run = hookline_of(tmp_path, "run", "loop.json", "--out", "run")
    page = hookline_of(tmp_path, "collect", "loop.json", "--port", "0")
    address = re.findall(r"(http://\S+)/enter#", wait_for(page, "/enter#"))[0]
    people = People(tmp_path / "answers.db.people.json")
    links = [f"{address}/enter#{people.invite(name, 'annotator')}" for name in ("sim1", "sim2")]
    annotators = hookline_of(tmp_path, "annotate", *links, "--by", "gold.py:longer", "--noise", "0", "--answers", "4")
    said, _ = run.communicate(timeout=180)
    assert run.returncode == 0, said
    page.terminate()
    annotators.communicate(timeout=60)
    records = hookline.Run.read(tmp_path / "run").collected("ask").records
    assert {record["annotator"] for record in records} <= {"sim1", "sim2"}
    assert len(records) >= 6
    for record in records:
        first, second = (len(one["text"].strip()) for one in record["candidates"])
        better = record["answer"]["better"]
        assert first == second or (first > second) == (better == 0), record


class Said:
    """What a command says."""

    json = False

    def __init__(self) -> None:
        self.lines: list[str] = []

    def text(self, text: str) -> None:
        self.lines.append(text)


def annotate(page: Served, folder: Path, **options: Any) -> list[str]:
    from hookline_plugins.commands.annotate import Annotate

    (folder / "gold.py").write_text(GOLD)
    said = Said()
    config = Annotate.Config(links=(page.link("sim"),), by=f"{folder / 'gold.py'}:longer", **options)
    assert Annotate(config).run(said) == 0  # type: ignore[arg-type]
    return said.lines


def test_an_annotator_with_eight_questions_at_hand_waits_for_all_of_them_at_once(served: Any, tmp_path: Path) -> None:
    page: Served = served([item(f"i{n}", "short", "much longer") for n in range(30)])
    began = time.monotonic()
    said = annotate(page, tmp_path, in_flight=8, delay=0.5, noise=0, answers=24, no_show=0.1, away=0.2)
    assert time.monotonic() - began < 24 * 0.25
    assert re.match("annotator 1: 24 answers, 0 skips, [1-9] times away$", said[0])
    events = list(page.store.events())
    assert len({event.item for event in events}) == len(events) == 24
    assert {event.answer.better for event in events} == {1}  # type: ignore[union-attr]
    assert [event.item for event in events] != [f"i{n}" for n in range(24)], "each when its own time has come"


def test_an_answer_that_came_too_late_is_not_counted(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page: Served = served([item(f"i{n}", "short", "much longer") for n in range(4)])
    monkeypatch.setattr("hookline_plugins.page.desk.LEASE", 0.2)
    mine = [one.event(hookline.Comparison(better=0), "bob") for one in page.store.items()][:2]
    threading.Timer(0.5, page.store.append, [mine]).start()  # when the leases have ended
    [said] = annotate(page, tmp_path, in_flight=4, delay=2, noise=0, answers=2, seed=3)
    assert re.match("annotator 1: 2 answers, 0 skips, 0 times away, 2 refused: .*others have it now", said)


@pytest.mark.parametrize("route", ["/answer", "/enter"])
def test_annotators_leave_a_page_that_stores_nothing(
    route: str, served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page: Served = served([item("a", "short", "much longer")])

    def full(*_: Any) -> Any:
        raise ServiceError("the disk is full", "free some space")

    monkeypatch.setattr(*((page.page.desk, "answer") if route == "/answer" else (page.page.people, "enter")), full)
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(annotate(page, tmp_path, answers=5, patience=0.5, noise=0))
        except ServiceError as err:
            found.append(err.message)

    person = threading.Thread(target=work, daemon=True)
    person.start()
    person.join(20)
    said = ["annotator 1: 0 answers, 0 skips, 0 times away"]
    assert found == [said if route == "/answer" else f"{page.url} did not answer for 0.5 seconds"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--clicks", "always first"], "first"),
        (["--clicks", "at random"], "random"),
        (["--noise", "0"], "gold"),
        (["--skip", "1"], "skips"),
    ],
    ids=str,
)
def test_simulated_annotators_make_the_mistakes_that_are_asked_for(
    options: list[str], expected: str, served: Any, tmp_path: Path
) -> None:
    page: Served = served([item(f"i{n}", "short", "much longer") for n in range(24)])
    named: dict[str, Any] = {options[0][2:]: options[1]}
    annotate(page, tmp_path, answers=24, **named)
    events = list(page.store.events())
    assert len(events) == 24
    if expected == "skips":
        assert {event.answer.kind for event in events} == {"skip"}
        return
    better = [event.answer.better for event in events]  # type: ignore[union-attr]
    shown_first = sum(choice == event.shown[0] for choice, event in zip(better, events))
    if expected == "first":
        assert shown_first == 24
        assert len(Counter(better)) == 2, "sides are shuffled, so that no candidate always wins"
    elif expected == "gold":
        assert set(better) == {1}
    else:
        assert 3 < shown_first < 21
