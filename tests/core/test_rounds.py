"""Rounds: `repeat` over phases is those phases in turn, each round under a name of its own."""

from __future__ import annotations

import copy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

import hookline
from hookline import ExperimentError
from hookline.loop.api import plan

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "rounds.yaml"
SAMPLES = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}
LOOP: dict[str, Any] = {
    "name": "rounds",
    "seed": 1,
    "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
    "model": {"build": "gpt2", "layers": 1, "width": 32, "context": 64},
    "phases": [
        {
            "name": "sft",
            "rollout": {"use": "dataset", "path": "builtin:keywords/sentences", "rows": 4},
            "update": "sft",
            "steps": 1,
        },
        {
            "repeat": 3,
            "phases": [
                {
                    "name": "compare",
                    "model": {"from": "rl", "first": "sft"},
                    "rollout": SAMPLES,
                    "reward": "keyword-coverage",
                    "feedback": "simulated-annotator",
                    "steps": 2,
                },
                {
                    "name": "judge",
                    "model": {"from": "sft", "head": "reward"},
                    "rollout": {"use": "preferences", "from": "compare", "rows": 2},
                    "update": "bradley-terry",
                    "steps": 2,
                },
                {
                    "name": "rl",
                    "rollout": SAMPLES,
                    "reward": {"use": "reward-model", "from": "judge"},
                    "update": "rloo",
                    "steps": 2,
                },
            ],
        },
    ],
    "trackers": [],
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    values = copy.deepcopy(LOOP)
    place: Any = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return values


def starts(values: dict[str, Any], *overrides: str) -> dict[str, str | None]:
    return {phase.spec.name: phase.start for phase in plan(values, list(overrides)).phases}


def test_rounds_are_unrolled_in_turn() -> None:
    assert starts(LOOP) == {
        "sft": None,
        "compare@1": "sft", "judge@1": "sft", "rl@1": "sft",
        "compare@2": "rl@1", "judge@2": "sft", "rl@2": "rl@1",
        "compare@3": "rl@2", "judge@3": "sft", "rl@3": "rl@2",
    }  # fmt: skip


def test_one_round_has_its_number_too() -> None:
    assert list(starts(changed("phases", 1, "repeat", to=1))) == ["sft", "compare@1", "judge@1", "rl@1"]


def test_a_phase_behind_the_rounds_starts_from_the_latest_or_from_one_by_number() -> None:
    last = {**LOOP["phases"][0], "name": "last", "model": {"from": "rl"}}
    exact = {**last, "name": "exact", "model": {"from": "rl@1"}}
    values = {**LOOP, "phases": [*LOOP["phases"], last, exact]}
    assert starts(values)["last"] == "rl@3"
    assert starts(values)["exact"] == "rl@1"


def test_an_override_reaches_all_rounds() -> None:
    planned = plan(LOOP, ["phases.rl.steps=4", "phases.judge.update.lr=0.5"])
    assert [p.spec.steps for p in planned.phases if p.spec.name.startswith("rl@")] == [4, 4, 4]
    assert [p.update.config.lr for p in planned.phases if p.spec.name.startswith("judge@")] == [0.5] * 3  # type: ignore[union-attr]


def test_what_is_resolved_plans_the_same_again() -> None:
    resolved = plan(LOOP).experiment.resolved()
    assert [phase["name"] for phase in resolved["phases"]][1:4] == ["compare@1", "judge@1", "rl@1"]
    assert plan(resolved).experiment.resolved() == resolved


@pytest.mark.parametrize(
    ("path", "to", "says"),
    [
        (("phases", 1, "repeat"), 0, "line 20: repeat is 0; it must be a whole number of rounds, from 1 to 1000"),
        (("phases", 1, "repeat"), True, "repeat is True; it must be a whole number"),
        (("phases", 1, "repeat"), 5000, "repeat is 5000; it must be a whole number"),
        (("phases", 1, "steps"), 3, "repeat has no option 'steps'; it has: phases"),
        (("phases", 1, "phases"), [], "repeat must have a list of phases, not []"),
        (("phases", 1, "phases", 0), {"repeat": 2, "phases": []}, "repeat is inside another repeat; rounds cannot be"),
        (
            ("phases", 1, "phases", 0, "model"),
            {"from": "rl"},
            "model.from: phase 'rl' comes later; earlier ones: sft; say where round 1 starts from: "
            "{from: rl, first: PHASE}",
        ),
        (("phases", 1, "phases", 0, "model", "first"), "stf", "model.from: phase 'stf' does not exist; did you mean"),
        (("phases", 1, "phases", 0, "model", "from"), "judge@4", "phase 'judge@4' does not exist"),
        (
            ("phases", 0, "model"),
            {"first": "sft"},
            "model.first says where round 1 starts from, but the phase is not inside",
        ),
        (("phases", 1, "phases", 2, "reward", "from"), "juge", "reward-model.from: no earlier phase 'juge'"),
        (("phases", 1, "phases", 1, "rollout", "from"), "rl", "no earlier phase 'rl'; there are: sft, compare@1"),
        (("phases", 1, "phases", 1, "rollout", "rows"), "two", "rows must be a whole number, not 'two'"),
    ],
)
def test_what_is_wrong_is_said_once_with_its_line(path: Any, to: Any, says: str, tmp_path: Path) -> None:
    file = tmp_path / "rounds.yaml"
    file.write_text(yaml.safe_dump(changed(*path, to=to), sort_keys=False))
    with pytest.raises(ExperimentError) as caught:
        plan(file)
    said = str(caught.value)
    assert says in said
    assert said.count(says.removeprefix("line 20: ")[:40]) == 1, "every round has the same problem"
    assert "line " in said


def test_an_unknown_phase_of_an_override_names_those_inside_rounds() -> None:
    with pytest.raises(ExperimentError, match="there are: sft, compare, judge, rl"):
        plan(LOOP, ["phases.rk.steps=4"])


def test_explain_lists_every_round_and_what_it_reads() -> None:
    from hookline.cli.show import explain_text

    said = explain_text(plan(LOOP))
    assert "compare@2   2 steps   policy as phase 'rl@1' left it" in said
    assert "preferences.from: what 'compare@1', 'compare@2', 'compare@3' collected" in said
    assert "reward-model.from: as phase 'judge@3' left it" in said


def ordered(samples: list[dict[str, Any]], judge: str) -> float:
    """Share of the pairs of answers to one prompt that a reward orders as the task does, ties apart."""
    groups: dict[int, list[dict[str, float]]] = {}
    for sample in samples:
        groups.setdefault(sample["group"], []).append(sample["terms"])
    pairs = [pair for rows in groups.values() for pair in combinations(rows, 2) if pair[0]["task"] != pair[1]["task"]]
    right = [(a[judge] - b[judge]) * (a["task"] - b["task"]) > 0 for a, b in pairs]
    assert len(right) > 300
    return sum(right) / len(right)


@pytest.mark.slow
def test_the_reward_model_of_round_two_knows_the_answers_of_round_two_better_than_the_first(tmp_path: Path) -> None:
    run = hookline.run(EXAMPLE, ["trackers=[]"], out=tmp_path / "rounds")
    first = {e["phase"]: e["samples"] for e in run.evaluations() if e["step"] == 0 and e["phase"].startswith("rl@")}
    assert ordered(first["rl@1"], "reward-model") > 0.9
    assert ordered(first["rl@2"], "reward-model") > ordered(first["rl@2"], "first-reward-model") + 0.05
    rows = {row["phase"]: row["metrics"] for row in run.rows()}
    assert rows["rl@2"]["eval/task"] > rows["rl@1"]["eval/task"] > 0.7
