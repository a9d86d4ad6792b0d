"""Reward models and models that are compared: known strengths, ceilings, curves, tests under peeking, and what to ask next."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import optimize

import hookline
from hookline import DataError, ExperimentError, NumbersError
from hookline.cli import main
from hookline.study.judging.calibration import liked_or_not
from mixed_judgements import mixed

PAIRS = [
    (0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3), (0, 4), (1, 4), (2, 4), (3, 4), (0, 5), (1, 5), (2, 5), (3, 5), (4, 5),
]  # fmt: skip
WON = [19, 16, 19, 18, 23, 19, 13, 16, 16, 17, 18, 22, 13, 14, 11]
LOST = [22, 19, 19, 23, 19, 20, 19, 20, 15, 14, 21, 20, 18, 19, 21]
TIED = [16, 12, 10, 13, 9, 15, 18, 12, 17, 16, 12, 12, 10, 18, 12]


def pudding() -> tuple[Any, Any]:
    """Davidson 1970: how often each of six brands of chocolate pudding was preferred to another, and how often neither was."""
    wins, ties = np.zeros((6, 6)), np.zeros((6, 6))
    for (a, b), won, lost, tied in zip(PAIRS, WON, LOST, TIED):
        wins[a, b], wins[b, a] = won, lost
        ties[a, b] = ties[b, a] = tied
    return wins, ties


def test_strengths_are_those_of_davidson_1970() -> None:
    wins, ties = pudding()
    strength, nu = hookline.davidson(wins, ties)
    assert strength - strength[0] == pytest.approx([0, 0.22024, 0.15298, 0.17514, 0.13387, 0.37713], abs=1e-5)
    assert nu == pytest.approx(0.74682, abs=1e-5)
    halves = hookline.bradley_terry(wins + ties / 2)
    assert halves - halves[0] == pytest.approx([0, 0.16031, 0.11134, 0.12748, 0.09743, 0.27449], abs=1e-5)
    dropped = hookline.bradley_terry(wins)
    assert dropped - dropped[0] == pytest.approx([0, 0.21898, 0.15357, 0.17042, 0.13492, 0.37382], abs=1e-5)


def test_strengths_are_the_maximum_that_scipy_finds() -> None:
    wins = np.random.default_rng(0).integers(1, 30, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)

    def loss(s: Any) -> float:
        return float((wins * np.logaddexp(0, s[None] - s[:, None])).sum())

    best = optimize.minimize(loss, np.zeros(5), tol=1e-12).x
    assert hookline.bradley_terry(wins) == pytest.approx(best - best.mean(), abs=1e-4)


def test_what_always_wins_is_refused_by_a_sentence_or_held_by_a_prior() -> None:
    wins = np.array([[0, 1e5, 9], [0, 0, 4], [0, 3, 0]])
    with pytest.raises(NumbersError, match="won or lost every comparison"):
        hookline.bradley_terry(wins)
    found = hookline.bradley_terry(wins, prior=0.5)
    assert np.isfinite(found).all()
    assert found.argmax() == 0
    rated = hookline.ratings(["a", "b"], [0] * 9, [1] * 9, [1] * 9)
    assert "prior" in rated.note or "added" in rated.note
    assert rated.names == ("a", "b")
    with pytest.raises(DataError, match="not connected"):
        hookline.ratings(["a", "b", "c", "d"], [0, 2], [1, 3], [1, 0])


def test_ratings_do_not_depend_on_names_and_cover_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = np.array([0.8, 0.0, -0.8])
    one, two = np.array([rng.choice(3, 2, replace=False) for _ in range(900)]).T
    score = (rng.random(900) < 1 / (1 + np.exp(truth[two] - truth[one]))).astype(float)
    found = hookline.ratings(["a", "b", "c"], one, two, score)
    assert found.names == ("a", "b", "c")
    for name, value in zip("abc", truth):
        assert found.strength[name].low < value < found.strength[name].high
    assert found.elo["a"].value == pytest.approx(1000 + 173.7178 * found.strength["a"].value, abs=1e-3)
    turned = hookline.ratings(["c", "a", "b"], (one + 1) % 3, (two + 1) % 3, score)
    assert turned.strength["a"].value == pytest.approx(found.strength["a"].value, abs=1e-9)
    swapped = hookline.ratings(["a", "b", "c"], two, one, 1 - score)
    assert swapped.strength["b"].value == pytest.approx(found.strength["b"].value, abs=1e-9)


def test_a_longer_answer_alone_wins_nothing() -> None:
    rng = np.random.default_rng(0)
    longer = rng.normal(40, 60, 3000)
    score = (rng.random(3000) < 1 / (1 + np.exp(-1.5 * np.tanh(longer / 60)))).astype(float)
    rate, gamma = hookline.length_controlled(score, longer)
    assert score.mean() > 0.6
    assert rate == pytest.approx(0.5, abs=0.03)
    assert gamma == pytest.approx(1.5, abs=0.25)


@pytest.mark.parametrize(
    ("spread", "accuracy", "agreement", "nll"),
    [
        (0.5, 0.6311, 0.5508, 0.6400),
        (1, 0.7252, 0.6368, 0.5395),
        (2, 0.8280, 0.7600, 0.3753),
        (4, 0.9059, 0.8655, 0.2174),
    ],
)
def test_ceilings_are_the_integrals_and_are_found_from_agreement(
    spread: float, accuracy: float, agreement: float, nll: float
) -> None:
    rewards = np.random.default_rng(0).normal(0, spread, (2, 400_000))
    found = hookline.ceiling(1 / (1 + np.exp(rewards[1] - rewards[0])))
    assert (found.accuracy, found.agreement, found.nll) == pytest.approx((accuracy, agreement, nll), abs=2e-3)
    again = hookline.ceiling_of_agreement(agreement)
    assert (again.accuracy, again.nll) == pytest.approx((accuracy, nll), abs=2e-4)


def test_calibration_finds_the_factor_of_the_gaps_and_ties_are_half_right() -> None:
    rng = np.random.default_rng(0)
    gap = rng.normal(0, 2, 4000)
    won = (rng.random(4000) < 1 / (1 + np.exp(-gap))).astype(float)
    good, bold = hookline.calibration(gap, won), hookline.calibration(3 * gap, won)
    assert good.slope == pytest.approx(1, abs=0.12)
    assert good.intercept == pytest.approx(0, abs=0.12)
    assert good.ece.value < 0.04
    assert bold.slope == pytest.approx(1 / 3, abs=0.02)
    assert bold.ece.low > 0.1
    assert bold.accuracy == good.accuracy
    assert bold.nll > good.nll
    constant = hookline.calibration(np.zeros(40), won[:40])
    assert constant.accuracy.value == 0.5
    assert constant.ties == 40
    assert math.isnan(constant.slope)
    assert "equal" in constant.note
    huge = hookline.calibration(np.array([1e4, -1e4, 1e4]), np.array([1.0, 0.0, 1.0]))
    assert "separate" in huge.note
    assert huge.nll == 0
    assert hookline.calibration([], []).note


def test_rare_thumbs_are_told_apart_by_auc_and_balanced_accuracy() -> None:
    """One in ten is up. The AUC is that of all pairs by hand, its interval has the size of repeated draws, and a constant reward has ½."""

    def drawn(seed: int, count: int = 2000) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        reward = rng.normal(0, 1.5, count).round(1)
        return reward, rng.random(count) < 1 / (1 + np.exp(3.2 - reward))

    reward, up = drawn(0)
    found = liked_or_not(reward, up)
    above = np.sign(reward[up][:, None] - reward[~up])
    assert found.auc.value == pytest.approx((above.mean() + 1) / 2, abs=1e-12)
    assert 0.85 < found.majority < 0.95
    assert (found.up, found.down) == (up.sum(), (~up).sum())
    assert 0.65 < found.balanced < found.auc.value
    values = [liked_or_not(*drawn(seed)).auc.value for seed in range(1, 80)]
    assert (found.auc.high - found.auc.low) / 3.92 == pytest.approx(np.std(values), rel=0.3)
    twice = liked_or_not(np.tile(reward, 2), np.tile(up, 2), np.tile(np.arange(2000), 2))
    assert twice.auc.high - twice.auc.low == pytest.approx(found.auc.high - found.auc.low, rel=0.02)
    constant = liked_or_not(np.zeros(2000), up)
    assert (constant.auc.value, constant.balanced) == (0.5, 0.5)
    assert liked_or_not(-reward, up).auc.value == pytest.approx(1 - found.auc.value)
    for none in (np.zeros(5, bool), np.ones(5, bool), np.zeros(0, bool)):
        alone = liked_or_not(np.arange(len(none)), none)
        assert math.isnan(alone.auc.value)
        assert math.isnan(alone.majority)


def test_best_of_n_peaks_where_the_closed_form_does() -> None:
    proxy = np.random.default_rng(0).normal(size=(400, 512))
    found = hookline.best_of_n(proxy, proxy - 0.2 * proxy**2)
    assert found.gold[:8] == pytest.approx([-0.2, 0.364, 0.719, 0.944, 1.083, 1.165, 1.204, 1.213], abs=0.01)
    assert found.proxy[:8] == pytest.approx([0, 0.564, 1.029, 1.424, 1.766, 2.070, 2.344, 2.595], abs=0.01)
    assert found.kl[1:5] == pytest.approx([0.19315, 0.63629, 1.20444, 1.83509], abs=1e-5)
    assert found.best in (64, 128, 256)
    assert found.alpha == pytest.approx(1.46, abs=0.03)
    assert found.beta == pytest.approx(0.378, abs=0.02)
    assert found.alarm
    noise = proxy + np.random.default_rng(1).normal(size=proxy.shape)
    regressional = hookline.best_of_n(noise, proxy)
    assert not regressional.alarm
    assert regressional.best == 512
    few = np.random.default_rng(7).normal(size=(6, 8))  # with six prompts, a fall of the gold reward may be chance
    doubtful = hookline.best_of_n(few, np.random.default_rng(8).normal(size=few.shape) - 0.3 * few)
    assert doubtful.best < 8
    assert not doubtful.alarm
    assert "may be chance" in doubtful.sentence
    constant = hookline.best_of_n(np.zeros((3, 8)), proxy[:3, :8])
    assert constant.gold == pytest.approx([proxy[:3, :8].mean()] * 4)
    with pytest.raises(DataError, match="best of 9"):
        hookline.best_of_n(proxy[:, :8], proxy[:, :8], [1, 2, 9])


def test_peeking_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    peeked = fixed = 0
    for _ in range(600):
        scores = rng.integers(0, 2, 300)
        peeked += hookline.always_valid(scores).decided_at is not None
        looks = np.arange(30, 301, 30)
        z = (scores.cumsum()[looks - 1] - looks / 2) / np.sqrt(looks / 4)
        fixed += bool((abs(z) > 1.96).any())
    assert peeked / 600 <= 0.05
    assert fixed / 600 > 0.14
    better = hookline.always_valid(rng.random(2000) < 0.6)
    assert better.decided_at is not None
    assert better.low < 0.6 < better.high
    none = hookline.always_valid([])
    assert (none.p, none.low, none.high) == (1, 0, 1)
    assert hookline.always_valid([0.5] * 500).decided_at is None
    with pytest.raises(DataError, match="not 0, ½ or 1"):
        hookline.always_valid([2])


def until_ordered(how: Any, seed: int, answers: int = 400) -> int:
    """How many answers a linear reward model needs until it orders 60 things with Kendall's τ of .9."""
    rng, said = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    feature = rng.normal(size=(60, 8))
    weight = rng.normal(size=8)
    weight *= 4 / np.linalg.norm(weight)
    one, two = np.triu_indices(60, 1)
    z, order = feature[one] - feature[two], np.sign((feature[one] - feature[two]) @ weight)
    free, asked, won = np.ones(len(z), bool), [], []
    known = hookline.posterior(np.empty((0, 8)), [], prior=4.0)
    while len(asked) < answers:
        left = np.flatnonzero(free)
        for chosen in hookline.choose(z[left], known, 4, how=how, seed=(seed, len(asked))):
            pair = left[chosen.pair]
            free[pair] = False
            asked.append(pair)
            won.append(float(said.random() < 1 / (1 + np.exp(-z[pair] @ weight))))
        known = hookline.posterior(z[asked], won, prior=4.0)
        if np.mean(np.sign(z @ known.mean_D) * order) >= 0.9:
            break
    return len(asked)


