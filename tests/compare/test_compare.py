"""`hookline compare` on runs that were really made: who is grouped, paired and told apart, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compare_desk import lines, rewrite

import hookline
from hookline import HooklineError
from hookline.cli import main
from hookline.config.uses import normal_form
from hookline.runs.surroundings import experiment_changes
from hookline.study.grouping import labels_of
from hookline.study.matrix import _label, axes_of
from reading_pages import read

Copied = Callable[..., Path]
METRIC = "eval/task"


def runs(sweep: Path, configuration: str, seeds: int = 5) -> list[str]:
    return [str(sweep / f"{configuration},seed={seed}") for seed in range(1, seeds + 1)]


# -- what it finds


def test_the_planted_better_one_is_clear_of_zero(slow_and_fast: Path) -> None:
    found = hookline.compare([slow_and_fast])
    slow, fast = found["configurations"]
    assert (slow["label"], fast["label"]) == ("lr=1e-06", "lr=0.1")
    assert slow["seeds"] == fast["seeds"] == [1, 2, 3, 4, 5]
    assert (found["metric"], found["phase"], found["rows"]) == (METRIC, "rl", 12)
    [pair] = found["pairs"]
    assert (pair["first"], pair["second"]) == ("lr=0.1", "lr=1e-06")
    assert pair["clear"]
    assert 0.05 < pair["difference"]["low"] < pair["difference"]["value"] < pair["difference"]["high"]
    assert pair["improvement"]["value"] == 1.0
    assert pair["higher_at"] == 5
    assert not any("below 5" in note or "in common" in note for note in found["notes"])
    final = [lines(Path(run) / "metrics.jsonl")[-1]["metrics"][METRIC] for run in slow["runs"]]
    assert slow["values"] == final
    assert slow["low"] <= slow["value"] <= slow["high"]


def test_equal_runs_differ_by_exactly_nothing(slow_and_fast: Path, slow_again: Path) -> None:
    found = hookline.compare([f"first={slow_and_fast}", f"again={slow_again}"])
    [pair] = [p for p in found["pairs"] if {p["first"], p["second"]} == {"first: lr=1e-06", "again"}]
    assert pair["paired"]
    assert pair["difference"] == {"value": 0, "low": 0, "high": 0}
    assert pair["improvement"]["value"] == 0.5
    assert not pair["clear"]


def test_a_built_in_name_means_the_same_with_its_distribution(
    copied: Copied,
) -> None:
    """In what a comparison groups and measures by, in a sweep's labels, and in whether a run may go on."""
    plain, spelt = copied(seed=1, name="plain"), copied(seed=2, name="spelt")

    def spell(experiment: dict[str, Any]) -> None:
        [phase] = experiment["phases"]
        phase["update"]["use"] = "hookline:rloo"
        phase["evaluate"][0]["reward"][0]["use"] = "hookline:task"
        phase["evaluate"][0]["rollout"]["use"] = "hookline:generate"

    before = json.loads((spelt / "experiment.json").read_text())
    rewrite(spelt / "experiment.json", spell)
    after = json.loads((spelt / "experiment.json").read_text())
    assert before != after
    assert experiment_changes(before, after) == []
    assert experiment_changes(before, {**after, "seed": 3})
    [found] = hookline.compare([plain, spelt], metric=METRIC)["configurations"]
    assert found["seeds"] == [1, 2]
    assert _label("phases.rl.update", {"use": "hookline:rloo", "lr": 0.1}, ["phases.rl.update"]) == "rloo,lr=0.1"
    assert _label("phases.rl.advantage", "other:gae", ["phases.rl.advantage"]) == "other-gae"
    with pytest.raises(HooklineError, match=r"contains .*rloo.* twice"):
        axes_of({"matrix": {"phases.rl.update.use": ["rloo", "hookline:rloo"]}})


