"""How long a run will still take: from a planted table of phases, and from a plan."""

from __future__ import annotations

from typing import Any

import pytest

import hookline
from hookline import Run
from hookline.loop.api import plan_of
from hookline.plan.work import PhaseWork, Work, works_of
from hookline.runs.outlook import DRAWN, seconds_left

PASS, STEP, TOKEN = 0.001, 0.5, 0.004
"""Seconds of a pass, of a Muon step and of a drawn token on the machine of this page."""
TABLE = [
    PhaseWork("read", 100, Work(trained=1000, optimiser_steps=1), Work(read=2000), (0, 50, 100), "muon"),
    PhaseWork("teach", 50, Work(trained=400, optimiser_steps=1), optimiser="muon"),
    PhaseWork("ask", 10, Work(drawn=3000)),
    PhaseWork(
        "learn", 20, Work(read=1000, trained=500, drawn=600, optimiser_steps=4), Work(read=100, drawn=600), (0, 20)
    ),
]


def row(phase: PhaseWork, step: int, slower: float = 1.0) -> dict[str, Any]:
    """A row as that machine would log it."""
    parts = {}
    if step:
        optimiser = STEP * phase.step.optimiser_steps * (phase.optimiser == "muon")
        parts["seconds/rollout"] = TOKEN * phase.step.drawn
        parts["seconds/update"] = PASS * phase.step.passes + optimiser
        parts["optimiser_seconds"] = optimiser
    if step in phase.evaluated:
        parts["seconds/evaluate-heldout"] = PASS * phase.evaluation.passes + TOKEN * phase.evaluation.drawn
    timings = {name: slower * value for name, value in parts.items()}
    return {"phase": phase.name, "step": step, "timings": {**timings, "tokens_per_second": 1.0}}


def rows(phase: PhaseWork, last: int, slower: float = 1.0) -> list[dict[str, Any]]:
    return [row(phase, step, slower) for step in range(0 if phase.evaluated else 1, last + 1)]


def took(phase: PhaseWork, after: int = -1) -> float:
    return sum(
        sum(value for name, value in made["timings"].items() if name.startswith("seconds/"))
        for made in rows(phase, phase.steps)
        if made["step"] > after
    )


def test_nothing_is_said_before_a_step_was_taken() -> None:
    assert seconds_left(TABLE, []) == {}
    assert seconds_left(TABLE, rows(TABLE[0], 0)) == {}


def test_the_first_phase_tells_of_all_but_the_price_of_drawing() -> None:
    left = seconds_left(TABLE, rows(TABLE[0], 3))
    assert left["read"] == pytest.approx(took(TABLE[0], after=3))
    assert left["teach"] == pytest.approx(took(TABLE[1]))
    assert left["ask"] == pytest.approx(took(TABLE[2]) * DRAWN * PASS / TOKEN)


def test_once_drawing_was_measured_the_rest_is_exact() -> None:
    seen = [*rows(TABLE[0], 100), *rows(TABLE[1], 50), *rows(TABLE[2], 2)]
    left = seconds_left(TABLE, seen)
    assert left == pytest.approx({"read": 0, "teach": 0, "ask": took(TABLE[2], after=2), "learn": took(TABLE[3])})


def test_a_phase_that_began_goes_on_at_its_own_pace_whatever_the_table_says() -> None:
    wrong = [PhaseWork("read", 100, Work(trained=7), Work(read=1), (0, 50, 100)), *TABLE[1:]]
    assert seconds_left(wrong, rows(TABLE[0], 60))["read"] == pytest.approx(took(TABLE[0], after=60))


def test_an_earlier_run_tells_of_later_phases_corrected_by_the_speed_of_today() -> None:
    earlier = [made for phase in TABLE for made in rows(phase, phase.steps)]
    left = seconds_left(TABLE, rows(TABLE[0], 3, slower=2.0), earlier)
    for phase in TABLE[1:]:
        assert left[phase.name] == pytest.approx(2 * took(phase)), phase.name


def test_a_plan_tells_what_its_phases_compute(tiny, tmp_path) -> None:
    experiment = tiny(
        advantage="gae",
        update={"use": "ppo", "lr": 1e-3, "epochs": 2, "minibatches": 2},
        wrap={"use": "kl-penalty", "target": 3.0},
        evaluate={"every": 2, "rows": 10, "reward": ["keyword-coverage", "perplexity"]},
        steps=5,
    )
    [rl] = experiment["phases"]
    data = rl["rollout"]["prompts"]
    sft = {"name": "sft", "rollout": {"use": "dataset", "path": data, "rows": 3}, "update": "sft", "steps": 1}
    experiment["phases"] = [sft, rl]
    run = hookline.run(experiment, out=tmp_path / "run")
    tokenizer = hookline.Tokenizer.load(run.directory / "tokenizer")
    first, second = works_of(plan_of(Run.read(run.directory)), tokenizer)
    rows = hookline.Run.read(run.directory).data(data).records
    prompt, answer = (
        sum(len(encode(row[key])) for row in rows) / len(rows)
        for key, encode in (("prompt", tokenizer.prompt), ("completion", tokenizer.answer))
    )
    assert first.step.trained == pytest.approx(3 * (prompt + answer))
    assert (first.step.optimiser_steps, first.optimiser, first.evaluated) == (1, "adamw", ())
    assert second.step.drawn == pytest.approx(8 * answer), "answers as long as those that were taught"
    assert second.step.trained == pytest.approx(8 * (prompt + answer) * 2 * 2), "policy and critic, two epochs"
    assert second.step.read == pytest.approx(second.step.trained / 2), "the reference, and the critic before the update"
    assert (second.step.optimiser_steps, second.evaluated) == (4, (0, 2, 4, 5))
    assert second.evaluation == Work(read=pytest.approx(10 * (prompt + answer)), drawn=pytest.approx(10 * answer))
    assert set(run.seconds_left()) == {"sft", "rl"}
    assert sum(run.seconds_left().values()) == 0, "it has ended"


def test_a_run_beside_others_looks_at_the_one_of_the_same_experiment(tiny, tmp_path) -> None:
    experiment = tiny()
    hookline.run(experiment, out=tmp_path / "first")
    hookline.run(experiment, ["phases.rl.rollout.rows=2"], out=tmp_path / "other")
    run = hookline.run(experiment, ["seed=2"], out=tmp_path / "second")
    assert run.outlook is not None
    assert run.outlook.earlier == Run.read(tmp_path / "first").rows()
    assert run.seconds_left() == {"rl": 0}