@pytest.mark.parametrize("how", ["d-optimal", "uncertainty", "thompson"])
def test_chosen_pairs_need_30_percent_fewer_answers_than_random_ones(how: Any) -> None:
    chosen, random = ([until_ordered(each, seed) for seed in range(20)] for each in (how, "random"))
    print(f"{how}: {np.mean(chosen):.0f} answers, random: {np.mean(random):.0f}")
    assert np.mean(chosen) <= 0.7 * np.mean(random)


def test_choices_are_distinct_keep_a_random_share_and_say_its_probability() -> None:
    z = np.random.default_rng(0).normal(size=(50, 3))
    z[:20] = 5 * z[0]  # each alone would teach most
    known = hookline.posterior(np.empty((0, 3)), [])
    batch = hookline.choose(z, known, 6, random_share=0.0)
    assert sum(one.pair < 20 for one in batch) <= 2, "copies of a pair do not fill a batch"
    whole = hookline.choose(z, known, 99, random_share=0.2, seed=1)
    assert sorted(one.pair for one in whole) == list(range(50))
    assert 2 <= sum(one.random for one in whole) <= 20
    assert all(one.probability == 1 / (50 - i) for i, one in enumerate(whole) if one.random)
    with pytest.raises(ExperimentError, match="not a way"):
        hookline.choose(z, known, 1, how="best")  # type: ignore[arg-type]