@pytest.mark.parametrize(
    ("value", "key", "plain"),
    [
        ("hookline:gae", "advantage", "gae"),
        ({"use": "hookline:turns", "options": {"environment": "hookline:cliff"}}, "rollout",
         {"use": "turns", "options": {"environment": "cliff"}}),
        (["hookline:length", {"use": "mine:length"}], "reward", ["length", {"use": "mine:length"}]),
        ({"use": "format", "options": {"pattern": "hookline:x"}}, "reward",
         {"use": "format", "options": {"pattern": "hookline:x"}}),
    ],
)  # fmt: skip
def test_only_names_of_components_lose_their_distribution(value: Any, key: str, plain: Any) -> None:
    assert normal_form(value, key) == plain


@pytest.mark.parametrize("metric", [METRIC, "eval/kl", "reward"])
def test_one_configuration_at_other_seeds_is_not_told_apart(
    slow_and_fast: Path, slow_elsewhere: Path, metric: str
) -> None:
    here = [f"here={run}" for run in runs(slow_and_fast, "lr=1e-06")]
    found = hookline.compare([*here, f"there={slow_elsewhere}"], metric=metric)
    assert [(c["label"], len(c["seeds"])) for c in found["configurations"]] == [("here", 5), ("there", 5)]
    [pair] = found["pairs"]
    assert not pair["paired"]
    assert pair["difference"]["low"] <= 0 <= pair["difference"]["high"]
    assert not pair["clear"]
    assert any("no seed in common" in note for note in found["notes"])


def test_folders_of_nothing_but_one_configuration_are_compared_with_each_other(
    slow_again: Path, slow_elsewhere: Path
) -> None:
    found = hookline.compare([slow_again, slow_elsewhere])
    assert [(c["label"], c["seeds"][0]) for c in found["configurations"]] == [("again", 1), ("elsewhere", 11)]
    assert any("grouped by folder" in note for note in found["notes"])


def test_equal_input_gives_equal_numbers(slow_and_fast: Path) -> None:
    assert hookline.compare([slow_and_fast]) == hookline.compare([slow_and_fast])


def test_single_runs_are_grouped_like_a_sweep(slow_and_fast: Path) -> None:
    single = hookline.compare([*runs(slow_and_fast, "lr=1e-06"), *runs(slow_and_fast, "lr=0.1")])
    whole = hookline.compare([slow_and_fast])
    for key in ("configurations", "pairs"):
        assert single[key] == whole[key]
    turned = hookline.compare([*runs(slow_and_fast, "lr=0.1"), *runs(slow_and_fast, "lr=1e-06")])
    assert turned["pairs"][0]["difference"]["value"] == pytest.approx(-whole["pairs"][0]["difference"]["value"])


def test_one_seed_speaks_of_its_rows_alone(slow_and_fast: Path) -> None:
    found = hookline.compare([*runs(slow_and_fast, "lr=1e-06", 1), *runs(slow_and_fast, "lr=0.1", 1)])
    assert any("has one seed: its intervals are about other prompts" in note for note in found["notes"])
    [pair] = found["pairs"]
    assert pair["difference"]["low"] < pair["difference"]["value"] < pair["difference"]["high"]
    assert pair["improvement"]["low"] is None
    alone = hookline.compare([*runs(slow_and_fast, "lr=1e-06", 1), *runs(slow_and_fast, "lr=0.1", 1)], metric="reward")
    assert alone["pairs"][0]["difference"]["low"] is None
    assert any("its spread is not known" in note for note in alone["notes"])


def test_few_seeds_are_warned_of(slow_and_fast: Path) -> None:
    found = hookline.compare([*runs(slow_and_fast, "lr=1e-06", 3), *runs(slow_and_fast, "lr=0.1", 4)])
    assert any(note.startswith("'lr=1e-06' has 3 seeds; below 5") for note in found["notes"])
    assert found["pairs"][0]["seeds"] == [1, 2, 3]
    assert "'lr=0.1' and 'lr=1e-06' are paired on their common seeds: 1, 2, 3" in found["notes"]


