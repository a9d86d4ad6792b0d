"""One figure has one interval: `report.json` and `report.html`, `hookline eval` and `hookline compare` agree to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from compare_desk import experiment

import hookline
from hookline.cli import main

MEDIAN = '''
import torch
from hookline import Component, hookimpl

class Median(Component):
    """Tokens of an answer; of many, the median."""

    name = "median-length"

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.mask_BT.sum(1).float() + rollout.sample_B % 7 / 10

    def summarise(self, term, scored):
        return float(term.value.median())
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> hookline.Run:
    folder = tmp_path_factory.mktemp("interval")
    (folder / "median.py").write_text(MEDIAN)
    values = experiment(steps=4)
    [evaluation] = values["phases"][0]["evaluate"]
    evaluation |= {"every": 2, "reward": [*evaluation["reward"], "perplexity", "median-length"]}
    values |= {"seed": 1, "trackers": ["report"]}
    return hookline.run(values, plugins=[str(folder / "median.py")], out=folder / "run")


@pytest.mark.parametrize("figure", ["task", "kl", "perplexity", "median-length"])
def test_report_eval_and_compare_show_one_interval(
    run: hookline.Run, figure: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((run.directory / "report.json").read_text())
    [evaluation] = report["phases"][0]["evaluations"]
    points = evaluation["figures"][figure]["points"]
    reported = {end: points[-1][end] for end in ("low", "value", "high")}
    assert reported["low"] < reported["high"]

    assert main(["eval", str(run.directory), "--json"]) == 0
    judged = next(f for f in json.loads(capsys.readouterr().out) if f["figure"] == figure)
    assert main(["compare", str(run.directory), "--metric", f"eval/{figure}", "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert {end: judged[end] for end in reported} == reported
    assert {end: compared["configurations"][0][end] for end in reported} == reported
    [curve] = compared["curves"].values()
    for on_the_way, point in zip(curve, points):
        assert {end: on_the_way[end] for end in reported} == {end: point[end] for end in reported}
    [equal] = compared["equal"]["steps"]["values"].values()
    assert equal == reported


def test_a_figure_with_a_summary_of_its_own_notes_what_it_is_without_each_prompt(run: hookline.Run) -> None:
    samples: list[dict[str, Any]] = run.evaluations()[-1]["samples"]
    noted = [s for s in samples if "without" in s]
    assert [s["group"] for s in noted] == list(dict.fromkeys(s["group"] for s in samples))
    assert all(set(s["without"]) == {"median-length"} for s in noted), "a mean and a perplexity need no note"
    one = noted[3]
    rest = sorted(s["terms"]["median-length"] for s in samples if s["group"] != one["group"])
    assert one["without"]["median-length"] == pytest.approx(rest[(len(rest) - 1) // 2])


def test_the_page_shows_these_figures(run: hookline.Run) -> None:
    report = json.loads((run.directory / "report.json").read_text())
    [evaluation] = report["phases"][0]["evaluations"]
    page = (Path(run.directory) / "report.html").read_text()
    point = evaluation["figures"]["task"]["points"][-1]
    for end in ("low", "high"):
        assert any(f"{point[end]:.{digits}f}".lstrip("0") in page for digits in (2, 3, 4))
