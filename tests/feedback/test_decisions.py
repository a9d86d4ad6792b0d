"""Where somebody decided, the decision is the item's answer: in training, exports and reports, and no annotator's."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Candidate, Comparison, Event, Rating, settled, settled_rows
from hookline.study.judging.answers import table_of
from hookline.testing import open_phase

PAIR = (Candidate(text="one"), Candidate(text="two"))


def said(who: str, better: Any, prompt: str = "q", **more: Any) -> Event:
    return Event(prompt=prompt, candidates=PAIR, annotator=who, answer=Comparison(better=better), **more)


def test_a_decision_is_the_only_answer_to_its_question() -> None:
    votes = [said("ann", 0), said("bob", 0), said("cem", 1)]
    first, second = said("boss", 1, id="d1", decides=True), said("chief", "tie", id="d2", decides=True)
    marks = Event(prompt="q", candidates=PAIR, annotator="ann", answer=Rating(marks={"overall": 3}))
    other = said("ann", 0, prompt="another")
    assert settled([*votes, marks, other]) == [*votes, marks, other]
    assert settled([first, *votes, marks, other]) == [first, marks, other], "wherever it is in the record"
    assert settled([*votes, first, second]) == [second], "the last of several"
    changed = said("boss", 0, id="d3", supersedes="d1", decides=True)
    assert settled([*votes, first, changed]) == [changed]
    again = said("ann", 1, id="again", repeats=votes[0].id)
    assert settled([*votes, again, first]) == [first], "a repeat is an answer to the same question"
    every = [*votes, marks, other, first, again]
    rows = [event.written() for event in every]
    assert [every[i] for i in settled_rows(rows)] == settled(every)
    assert [(rows + rows)[i] for i in settled_rows(rows + rows)] == [one.written() for one in settled(every + every)]
    votes_alone = rows[:3]
    assert settled_rows(votes_alone + votes_alone) == [3, 4, 5], "an event that is there twice counts once"
    assert settled_rows([{"id": "x", "prompt": "p"}, {"id": "x", "prompt": "q"}]) == [0, 1], "rows that are not events"
    assert settled_rows([{"prompt": "p", "chosen": "a", "rejected": "b"}]) == [0]


def experiment(folder: Path, path: str, use: str) -> dict[str, Any]:
    (folder / "texts.txt").write_text("one two q " * 9)
    return {
        "name": "decided", "seed": 1, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "bpe", "on": str(folder / "texts.txt"), "vocabulary": 262},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 32},
        "phases": [{
            "name": "judge", "model": {"head": "reward"}, "rollout": {"use": use, "path": path, "rows": 2},
            "update": "bradley-terry" if use == "preferences" else "latent-reward", "steps": 1,
        }],
    }  # fmt: skip


@pytest.mark.parametrize("use", ["preferences", "judgements"])
def test_training_reads_the_decision_and_not_the_majority(use: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'answers.db'}"
    with hookline.store(url) as store:
        store.append([said("ann", 0, id="a"), said("bob", 0, id="b"), said("boss", 1, id="d", decides=True)])
    with open_phase(experiment(tmp_path, url, use)) as loop:
        batch = loop.hooks.rollout(loop.ctx)
    best = {batch.response_text(row) for row in range(len(batch)) if batch.extra["recorded_B"][row] > 0}
    assert best == {"two"}
    assert hookline.convert_data(url, tmp_path / "pairs.jsonl", to="trl") == 1
    [row] = hookline.rows(str(tmp_path / "pairs.jsonl")).records
    assert row["chosen"] in ("two", [{"role": "assistant", "content": "two"}])
    assert hookline.convert_data(url, tmp_path / "all.jsonl", to="events") == 3, "events keep everything"


def test_reports_take_a_decision_as_known_and_not_as_an_answer() -> None:
    draw = random.Random(0)
    votes, decisions = [], []
    for i in range(40):
        right = draw.randrange(2)
        for who, wrong in (("ann", 0.05), ("bob", 0.1), ("cem", 0.9)):
            votes.append(said(who, right if draw.random() > wrong else 1 - right, f"q{i}", shown=(i % 2, 1 - i % 2)))
        decisions.append(said("boss", right, f"q{i}", decides=True))
    before, after = hookline.annotators(votes), hookline.annotators([*votes, *decisions[:30]])
    assert before.events == after.events == 120
    assert [one.name for one in after.annotators if one.gold.value == one.gold.value] == [
        one.name for one in after.annotators
    ]
    assert "boss" not in {one.name for one in after.annotators}
    gold = {one.name: one.gold.value for one in after.annotators}
    assert gold["ann"] > 0.85 > 0.2 > gold["cem"]
    assert after.agreement["comparison"].value == before.agreement["comparison"].value
    assert after.ceiling == before.ceiling
    assert next(one.verdict for one in after.annotators if one.name == "cem") == "contrary"
    assert {one.item for one in before.adjudicate}
    undecided = {event.item for event in votes} - {event.item for event in decisions[:30]}
    assert {one.item for one in (*after.adjudicate, *after.ask)} <= undecided
    final = table_of([*votes, *decisions], final=True)
    assert {pair.annotator for pair in final.pairs} == {"boss"}
    assert len(final.pairs) == 40


def test_an_event_that_decides_nothing_is_written_as_before() -> None:
    assert "decides" not in said("ann", 0).written()
    decision = said("boss", 0, decides=True)
    assert Event.read(json.loads(json.dumps(decision.written())), "row 1") == decision