def test_curves_run_from_the_phase_s_start_to_what_the_table_says(slow_and_fast: Path) -> None:
    found = hookline.compare([slow_and_fast])
    for configuration in found["configurations"]:
        curve = found["curves"][configuration["label"]]
        assert [point["step"] for point in curve] == [0, 4, 8]
        assert [point["samples"] for point in curve] == [0, 4 * 40, 8 * 40]
        seconds = [point["seconds"] for point in curve]
        assert 0 == seconds[0] < seconds[1] < seconds[2]
        assert curve[-1]["value"] == configuration["value"]


def test_the_kl_plane_and_the_frontier_of_the_task(slow_and_fast: Path, copied: Copied) -> None:
    found = hookline.compare([slow_and_fast])
    start, _, end = found["plane"]["lr=0.1"]
    assert start["kl"]["value"] == pytest.approx(0, abs=1e-3)
    assert end["kl"]["value"] > 0.1
    assert found["frontier"][-1][1] == pytest.approx(1.0, abs=0.02)
    assert not any("above the exact frontier" in note for note in found["notes"])

    liar = copied()
    rewrite(liar / "metrics.jsonl", lambda row: row["metrics"].update({"eval/kl": 0.0, METRIC: 1.0}))
    rewrite(liar / "evaluations.jsonl", lambda e: [s["terms"].update(kl=0.0, task=1.0) for s in e["samples"]])
    assert any("above the exact frontier" in note for note in hookline.compare([liar])["notes"])


# -- labels


@pytest.mark.parametrize(
    ("configurations", "labels"),
    [
        ([{"a": "1"}], ["all"]),
        ([{"phases.rl.update!": "rloo", "x": "1"}, {"phases.rl.update!": "grpo", "x": "2"}], ["rloo", "grpo"]),
        ([{"update!": "ppo", "update.lr": "1"}, {"update!": "ppo", "update.lr": "2"}], ["lr=1", "lr=2"]),
        ([{"advantage!": "gae"}, {}], ["gae", "no advantage"]),
        ([{"a.lr": "1"}, {}], ["lr=1", "lr=default"]),
        (
            [{"u!": "p", "u.lr": "1"}, {"u!": "p", "u.lr": "2"}, {"u!": "q", "u.lr": "1"}],
            ["p, lr=1", "p, lr=2", "q, lr=1"],
        ),
        ([{"code.update.p": "h 1", "n": "3"}, {"code.update.p": "h 2", "n": "4"}], ["n=3", "n=4"]),
    ],
)
def test_labels_are_what_differs_and_no_more(configurations: list[dict[str, str]], labels: list[str]) -> None:
    assert labels_of(configurations) == labels


def test_code_and_data_are_part_of_the_configuration(slow_and_fast: Path, copied: Copied) -> None:
    other = copied("lr=0.1", 1)

    def newer(about: dict[str, Any]) -> None:
        next(p for p in about["plugins"] if p["name"] == "rloo")["sha256"] = "f00dcafe"

    rewrite(other / "run.json", newer)
    found = hookline.compare([*runs(slow_and_fast, "lr=0.1", 1), other])
    assert len(found["configurations"]) == 2
    assert found["configurations"][1]["label"].startswith("rloo=hookline f00dca")


def test_name_seed_trackers_saves_and_threads_are_not(slow_and_fast: Path, copied: Copied) -> None:
    other = copied("lr=0.1", 2)

    def changed(experiment: dict[str, Any]) -> None:
        experiment |= {"name": "another", "threads": None, "trackers": []}
        experiment["phases"][0]["save"]["every"] = 1

    rewrite(other / "experiment.json", changed)
    found = hookline.compare([*runs(slow_and_fast, "lr=0.1", 1), other])
    assert [c["seeds"] for c in found["configurations"]] == [[1, 2]]
    assert any("all runs have the same configuration" in note for note in found["notes"])


