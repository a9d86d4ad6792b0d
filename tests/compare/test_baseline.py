"""`hookline compare` against a baseline, on runs whose figures were written by hand: what is found is what was planted."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compare_desk import experiment, rewrite

import hookline
from hookline import HooklineError, Metric
from hookline.cli import main
from hookline.loop.api import plan
from hookline.runs.figures import Dictionary, Figures

METRIC = "eval/task"
Plant = Callable[..., str]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run that took one step."""
    out = tmp_path_factory.mktemp("template") / "run"
    hookline.run({**experiment(steps=1), "seed": 1}, out=out)
    for name in ("checkpoints", "tokenizer"):
        shutil.rmtree(out / name, ignore_errors=True)
    (out / "evaluations.jsonl").unlink()
    return out


@pytest.fixture
def plant(template: Path, tmp_path: Path) -> Plant:
    """`plant("ours", {1: {0: 0.1, 8: 0.5}})`: runs with this figure at these steps, by seed, as an argument of compare."""

    def make(
        label: str,
        curves: Mapping[int, Mapping[int, float]],
        metric: str = METRIC,
        tokens: float | None = 10.0,
        seconds: float = 1.0,
    ) -> str:
        for seed, curve in curves.items():
            run = Path(shutil.copytree(template, tmp_path / label / f"seed={seed}"))
            steps = max(curve)
            rewrite(run / "experiment.json", lambda e: (e.update(seed=seed), e["phases"][0].update(steps=steps)))  # noqa: B023
            rewrite(run / "phases/rl/manifest.json", lambda m: m.update(steps=steps))  # noqa: B023
            rows = []
            for step in range(steps + 1):
                metrics = {"rows": 4.0, **({"tokens": tokens} if tokens is not None else {})} if step else {}
                metrics |= {metric: curve[step]} if step in curve else {}
                spent = {"seconds/update": seconds if step else 0.0, "seconds/evaluate-heldout": 99.0}
                rows.append({"row": step, "phase": "rl", "step": step, "metrics": metrics, "timings": spent})
            (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"{label}={tmp_path / label}"

    return make


def flat(values: Sequence[float], steps: int = 8) -> dict[int, dict[int, float]]:
    """A figure that rises on a straight line from 0, ending at these values at seeds 1, 2, …"""
    return {seed: {0: 0.0, steps // 2: value / 2, steps: value} for seed, value in enumerate(values, start=1)}


def against(found: Any, label: str, axis: str = "steps", way: str = "equal") -> Any:
    return next(c for c in found[way][axis]["against"] if c["label"] == label)


# -- a difference that is there


def test_a_planted_difference_is_found_with_its_size_and_said_in_words(plant: Plant) -> None:
    rng = np.random.default_rng(0)
    base, gain = rng.normal(0.5, 0.2, 8), rng.normal(0.03, 0.01, 8)
    found = hookline.compare([plant("a", flat(base)), plant("b", flat(base + gain))], metric=METRIC)
    assert (found["baseline"], found["better"]) == ("a", "higher")
    b = against(found, "b")
    assert b["difference"]["value"] == pytest.approx(0.03, abs=0.01)
    assert b["difference"]["low"] < gain.mean() < b["difference"]["high"]
    assert b["effect"] == pytest.approx(gain.mean() / gain.std(ddof=1) * (1 - 3 / 27), rel=1e-9)
    assert b["p"] == b["p_holm"] == 2 / 2**8
    assert b["shown"]
    assert b["more_seeds"] is None
    low, high = b["difference"]["low"], b["difference"]["high"]
    assert b["words"] == (
        f"b is better than a by {b['difference']['value']:.3g} [{low:.3g}, {high:.3g}] at equal steps (8): "
        f"shown (p 0.00781, 8 seeds)"
    )
    assert found["verdicts"] == [b["words"]]
    turned = hookline.compare([*_args(found)], metric=METRIC, baseline="b")
    assert turned["baseline"] == "b"
    assert against(turned, "a")["words"].startswith("a is worse than b by 0.0")
    assert against(turned, "a")["difference"]["value"] == -b["difference"]["value"]


def _args(found: Any) -> list[str]:
    return [f"{c['label']}={Path(c['runs'][0]).parent}" for c in found["configurations"]]


def test_where_lower_is_better_the_words_turn_round(plant: Plant) -> None:
    base = np.linspace(2.0, 3.0, 7)
    arguments = [plant("a", flat(base), "eval/kl"), plant("b", flat(base - 0.5), "eval/kl")]
    found = hookline.compare(arguments, metric="eval/kl")
    assert found["better"] == "lower"
    b = against(found, "b")
    assert b["difference"]["value"] == pytest.approx(-0.5)
    assert b["words"].startswith("b is better than a by 0.5 [0.5, 0.5] at equal steps (8): shown")
    pair = found["pairs"][0]
    assert b["chance"]["value"] == pytest.approx(1 - pair["improvement"]["value"])
    assert b["chance"]["value"] > 0.5


def test_where_no_direction_is_known_the_words_say_higher(plant: Plant) -> None:
    base = np.linspace(2.0, 3.0, 7)
    found = hookline.compare([plant("a", flat(base), "loss"), plant("b", flat(base - 0.5), "loss")], metric="loss")
    assert found["better"] is None
    assert against(found, "b")["words"].startswith("b is lower than a by 0.5")
    best = [plant("c", flat(base), "loss"), plant("d", flat(base - 0.5), "loss")]
    for argument in best:
        for run in Path(argument.partition("=")[2]).iterdir():
            rewrite(
                run / "experiment.json",
                lambda e: e["phases"][0]["save"].update(best={"figure": "loss", "lowest": True}),
            )
    found = hookline.compare(best)
    assert (found["metric"], found["better"]) == ("loss", "lower")
    assert against(found, "d")["words"].startswith("d is better than c by 0.5")


def test_a_reward_says_which_way_is_better_and_a_metric_too() -> None:
    task = "builtin:walks"
    rewards = [
        {"use": "task", "task": task},
        "kl",
        "length",
        {"use": "exact", "task": task},
        {"use": "exact", "name": "gap", "task": task, "figure": "gap"},
    ]
    values = experiment(evaluate=[{"prompts": task, "rows": 4, "reward": rewards}])
    figures = Figures(plan(values).phases)
    found = {name: figures.find("rl", f"eval/{name}") for name in ("task", "kl", "length", "exact", "gap")}
    assert {name: metric and metric.better for name, metric in found.items()} == {
        "task": "higher", "kl": "lower", "length": None, "exact": "higher", "gap": "lower",
    }  # fmt: skip
    said = [figures.find("rl", name) for name in ("reward", "reward/task", "loss", "grad_norm")]
    assert [metric and metric.better for metric in said] == ["higher", "higher", None, None]


@pytest.mark.parametrize("turned", [False, True])
def test_two_declarations_that_differ_only_in_direction_are_one(turned: bool) -> None:
    both = [Metric("nll", "mean of −log p"), Metric("nll", "mean of −log p", better="lower")]
    assert Dictionary(both[::-1] if turned else both).find("nll", "a test").better == "lower"


# -- a difference that is not shown


def test_equal_configurations_are_equal(plant: Plant) -> None:
    found = hookline.compare([plant("a", flat([0.1, 0.2, 0.3])), plant("b", flat([0.1, 0.2, 0.3]))], metric=METRIC)
    for way in ("equal", "area"):
        for axis in ("steps", "tokens", "seconds"):
            b = against(found, "b", axis, way)
            assert b["difference"] == {"value": 0, "low": 0, "high": 0}
            assert (b["p"], b["effect"], b["shown"]) == (1.0, None, False)
    assert found["verdicts"] == ["b and a are equal at equal steps (8)"]


def test_noise_is_not_shown_and_the_seeds_that_would_show_it_are_said(plant: Plant) -> None:
    base, noise = np.linspace(0.1, 0.8, 6), np.array([0.1, -0.05, 0.08, -0.04, 0.06, 0.02])
    found = hookline.compare([plant("a", flat(base)), plant("b", flat(base + noise))], metric=METRIC)
    b = against(found, "b")
    assert not b["shown"]
    d = noise.mean() / noise.std(ddof=1)
    wanted = (2.8016 / d) ** 2 + 1.96**2 / 2
    assert b["more_seeds"] == math.ceil(wanted) - 6
    assert "not shown: the interval contains 0; about" in b["words"]
    assert (
        f"about {b['more_seeds']} more seeds would be needed to show a difference of this size at 80 % power"
        in b["words"]
    )


def test_five_seeds_that_all_agree_are_one_too_few(plant: Plant) -> None:
    base = np.linspace(0.1, 0.8, 5)
    found = hookline.compare(
        [plant("a", flat(base)), plant("b", flat(base + np.array([0.1, 0.11, 0.09, 0.1, 0.12])))], metric=METRIC
    )
    b = against(found, "b")
    assert found["pairs"][0]["clear"]
    assert b["p"] == 2 / 32
    assert not b["shown"]
    assert b["more_seeds"] == 1
    assert "p is 0.0625, and 5 seeds cannot give less; about 1 more seed would be needed" in b["words"]


def test_one_seed_shows_nothing(plant: Plant) -> None:
    found = hookline.compare([plant("a", flat([0.1])), plant("b", flat([0.9]))], metric=METRIC)
    b = against(found, "b")
    assert (b["p"], b["p_holm"], b["shown"], b["effect"], b["more_seeds"]) == (None, None, False, None, None)
    assert b["words"] == "b against a at equal steps (8): +0.8, not shown: one seed says nothing about others"
    apart = hookline.compare(
        [plant("c", flat([0.1])), plant("d", {seed: {0: 0.0, 8: 0.5} for seed in (7, 8, 9)})], metric=METRIC
    )
    assert not against(apart, "d")["paired"]
    assert not against(apart, "d")["shown"]


def test_without_common_seeds_labels_are_dealt_out(plant: Plant) -> None:
    ours = {seed: {0: 0.0, 8: value} for seed, value in enumerate([0.8, 0.81, 0.82, 0.83, 0.84], start=11)}
    found = hookline.compare([plant("a", flat([0.1, 0.11, 0.12, 0.13, 0.14])), plant("b", ours)], metric=METRIC)
    b = against(found, "b")
    assert (b["paired"], b["seeds"], b["p"]) == (False, [], 2 / 252)
    assert b["shown"]


# -- several against one


def test_seven_configurations_are_corrected_for_six_comparisons(plant: Plant) -> None:
    rng = np.random.default_rng(4)
    base = rng.normal(0.5, 0.1, 7)
    arguments = [plant("base", flat(base))]
    arguments.append(plant("gain", flat(base + 0.1 + 0.01 * rng.normal(size=7))))
    arguments += [plant(f"same{i}", flat(base + 0.02 * rng.normal(size=7))) for i in range(5)]
    found = hookline.compare(arguments, metric=METRIC)
    entries = found["equal"]["steps"]["against"]
    assert len(entries) == 6
    p = [entry["p"] for entry in entries]
    least = sorted(p)[0]
    gain = against(found, "gain")
    assert gain["p"] == least == 2 / 128
    assert gain["p_holm"] == pytest.approx(6 / 64)
    assert not gain["shown"], "one of six, at seven seeds"
    assert "p is 0.0156, which is 0.0938 after Holm's correction for 6 comparisons; about 1 more seed" in gain["words"]
    assert all(entry["p_holm"] >= entry["p"] for entry in entries)
    alone = hookline.compare(arguments[:2], metric=METRIC)
    assert against(alone, "gain")["shown"]
    assert len(found["verdicts"]) >= 6


def test_a_baseline_that_is_not_there_is_refused_with_the_nearest(plant: Plant) -> None:
    arguments = [plant("first", flat([0.1, 0.2])), plant("second", flat([0.1, 0.2]))]
    with pytest.raises(HooklineError, match="no configuration is called 'secnd'; did you mean 'second'") as caught:
        hookline.compare(arguments, metric=METRIC, baseline="secnd")
    assert caught.value.exit_code == 2
    assert "first; second" in caught.value.hint


# -- at equal cost


def test_runs_of_different_lengths_are_compared_where_the_first_of_them_ends(plant: Plant) -> None:
    short = {seed: {0: 0.0, 8: 0.4 + seed / 100} for seed in range(1, 7)}
    long = {seed: {0: 0.0, 5: 0.2 + seed / 100, 10: 0.6 + seed / 100, 40: 0.9} for seed in range(1, 7)}
    found = hookline.compare([plant("short", short), plant("long", long)], metric=METRIC)
    assert found["equal"]["steps"]["at"] == 8
    value = found["equal"]["steps"]["values"]["long"]["value"]
    assert value == pytest.approx(0.2 + 0.6 * 0.4 + 0.035), "three fifths of the way from step 5 to step 10"
    assert against(found, "long")["difference"]["value"] == pytest.approx(0.04)
    assert against(found, "long")["shown"]
    assert found["pairs"][0]["difference"]["value"] == pytest.approx(0.465), "each at its own end"


def test_what_is_better_at_equal_steps_may_be_worse_at_equal_seconds(plant: Plant) -> None:
    jitter = np.linspace(0, 0.05, 6)
    fast = {s: {0: 0.0, 10: 0.5 + j, 20: 0.6 + j} for s, j in enumerate(jitter, start=1)}
    slow = {s: {0: 0.0, 10: 0.6 + j, 20: 0.7 + j} for s, j in enumerate(jitter, start=1)}
    found = hookline.compare(
        [plant("fast", fast, tokens=10), plant("slow", slow, tokens=5, seconds=4.0)], metric=METRIC
    )
    assert {axis: entry["at"] for axis, entry in found["equal"].items()} == {"steps": 20, "tokens": 100, "seconds": 20}
    assert against(found, "slow")["difference"]["value"] == pytest.approx(0.1)
    assert against(found, "slow", "tokens")["difference"]["value"] == pytest.approx(0.2)
    at_five = {label: e["value"] for label, e in found["equal"]["seconds"]["values"].items()}
    assert at_five["slow"] == pytest.approx(0.3 + 0.5 * 0.025)
    assert against(found, "slow", "seconds")["shown"]
    better, worse = found["verdicts"]
    assert better.startswith("slow is better than fast by 0.1 [0.1, 0.1] at equal steps (20): shown")
    assert worse.startswith("slow is worse than fast by")
    assert "at equal seconds (20): shown" in worse


def test_the_area_under_the_curve_is_the_average_over_its_axis(plant: Plant) -> None:
    early = {s: {0: 0.0, 4: 0.8 + s / 100, 8: 0.8 + s / 100} for s in range(1, 7)}
    late = {s: {0: 0.0, 4: 0.0, 8: 0.8 + s / 100} for s in range(1, 7)}
    found = hookline.compare([plant("late", late), plant("early", early)], metric=METRIC)
    assert against(found, "early")["words"] == "early and late are equal at equal steps (8)"
    values = found["area"]["steps"]["values"]
    assert values["early"]["value"] == pytest.approx(0.835 * 0.75)
    assert values["late"]["value"] == pytest.approx(0.835 * 0.25)
    for axis, end in (("steps", 8), ("tokens", 80), ("seconds", 8)):
        assert (found["area"][axis]["from"], found["area"][axis]["to"]) == (0, end)
        area = against(found, "early", axis, "area")
        assert area["difference"]["value"] == pytest.approx(0.835 * 0.5)
        assert area["words"].endswith(f"on average over 0 to {end} {axis}: shown (p 0.0312, 6 seeds)")


def test_a_point_that_is_no_number_is_left_out_of_its_curve(plant: Plant) -> None:
    holed = {s: {0: 0.0, 4: math.nan, 8: 0.8} for s in range(1, 4)}
    found = hookline.compare([plant("a", flat([0.8, 0.8, 0.8])), plant("b", holed)], metric=METRIC)
    assert found["area"]["steps"]["values"]["b"]["value"] == pytest.approx(0.4)
    with pytest.raises(HooklineError, match="eval/task is nan"):
        hookline.compare([plant("c", {1: {0: 0.0, 8: math.nan}})], metric=METRIC)


def test_what_was_not_counted_is_not_compared(plant: Plant) -> None:
    arguments = [plant("a", flat([0.1, 0.2])), plant("b", flat([0.1, 0.2]), tokens=None)]
    found = hookline.compare(arguments, metric=METRIC)
    assert set(found["equal"]) == {"steps", "seconds"}
    assert any(note.startswith("there is no comparison at equal tokens") for note in found["notes"])
    ended = [plant("c", {1: {8: 0.5}, 2: {8: 0.5}}), plant("d", {1: {40: 0.5}, 2: {40: 0.5}})]
    found = hookline.compare(ended, metric=METRIC)
    assert found["equal"] == found["area"] == {}
    assert found["verdicts"] == []
    once = hookline.compare([ended[0]], metric=METRIC)
    assert once["equal"]["steps"]["against"] == []
    assert once["area"] == {}


def test_a_run_that_failed_is_refused_as_before(plant: Plant) -> None:
    arguments = [plant("a", flat([0.1, 0.2])), plant("b", flat([0.1, 0.2]))]
    shutil.rmtree(Path(arguments[1].partition("=")[2]) / "seed=2/phases")
    with pytest.raises(HooklineError, match="has not finished phase 'rl'"):
        hookline.compare(arguments, metric=METRIC)


# -- what comes out


def test_the_terminal_csv_and_latex_say_the_same(
    plant: Plant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = np.linspace(0.2, 0.7, 6)
    arguments = [plant("a_1", flat(base)), plant("b 50%", flat(base + np.array([0.1, 0.11, 0.12, 0.1, 0.13, 0.1])))]
    command = ["compare", *arguments, "--metric", METRIC]
    files = ["--csv", str(tmp_path / "out/t.csv"), "--latex", str(tmp_path / "out/t.tex")]
    assert main([*command, *files]) == 0
    shown = capsys.readouterr().out
    found = hookline.compare(arguments, metric=METRIC)
    assert found["verdicts"][0] in shown
    assert "against a_1" in shown
    assert f"written: {tmp_path}/out/t.csv, {tmp_path}/out/t.tex" in shown

    text = (tmp_path / "out/t.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 2 * 3 * 2
    [row] = [r for r in rows if r["at"] == "equal steps" and r["configuration"] == "b 50%"]
    b = against(found, "b 50%")
    assert float(row["difference"]) == b["difference"]["value"]
    assert float(row["difference_interval_low"]) == b["difference"]["low"]
    assert (float(row["p"]), row["shown"], row["seeds"], row["amount"]) == (b["p"], "shown", "6", "8.0")
    [first] = [r for r in rows if r["at"] == "mean over seconds" and r["configuration"] == "a_1"]
    assert float(first["value"]) == found["area"]["seconds"]["values"]["a_1"]["value"]
    assert first["difference"] == first["p"] == ""

    latex = (tmp_path / "out/t.tex").read_text()
    assert r"b 50\%" in latex
    assert r"a\_1" in latex
    assert latex.count(r" \\") == 1 + 12

    assert main([*command, "--csv", "-"]) == 0
    assert capsys.readouterr().out == text
    assert main([*command, "--latex", "-"]) == 0
    assert capsys.readouterr().out == latex
    assert main([*command, "--json", "--baseline", "b 50%"]) == 0
    assert json.loads(capsys.readouterr().out)["baseline"] == "b 50%"


def test_two_things_on_one_terminal_are_refused(plant: Plant, capsys: pytest.CaptureFixture[str]) -> None:
    one = plant("a", flat([0.1]))
    assert main(["compare", one, "--metric", METRIC, "--csv", "-", "--latex", "-"]) == 2
    assert main(["compare", one, "--metric", METRIC, "--csv", "-", "--json"]) == 2
    capsys.readouterr()
    assert main(["compare", one, "--metric", METRIC, "--csv", "/dev/null/x"]) == 4
    assert "cannot be written" in capsys.readouterr().err
