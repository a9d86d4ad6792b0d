"""Value learning, trained, beside the exact figures: random walks, cliff walking, a small Wordle; and back into weights."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples/exact"
WALKS = {"clone": 1.0, "grad_clip": 10, "schedule": "linear"}
ILQL = {"use": "ilql", "expectile": 0.9, "conservative": 0.01, "polyak": 0.1, "gamma": 1.0}


def run(file: str, out: Path, *overrides: str) -> Run:
    return hookline.run(EXAMPLES / file, ["trackers=[]", *overrides], out=out)


def figures(run: Run, phase: str) -> dict[str, float]:
    """The figures that stand at a phase's end."""
    found: dict[str, float] = {}
    for row in run.rows():
        if row["phase"] == phase:
            found |= row["metrics"]
    return found


def walks(out: Path, update: dict[str, Any], steps: int, *more: str) -> Run:
    said = json.dumps({**WALKS, **update})
    return run("walks-values.yaml", out, f"phases.learn.update={said}", f"phases.learn.steps={steps}", *more)


@pytest.mark.slow
def test_offline_walks_cloning_then_sarsa_then_q_learning(tmp_path: Path) -> None:
    """.3551 by cloning; .96 where each step is the best by the walks' own worth; 1 by Q-learning; then back into weights."""
    shorter = ("phases.distil.steps=1", "phases.distil.rollout.samples_per_prompt=1")
    sarsa = figures(walks(tmp_path / "sarsa", {"use": "sarsa", "lr": 0.1}, 60, *shorter), "learn")
    assert sarsa["eval/policy"] == pytest.approx(0.3551, abs=0.01)
    assert 0.93 < sarsa["eval/greedy"] < 0.985
    best = walks(tmp_path / "q", {"use": "q-learning", "lr": 0.05}, 150, "phases.distil.steps=50")
    assert figures(best, "learn")["eval/greedy"] == pytest.approx(1.0, abs=0.002)
    student = figures(best, "distil")
    assert student["eval/teacher-kl"] < 0.02
    assert student["eval/policy"] == pytest.approx(figures(best, "learn")["eval/guided"], abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("update", "low", "high"),
    [({"use": "sarsa"}, 0.93, 0.985), ({"use": "q-learning"}, 0.998, 1.0), (ILQL, 0.98, 1.0)],
    ids=["sarsa", "q-learning", "ilql"],
)
def test_walks_from_recorded_walks(tmp_path: Path, update: dict[str, Any], low: float, high: float, seed: int) -> None:
    done = walks(tmp_path, {**update, "lr": 0.05}, 150, f"seed={seed}")
    learned, student = figures(done, "learn"), figures(done, "distil")
    assert low <= learned["eval/greedy"] <= high + 1e-6
    assert learned["eval/policy"] == pytest.approx(0.3551, abs=0.01)
    assert student["eval/teacher-kl"] < 0.01


@pytest.mark.slow
def test_sarsa_in_the_tabular_limit(tmp_path: Path) -> None:
    """On fresh random walks without end, the greedy policy of their values is worth .9595, as computed."""
    fresh = (
        "phases.learn.rollout={use: generate, prompts: 'builtin:walks', rows: 20, samples_per_prompt: 25, max_new_tokens: 10}",
        "phases.learn.update={use: sarsa, lam: 1.0, lr: 0.05, grad_clip: 10, schedule: linear}",
        "phases.distil.steps=1",
    )
    assert figures(run("walks-values.yaml", tmp_path, *fresh), "learn")["eval/greedy"] == pytest.approx(
        0.9595, abs=0.01
    )


@pytest.mark.slow(120)
@pytest.mark.parametrize(
    ("algorithm", "online", "error", "greedy"), [("q-learning", -50.1, 1.3, -13.0), ("sarsa", -26.9, 1.15, -17.0)]
)
def test_cliff_walking(tmp_path: Path, algorithm: str, online: float, error: float, greedy: float) -> None:
    """Thirty learners: Q-learning falls off while it learns and finds the shortest way, SARSA the safe one.

    online: of 120 learners of the textbook's loop in plain Python; error: the standard error of thirty's mean.
    """
    done = run("cliff.yaml", tmp_path, f"phases.learn.update.use={algorithm}")
    assert sum(row["metrics"].get("episodes", 0) for row in done.rows()) == 30 * 500
    late = [row["metrics"]["late_return"] for row in done.rows() if "late_return" in row["metrics"]]
    assert late[-1] == pytest.approx(online, abs=3 * error * (1 + 1 / 4) ** 0.5)
    judged = [json.loads(line) for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()][-1]["samples"]
    ways = [sample["terms"]["recorded"] for sample in judged]
    assert statistics.median(ways) == greedy
    if algorithm == "q-learning":
        assert set(ways) == {-13.0}


@pytest.mark.slow(50)
def test_wordle_needs_more_than_one_step(tmp_path: Path) -> None:
    """Cloning < one step of improvement < multi-step values ≤ the optimum, −2.70."""
    ilql = figures(run("wordle.yaml", tmp_path / "ilql"), "learn")
    one = "phases.learn.update={use: sarsa, clone: 1.0, initial: -6, lr: 0.3, grad_clip: 10, schedule: linear}"
    sarsa = figures(run("wordle.yaml", tmp_path / "sarsa", one), "learn")
    assert ilql["eval/policy"] == pytest.approx(-3.98, abs=0.15)
    assert ilql["eval/policy"] + 0.4 < sarsa["eval/greedy"] < ilql["eval/greedy"] - 0.2
    assert -2.9 < ilql["eval/greedy"] <= -2.7 + 1e-6


@pytest.mark.slow(50)
def test_a_tiny_gpt2_guided_by_its_values(tmp_path: Path) -> None:
    done = run("walks-ilql-gpt2.yaml", tmp_path)
    assert figures(done, "values")["eval/guided/task"] >= 0.95
    assert figures(done, "distil")["eval/task"] >= 0.95