# -- what comes out


def test_the_terminal_and_the_files(slow_and_fast: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(slow_and_fast), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert re.search(
        r"lr=0.1 − lr=1e-06 +\+0\.\d+ +\[\+0\.\d+, \+0\.\d+\] +clear of 0 +1\.00 +\[1\.00, 1\.00\] +5 of 5 seeds", shown
    )
    found = hookline.compare([slow_and_fast])
    assert json.loads((tmp_path / "out/compare.json").read_text()) == found
    page, text = read((tmp_path / "out/compare.html").read_text()), (tmp_path / "out/compare.md").read_text()
    page.is_harmless()
    page.is_accessible()
    assert "exact frontier" in page.said
    files = page.files()
    for figure in ("intervals", "differences", "step", "samples", "seconds", "kl"):
        assert f"compare-{figure}.svg" in text
        assert (tmp_path / f"out/compare-{figure}.svg").read_text() == files[f"{figure}.svg"]
    [pair] = csv.DictReader(io.StringIO(files["pairs.csv"]))
    assert float(pair["difference_interval_low"]) == found["pairs"][0]["difference"]["low"]
    assert len(files["step.csv"].splitlines()) == 1 + 2 * len(found["curves"]["lr=0.1"])
    assert main(["compare", str(slow_and_fast), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metric"] == METRIC


# -- ugly input


def refused(arguments: list[Any], code: int, sentence: str, **options: Any) -> None:
    with pytest.raises(HooklineError, match=sentence) as caught:
        hookline.compare(arguments, **options)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    refused([tmp_path], 4, "contains no run")
    refused([tmp_path / "none"], 4, "is not a run directory")
    refused([], 2, "nothing to compare")
    (tmp_path / "run.json").write_text("[]")
    refused([tmp_path], 4, "cannot be read")
    (tmp_path / "run.json").write_text("{}")
    refused([tmp_path], 4, "run.json lacks 'id'")
    (tmp_path / "run.json").write_text('{"id": "0", "data": {}, "plugins": []}')
    refused([tmp_path], 4, "experiment.json")
    (tmp_path / "experiment.json").write_text('{"phases": 3}')
    refused([tmp_path], 4, "not a resolved experiment")


def test_a_run_given_twice_counts_once(slow_and_fast: Path) -> None:
    one = runs(slow_and_fast, "lr=0.1", 1)[0]
    found = hookline.compare([one, f"{one}/../{Path(one).name}"])
    assert found["configurations"][0]["seeds"] == [1]
    assert any("was named twice and is counted once" in note for note in found["notes"])


def test_one_configuration_with_one_seed_twice_is_told_apart_or_refused(copied: Copied, tmp_path: Path) -> None:
    one, two = copied(name="one"), copied(name="two")
    found = hookline.compare([one, two])
    assert [c["label"] for c in found["configurations"]] == ["one", "two"]
    assert found["pairs"][0]["difference"]["value"] == 0
    refused([tmp_path], 2, "have the same configuration and the same seed")


def test_an_unfinished_run_is_refused(copied: Copied, slow_and_fast: Path, tmp_path: Path) -> None:
    torn = copied()
    shutil.rmtree(torn / "phases/rl")
    refused([slow_and_fast, torn], 4, r"has not finished phase 'rl' \(step 8 of 8\)")
    (torn / "metrics.jsonl").unlink()
    refused([torn], 4, r"has not finished phase 'rl' \(no step yet\)")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text('{"runs": [{"name": "seed=1"}]}')
    refused([sweep], 4, "seed=1 has not begun")
    (sweep / "sweep.json").write_text("{")
    refused([sweep], 4, "cannot be read")


def test_other_rows_are_refused(copied: Copied, slow_and_fast: Path) -> None:
    other = copied()
    rewrite(other / "evaluations.jsonl", lambda e: e["samples"][3].update(prompt="somewhere else"))
    refused([*runs(slow_and_fast, "lr=0.1", 1), other], 3, r"not evaluated on the same rows \(other prompts\)")
    rewrite(other / "evaluations.jsonl", lambda e: e["samples"].pop())
    refused([*runs(slow_and_fast, "lr=0.1", 1), other], 3, r"not evaluated on the same rows \(24 and 23 rows\)")


def test_what_is_measured_differently_is_refused(copied: Copied, slow_and_fast: Path) -> None:
    other = copied()

    def changed(experiment: dict[str, Any]) -> None:
        experiment["phases"][0]["evaluate"][0]["reward"][0]["options"]["task"] = "builtin:walks?seed=1002"

    rewrite(other / "experiment.json", changed)
    refused([slow_and_fast, other], 2, "eval/task is measured differently")
    rewrite(other / "experiment.json", lambda e: e["phases"][0].update(name="xx"))
    refused([slow_and_fast, other], 2, "no phase in common")
    refused([slow_and_fast, other], 2, "has no phase 'rl'", phase="rl")


def test_a_figure_that_not_all_have_is_refused_with_the_nearest(slow_and_fast: Path) -> None:
    refused([slow_and_fast], 2, "figure 'tsk'; did you mean 'eval/task'", metric="tsk")
    assert hookline.compare([slow_and_fast], metric="task")["metric"] == METRIC
    refused([slow_and_fast], 2, "has no phase 'lr'", phase="lr")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_is_refused(copied: Copied, value: float) -> None:
    bad = copied()
    rewrite(bad / "metrics.jsonl", lambda row: row["metrics"].update({METRIC: value}) if row["step"] == 8 else None)
    refused([bad], 3, "eval/task is (nan|inf) in")


def test_a_figure_that_is_no_number_on_the_way_leaves_its_point_out(copied: Copied) -> None:
    run = copied()
    rewrite(
        run / "metrics.jsonl", lambda row: row["metrics"].update({METRIC: float("nan")}) if row["step"] == 4 else None
    )
    [curve] = hookline.compare([run])["curves"].values()
    assert [point["step"] for point in curve] == [0, 8]


def test_damaged_evaluations_are_refused_and_missing_ones_said(copied: Copied) -> None:
    run = copied()
    path = run / "evaluations.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"samples"', '"samp', 1))
    refused([run], 4, r"evaluations.jsonl line 1 is damaged")
    path.write_text(whole.replace('"terms"', '"trems"', 1))
    refused([run], 4, "evaluations.jsonl is damaged")
    path.write_text(whole + '{"cut off by a ki')
    assert hookline.compare([run])["rows"] == 12
    path.unlink()
    found = hookline.compare([run])
    assert found["rows"] == 0
    assert any("kept no rows" in note for note in found["notes"])


def test_one_row_says_what_it_can(copied: Copied) -> None:
    run = copied()
    rewrite(run / "evaluations.jsonl", lambda e: e.update(samples=e["samples"][:1]))
    rewrite(
        run / "metrics.jsonl",
        lambda row: row["metrics"].update({METRIC: _first(run, row["step"])}) if METRIC in row["metrics"] else None,
    )
    [configuration] = hookline.compare([run])["configurations"]
    assert (configuration["low"], configuration["high"]) == (None, None)


def _first(run: Path, step: int) -> float:
    entry = next(e for e in lines(run / "evaluations.jsonl") if e["step"] == step)
    return float(entry["samples"][0]["terms"]["task"])


def test_rows_without_an_answer_count_for_nothing(copied: Copied) -> None:
    run = copied()
    rewrite(run / "evaluations.jsonl", lambda e: [s["terms"].pop("task") for s in e["samples"][:5]])
    found = hookline.compare([run])
    assert found["configurations"][0]["value"] == lines(run / "metrics.jsonl")[-1]["metrics"][METRIC]
