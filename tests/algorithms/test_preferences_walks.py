"""Preferences on the random walks: fresh comparisons reach the exact frontier, a fixed set of them drifts, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import hookline

WALKS = "builtin:walks"
DRIFT = Path(__file__).parents[2] / "examples/exact/dpo-drift.yaml"
GENERATE = {"use": "generate", "prompts": WALKS, "rows": 20, "samples_per_prompt": 8, "max_new_tokens": 10}
DUEL = {**GENERATE, "use": "duel", "samples_per_prompt": 4}
LINEAR = {"lr": 0.1, "schedule": "linear"}


def figures(folder: Path, steps: int, seed: int = 1, **phase: Any) -> dict[str, float]:
    """Exact return, kl and gap at the end of one phase, by a table."""
    judge = [{"use": "exact", "name": f, "figure": f, "task": WALKS} for f in ("return", "kl", "gap")]
    own = {"rollout": GENERATE, "update": {"use": "dpo", "beta": 0.1, **LINEAR}, **phase}
    experiment = {
        "name": "walks",
        "seed": seed,
        "threads": 1,
        "trackers": [],
        "tokenizer": {"train": "words", "on": f"{WALKS}/walks"},
        "model": {"build": "tabular", "task": WALKS, "sees": ["position", "first", "last"], "context": 12},
        "phases": [
            {
                "name": "learn",
                "reward": {"use": "task", "task": WALKS},
                "steps": steps,
                "evaluate": [{"rollout": {**GENERATE, "samples_per_prompt": 1}, "rows": 20, "reward": judge}],
                **own,
            }
        ],
    }
    found: dict[str, float] = hookline.run(experiment, out=folder / "run").rows()[-1]["metrics"]
    return found


@pytest.mark.slow
def test_online_dpo_with_soft_labels_comes_near_the_frontier_and_never_above(tmp_path: Path) -> None:
    end = figures(tmp_path, 60, wrap="preference")
    assert 0.9 < end["eval/return"] < 0.98
    assert 1.2 < end["eval/kl"] < 1.6
    assert -1e-6 < end["eval/gap"] < 0.03


@pytest.mark.slow
def test_nash_md_and_a_duel_learn_from_samples(tmp_path: Path) -> None:
    wrap = {"use": "preference", "temperature": 0.1}
    end = figures(tmp_path, 25, rollout=DUEL, wrap=wrap, update={"use": "nash-md", "tau": 0.01, **LINEAR})
    assert end["eval/return"] > 0.6
    assert end["eval/gap"] > -1e-6


@pytest.mark.slow
def test_online_dpo_ends_at_the_frontiers_point_of_its_beta(tmp_path: Path) -> None:
    end = figures(tmp_path, 150, wrap="preference")
    assert end["eval/return"] == pytest.approx(0.9749, abs=0.01)
    assert end["eval/kl"] == pytest.approx(1.5408, abs=0.03)
    assert -1e-6 < end["eval/gap"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("least", "phase"),
    [
        (0.98, {"update": {"use": "dpo", "beta": 0.1, **LINEAR}}),
        (0.98, {"update": {"use": "dpo", "beta": 0.1, "loss": "hinge", **LINEAR}}),
        (0.98, {"update": {"use": "dpo", "beta": 0.1, "loss": "conservative", "flips": 0.1, **LINEAR}}),
        (0.98, {"update": {"use": "dpo", "beta": 0.1, "loss": "plackett-luce", **LINEAR}}),
        (0.98, {"update": {"use": "kto", "threshold": 0.9, **LINEAR}}),
        (0.98, {"update": {"use": "orpo", "odds_weight": 0.5, **LINEAR}}),
        (0.98, {"update": {"use": "simpo", **LINEAR}}),
        (0.98, {"rollout": {**GENERATE, "samples_per_prompt": 4}, "update": {"use": "best-of-n", "lr": 0.1}}),
        (0.98, {"rollout": {**DUEL, "opponent": 1}, "update": {"use": "xpo", **LINEAR}}),
        (0.97, {"rollout": DUEL, "wrap": {"use": "preference", "temperature": 0.1}, "update": {"use": "nash-md", "tau": 0.005, **LINEAR}}),
    ],
    ids=["dpo", "hinge", "conservative", "plackett-luce", "kto", "orpo", "simpo", "best-of-n", "xpo", "nash-md"],
)  # fmt: skip
def test_sharp_comparisons_lead_to_the_best_walks(tmp_path: Path, least: float, phase: dict[str, Any]) -> None:
    end = figures(tmp_path, 150, **phase)
    assert end["eval/return"] >= least
    assert end["eval/gap"] > -1e-6


@pytest.mark.slow(50)
def test_a_fixed_set_of_comparisons_drifts_and_the_alarm_says_so(tmp_path: Path) -> None:
    run = hookline.run(DRIFT, ["trackers=[]"], out=tmp_path / "run")
    rows = [row["metrics"] for row in run.rows() if row["phase"] == "dpo"]
    curve = [row["eval/task"] for row in rows if "eval/task" in row]
    assert max(curve) > curve[0] + 0.3
    assert curve[-1] < max(curve) - 0.3
    assert rows[-1]["accuracy"] > 0.7
    assert rows[-1]["both_falling"] > 0.5