@pytest.mark.slow
def test_one_file_of_mixed_judgements_trains_a_model_and_says_whom_to_trust_and_what_to_ask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = mixed(items=150)
    for name, some in (("train", events[: len(events) * 2 // 3]), ("held", events[len(events) * 2 // 3 :])):
        lines = [json.dumps({**event.written(), "extra": {"topic": event.prompt[-1:]}}) for event in some]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    experiment = {
        "name": "rm", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": "builtin:stdlib-docs", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 32, "heads": 2, "context": 64},
        "phases": [{
            "name": "rm", "model": {"head": "reward"}, "steps": 40,
            "rollout": {"use": "judgements", "path": str(tmp_path / "train.jsonl"), "rows": 16},
            "update": {"use": "latent-reward", "lr": 3e-3},
        }],
    }  # fmt: skip
    run = hookline.run(experiment, out=tmp_path / "run")
    held = hookline.read_events(tmp_path / "held.jsonl")
    found = hookline.judge_reward_model(run, held, subset="topic")
    assert found.accuracy.low > 0.5, "the texts say whether an answer is good"
    assert found.ceiling.accuracy > found.accuracy.value - 0.1
    assert set(found.by_annotator) == {"ann", "bob", "cem"}
    assert len(found.by_subset) == 10
    assert sum(pairs for pairs, _ in found.by_annotator.values()) == found.calibration.pairs
    assert len({(one.item, one.places) for one in found.ask}) == len(found.ask) == 10
    again = hookline.judge_reward_model(run.directory / "phases" / "rm", list(reversed(held)))
    assert again.accuracy.value == pytest.approx(found.accuracy.value)
    liked = hookline.judge_reward_model(run, [event for event in held if event.answer.kind == "thumb"])
    assert liked.calibration.pairs == 0
    assert liked.thumbs.auc.value > 0.6
    assert found.thumbs.up + found.thumbs.down == 3 * 12, "12 items, whose thumbs of two annotators do not count"
    assert main(["feedback", str(tmp_path / "held.jsonl"), "--model", str(run.directory), "--subset", "topic"]) == 0
    text = capsys.readouterr().out
    for words in (
        "left: always first",
        "click: random",
        "thumbs up and",
        "where a constant answer has 0.500 and is right in",
        "ceiling about",
        "slope",
        "prefers the longer answer",
        "ask next",
    ):
        assert words in text
    assert main(["feedback", str(tmp_path / "held.jsonl"), "--model", str(run.directory), "--subset", "author"]) == 3
    assert "'author'" in capsys.readouterr().err
