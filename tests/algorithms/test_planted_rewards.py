"""Rewards planted in simulated annotators are found from their judgements."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import hookline
from hookline import DataError, ExperimentError
from hookline_plugins.rewards.rank_correlation import mean_ranks, spearman

slow = pytest.mark.slow


def planted(
    ask: dict[str, Any], update: dict[str, Any], *, asked: int = 8, steps: int = 60, count: int = 40, **rollout: Any
) -> dict[str, Any]:
    """Ask simulated annotators about answers with planted worths, 60 questions per step, then fit the reward."""
    drawn = {"use": "generate", "prompts": f"builtin:worths?count={count}", "max_new_tokens": 1}
    return {
        "name": "planted", "seed": 1, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "words", "on": f"builtin:worths/answers?count={count}"},
        "model": {"build": "tabular", "task": f"builtin:worths?count={count}", "sees": ["last"], "context": 4},
        "phases": [
            {"name": "ask", "steps": asked, "rollout": {**drawn, "rows": 6, "samples_per_prompt": 8},
             "reward": {"use": "task", "task": f"builtin:worths?count={count}"},
             "feedback": {"use": "simulated-annotator", "temperature": 1.0, "judgements": 10, **ask}},
            {"name": "learn", "model": {"from": "ask", "head": "reward"}, "steps": steps,
             "rollout": {"use": "judgements", "from": "ask", "rows": 160, **rollout},
             "update": {"use": "latent-reward", "lr": 0.1, "own_lr": 0.1, "schedule": "linear", "centre": 0.0, **update},
             "evaluate": [{"every": 1000, "rows": 400, "rollout": {**drawn, "rows": 1, "samples_per_prompt": 400},
                 "reward": [
                     {"use": "task", "task": f"builtin:worths?count={count}"}, "reward-model",
                     {"use": "rank-correlation", "of": "reward-model", "with": "task"},
                     {"use": "rank-correlation", "name": "low", "of": "reward-model", "with": "task", "figure": "low"},
                 ]}]},
        ],
    }  # fmt: skip


def figures_of(made: dict[str, Any], folder: Path) -> dict[str, float]:
    run = hookline.run(made, out=folder)
    found: dict[str, float] = {}
    for row in run.rows():
        found |= row["metrics"]
    return found


def test_four_kinds_of_judgements_together_find_the_planted_rewards(tmp_path: Path) -> None:
    """900 judgements by five annotators, of comparisons, rankings, ratings and thumbs."""
    ask = {
        "kinds": ["comparison", "ranking", "rating", "thumb"],
        "annotators": 5,
        "leniency": 1.0,
        "ties": 0.8,
        "answers": 4,
    }
    made = planted(ask, {"comparison": "davidson"}, asked=15, steps=40, count=24)
    found = figures_of(made, tmp_path / "run")
    assert found["eval/rank-correlation"] >= 0.95
    assert found["eval/low"] >= 0.9
    assert found["ties"] == pytest.approx(0.8, abs=0.35)  # of 240 comparisons; with more it is nearer, see below
    assert found["leniency_spread"] == pytest.approx(1.0, abs=0.4)  # the quantiles of five annotators have 1.03


RECOVERED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, tuple[float, float]], dict[str, Any]]] = {
    # what annotators do, how it is modelled, figures with what was planted and a tolerance, options of the rollout
    "bradley-terry": ({"kinds": ["comparison"]}, {}, {}, {}),
    "conservative": ({"kinds": ["comparison"], "careless": 0.2}, {"noise": "conservative", "flips": 0.2}, {}, {}),
    "robust": ({"kinds": ["comparison"], "careless": 0.2}, {"noise": "robust", "flips": 0.2}, {}, {}),
    "learned": ({"kinds": ["comparison"], "careless": 0.2}, {"noise": "learned"}, {}, {}),
    "davidson": ({"kinds": ["comparison"], "ties": 0.8}, {"comparison": "davidson"}, {"ties": (0.8, 0.12)}, {}),
    "rao-kupper": ({"kinds": ["comparison"], "unnoticed": 0.7}, {"comparison": "rao-kupper"}, {"ties": (0.7, 0.1)}, {}),
    "both-bad": ({"kinds": ["comparison"], "both_bad": 0.5}, {"both_bad": "outside"}, {"eval/reward-model": (-0.5, 0.2)}, {}),
    "position": ({"kinds": ["comparison"], "position": 0.6}, {"position": True}, {"position": (0.6, 0.15)}, {}),
    "plackett-luce": ({"answers": 4}, {}, {}, {}),
    "pairs": ({"answers": 4}, {"ranking": "pairs"}, {}, {}),
    "partial": ({"answers": 5, "ranked": 2}, {}, {}, {"unranked": "below"}),
    "davidson-luce": ({"answers": 4, "ties": 0.8}, {"ranking": "davidson-luce"}, {}, {}),
    **{
        name: ({"kinds": ["rating"], "annotators": 8, "leniency": 1.0}, {"rating": name}, {"leniency_spread": (1.0, spread)}, {})
        for name, spread in (("ordinal", 0.25), ("coral", 0.3), ("corn", 0.6), ("normal", 0.5), ("beta", 1.0), ("binary", 1.0))
    },
    "thumbs": ({"kinds": ["thumb"], "thumb_cut": 1.5}, {"balance": True}, {}, {}),
}  # fmt: skip


@pytest.mark.slow(20)
@pytest.mark.parametrize("name", RECOVERED)
def test_each_model_finds_what_was_planted(name: str, tmp_path: Path) -> None:
    """At 3 000 judgements of one kind."""
    ask, update, values, rollout = RECOVERED[name]
    found = figures_of(planted(ask, update, asked=50, steps=100, **rollout), tmp_path / "run")
    assert found["eval/rank-correlation"] >= 0.95
    for figure, (value, tolerance) in values.items():
        assert found[figure] == pytest.approx(value, abs=tolerance), figure


@pytest.mark.slow(40)
def test_reliabilities_are_recovered_and_an_annotator_who_says_the_opposite_teaches(tmp_path: Path) -> None:
    """3 000 comparisons by four annotators, of whom the fourth says the opposite nine times in ten."""
    ask = {"kinds": ["comparison"], "annotators": 4, "careless": [0.1, 0.1, 0.1, 0.9]}
    found = figures_of(planted(ask, {"noise": "learned"}, asked=50, steps=800), tmp_path / "run")
    assert found["eval/rank-correlation"] >= 0.95
    assert found["reliability_lowest"] == pytest.approx(0.1, abs=0.06)
    assert found["reliability"] == pytest.approx(0.7, abs=0.04)


@pytest.mark.slow(20)
def test_class_weights_predict_the_rare_thumb_too(tmp_path: Path) -> None:
    """Of 1 500 thumbs about one in twenty-four is up; as many later ones are predicted, by who knows the worths with .753."""
    found = {}
    for balance in (True, False):
        made = planted({"kinds": ["thumb"], "thumb_cut": 4.0}, {"balance": balance}, asked=25, steps=60, count=24)
        ask, learn = made["phases"]
        made["phases"] = [ask, {**ask, "name": "later"}, learn]
        learn["evaluate"] = [
            {"every": 1000, "rows": 1500, "rollout": {"use": "judgements", "from": "later", "rows": 1500}}
        ]
        found[balance] = figures_of(made, tmp_path / str(balance))
    assert found[True]["eval/thumbs_majority"] > 0.9
    assert found[True]["eval/thumbs_balanced"] > 0.65
    assert found[False]["eval/thumbs_balanced"] < 0.55, "without weights, only the majority is predicted"
    assert found[False]["eval/thumbs_up_right"] < 0.1


@pytest.mark.slow(30)
def test_thumbs_of_which_one_in_ten_is_up_tell_as_much_as_even_ones(tmp_path: Path) -> None:
    """1 500 thumbs with class weights, of which one in ten is up, and 1 500 of which half are; both order the same later thumbs."""
    found = {}
    for cut in (2.8, 0.0):
        made = planted({"kinds": ["thumb"], "thumb_cut": cut}, {"balance": True}, asked=25, steps=60, count=24)
        ask, learn = made["phases"]
        later = {**ask, "name": "later", "feedback": {**ask["feedback"], "thumb_cut": 2.8}}
        made["phases"] = [ask, later, learn]
        learn["evaluate"] = [{"every": 1000, "rows": 1500, "rollout": {"use": "judgements", "from": "later", "rows": 100}}]
        found[cut] = figures_of(made, tmp_path / str(cut))
    print({cut: (one["eval/thumbs_auc"], one["eval/thumbs_majority"], one["eval/thumbs_balanced"]) for cut, one in found.items()})
    assert 0.87 < found[2.8]["eval/thumbs_majority"] < 0.93
    assert found[2.8]["eval/thumbs_auc"] >= found[0.0]["eval/thumbs_auc"] - 0.02
    assert found[2.8]["eval/thumbs_auc"] > 0.7


@pytest.mark.slow(40)
def test_leniency_of_its_own_for_each_annotator_orders_better_than_raw_marks(tmp_path: Path) -> None:
    """480 ratings by eight annotators, whose leniency differs by a standard deviation of 2."""
    ask = {"kinds": ["rating"], "annotators": 8, "leniency": 2.0}
    ways = {
        "raw": {"rating": "normal", "annotator": "same"},
        "normal": {"rating": "normal"},
        "ordinal": {"rating": "ordinal"},
    }
    found: dict[str, list[float]] = {}
    for name, update in ways.items():
        for seed in (1, 2, 3):
            made = {**planted(ask, update), "seed": seed}
            found.setdefault(name, []).append(figures_of(made, tmp_path / f"{name}{seed}")["eval/rank-correlation"])
    print({name: [round(value, 3) for value in values] for name, values in found.items()})
    for name in ("normal", "ordinal"):
        assert all(own > raw + 0.01 for own, raw in zip(found[name], found["raw"])), found


def with_outputs(made: dict[str, Any], outputs: list[str], **rewards: int) -> dict[str, Any]:
    """The head has several outputs, and the phases have several gold rewards, by the seed of their worths."""
    ask, learn = made["phases"]
    gold = [
        {"use": "task", "name": name, "task": f"builtin:worths?count=24&seed={seed}"} for name, seed in rewards.items()
    ]
    learn["model"]["head"] = {"use": "reward", "outputs": outputs}
    ask["reward"] = gold
    learn["evaluate"][0]["reward"] = [
        *gold,
        *({"use": "reward-model", "name": f"rm-{name}", "output": name} for name in outputs),
        *(
            {"use": "rank-correlation", "name": f"{name}.{true}", "of": f"rm-{name}", "with": true}
            for name in outputs
            for true in rewards
        ),
    ]
    return made


def test_attributes_are_told_apart_and_missing_marks_are_masked(tmp_path: Path) -> None:
    """960 ratings with two axes, a third of which are not marked; outputs and axes have another order."""
    ask = {"kinds": ["rating"], "axes": ["helpful", "brief"], "skipped": 0.4}
    made = planted(ask, {}, asked=16, steps=35, count=24, axes=["brief", "helpful"])
    found = figures_of(with_outputs(made, ["helpful", "brief"], helpful=1, brief=2), tmp_path / "run")
    assert found["eval/helpful.helpful"] >= 0.95
    assert found["eval/brief.brief"] >= 0.95
    assert abs(found["eval/helpful.brief"]) < 0.6


@pytest.mark.slow(30)
def test_annotators_of_two_tastes_are_told_apart(tmp_path: Path) -> None:
    """4 800 comparisons by six annotators, three of each taste."""
    ask = {"kinds": ["comparison"], "annotators": 6, "tastes": ["one", "two"]}
    made = planted(ask, {"outputs": "tastes"}, asked=80, steps=150, count=24)
    found = figures_of(with_outputs(made, ["a", "b"], one=1, two=2), tmp_path / "run")
    best = max(found["eval/a.one"] + found["eval/b.two"], found["eval/a.two"] + found["eval/b.one"])
    assert best / 2 >= 0.95
    taste = load_file(tmp_path / "run/phases/learn/model/model.safetensors")["own.taste"][:6].softmax(1)[:, 0]
    numbers = {row["annotator"]: None for row in map(json.loads, (tmp_path / "run/phases/ask/data.jsonl").open())}
    of_one = torch.tensor([int(name[-1]) % 2 == 0 for name in numbers])
    assert float((taste[of_one].mean() - taste[~of_one].mean()).abs()) > 0.9


@pytest.mark.slow(15)
def test_a_classifier_of_marks_has_the_expected_class_as_reward(tmp_path: Path) -> None:
    """2 400 ratings and comparisons; comparisons are about the expected classes."""
    made = planted({"kinds": ["rating", "comparison"]}, {"outputs": "classes"}, asked=40, steps=80, count=24)
    made["phases"][1]["model"]["head"] = {"use": "reward", "outputs": ["1", "2", "3", "4", "5"]}
    rewards = made["phases"][1]["evaluate"][0]["reward"]
    rewards[1] = {"use": "reward-model", "join": "expected"}
    found = figures_of(made, tmp_path / "run")
    assert found["eval/rank-correlation"] >= 0.95
    assert 2.5 < found["eval/reward-model"] < 3.5
    made["phases"][1]["model"]["head"]["outputs"] = ["1", "2", "good"]
    with pytest.raises(ExperimentError, match=r"outputs: \[1, 2, 3, 4, 5\]"):
        hookline.run(made, out=tmp_path / "other")


@pytest.mark.slow(25)
def test_an_ensemble_disagrees_where_it_was_asked_less(tmp_path: Path) -> None:
    """Outputs joined by the reward model, and a spread that shrinks with the number of judgements."""
    found = []
    for asked in (4, 30):
        made = planted({"kinds": ["comparison"]}, {"outputs": "ensemble"}, asked=asked, steps=40, count=24)
        made["phases"][1]["model"]["head"] = {"use": "reward", "outputs": ["a", "b", "c", "d"]}
        rewards = made["phases"][1]["evaluate"][0]["reward"]
        rewards[1] = {"use": "reward-model", "join": "mean"}
        rewards += [{"use": "reward-model", "name": name, "join": name} for name in ("lowest", "cautious")]
        found.append(figures_of(made, tmp_path / f"run{asked}"))
    assert found[1]["disagreement"] < 0.8 * found[0]["disagreement"]
    assert found[1]["eval/rank-correlation"] >= 0.95
    for one in found:
        assert one["eval/lowest"] < one["eval/cautious"] < one["eval/reward-model"]


def test_several_outputs_need_to_be_named(tmp_path: Path) -> None:
    made = planted({"kinds": ["comparison"]}, {}, asked=1, steps=1)
    made["phases"][1]["model"]["head"] = {"use": "reward", "outputs": ["helpful", "brief"]}
    with pytest.raises(
        ExperimentError, match="has 2 outputs, and 'reward-model' reads one → name one as `output`: helpful, brief"
    ):
        hookline.run(made, out=tmp_path / "a")
    made["phases"][1]["evaluate"] = []
    with pytest.raises(DataError, match="outputs helpful, brief, and a comparison is about none of them"):
        hookline.run(made, out=tmp_path / "b")
    made["phases"][1]["model"]["head"] = "reward"
    made["phases"][1]["update"]["outputs"] = "ensemble"
    with pytest.raises(ExperimentError, match="outputs is ensemble, but the head 'reward' has one output"):
        hookline.run(made, out=tmp_path / "c")


def test_ranks_share_their_mean_and_correlate() -> None:
    a = torch.tensor([3.0, 1.0, 1.0, 9.0])
    assert mean_ranks(a).tolist() == [2, 0.5, 0.5, 3]
    assert spearman(a, a * 2) == pytest.approx(1.0)
    assert spearman(a, -a) == pytest.approx(-1.0)
    assert math.isnan(spearman(a, torch.ones(4)))


def test_answers_to_several_prompts_have_what_is_common_to_a_prompt() -> None:
    rows = hookline.task("builtin:worths?prompts=3&count=4&std=0.1&spread=5").rows("answers")
    worths = torch.tensor([row["worth"] for row in rows]).view(3, 4)
    assert [row["prompt"] for row in rows[::4]] == ["say0", "say1", "say2"]
    assert float(worths.mean(1).std(correction=0)) > 3
    assert worths.std(1).tolist() == pytest.approx([float(worths[0].std())] * 3)
    one = hookline.task("builtin:worths?count=4").rows("answers")
    assert [row["prompt"] for row in one] == ["say"] * 4


def test_a_correlation_over_prompts_does_not_see_what_is_common_to_a_prompt(tmp_path: Path) -> None:
    from hookline.testing import open_phase

    made = planted({"kinds": ["comparison"]}, {})
    made["phases"] = made["phases"][:1]
    made["tokenizer"]["on"], made["model"]["sees"] = "builtin:worths/answers?prompts=3&count=4&spread=9", ["first", "last"]
    task = made["model"]["task"] = "builtin:worths?prompts=3&count=4&spread=9"
    made["phases"][0]["rollout"] = {"use": "generate", "prompts": task, "rows": 3, "samples_per_prompt": 40, "max_new_tokens": 1}
    given = [{"use": "task", "name": "true", "task": task}, {"use": "task", "name": "within", "task": "builtin:worths?prompts=3&count=4"}]
    each = {"of": "within", "with": "true"}
    made["phases"][0]["reward"] = [*given, {"use": "rank-correlation", "name": "prompts", "over": "prompts", **each},
                                   {"use": "rank-correlation", "name": "answers", **each}]  # fmt: skip
    with open_phase(made) as loop:
        scored = loop.hooks.score(loop.ctx, loop.hooks.rollout(loop.ctx))
        over = {slot.instance: slot.component.summarise(scored.terms[slot.instance], scored) for slot in loop.planned.rewards[2:]}
    assert over["prompts"] == pytest.approx(1.0)
    assert over["answers"] < 0.9
    made["phases"][0]["reward"][2]["figure"] = "low"
    with pytest.raises(ExperimentError, match="an end of an interval of a mean over prompts"), open_phase(made):
        pass
