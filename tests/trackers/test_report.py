"""The report: its figures against arithmetic done here, its page against what a browser would make of it."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tracker_runs import EVIL, Followed

import hookline
from hookline import Run
from hookline_plugins.report import numbers as report_numbers
from hookline_plugins.report import run as report_run
from hookline_plugins.report import words
from hookline_plugins.report.page import visible
from hookline_plugins.trackers import report
from reading_pages import UGLY, Page, read

NAMED = ("curves", "figures", "words", "weights", "data", "terms", "parts")
"""Keys of a report's numbers below which the keys are names."""


def numbers(run: Run) -> Any:
    return json.loads((run.directory / "report.json").read_text())


def phase(found: Any, name: str) -> Any:
    return next(p for p in found["phases"] if p["name"] == name)


def samples(run: Run, name: str, evaluation: str = "heldout") -> list[list[dict[str, Any]]]:
    return [e["samples"] for e in run.evaluations() if e["phase"] == name and e["name"] == evaluation]


def made(terms: list[float], groups: list[int] | None = None, tokens: int = 4) -> list[dict[str, Any]]:
    """Samples with a term `x`."""
    groups = groups or list(range(len(terms)))
    return [
        {"sample": i, "group": g, "tokens": tokens, "terms": {"x": x}} for i, (x, g) in enumerate(zip(terms, groups))
    ]


# -- figures


def test_a_mean_its_change_and_its_wins_are_what_the_samples_say(whole: Run) -> None:
    figure = phase(numbers(whole), "rl")["evaluations"][0]["figures"]["keyword-coverage"]
    first, *_, last = samples(whole, "rl")
    before, after = ([s["terms"]["keyword-coverage"] for s in side] for side in (first, last))
    assert [point["step"] for point in figure["points"]] == [0, 2, 4]
    assert figure["points"][0]["value"] == pytest.approx(np.mean(before))
    assert figure["points"][-1]["value"] == pytest.approx(np.mean(after))
    assert figure["change"]["value"] == pytest.approx(np.mean(after) - np.mean(before))
    wins = [1.0 if b > a else 0.0 if b < a else 0.5 for a, b in zip(before, after)]
    assert figure["wins"]["value"] == pytest.approx(np.mean(wins))
    for part in (figure["points"][-1], figure["change"], figure["wins"]):
        assert part["low"] <= part["value"] <= part["high"]


def test_perplexity_is_per_token_not_the_mean_of_its_terms(whole: Run) -> None:
    figure = phase(numbers(whole), "pretrain")["evaluations"][0]["figures"]["perplexity"]
    assert figure["summary"] == "perplexity"
    for point, side in zip((figure["points"][0], figure["points"][-1]), samples(whole, "pretrain")):
        total, tokens = (
            sum(s["tokens"] * math.log(s["terms"]["perplexity"]) for s in side),
            sum(s["tokens"] for s in side),
        )
        assert point["value"] == pytest.approx(math.exp(total / tokens), rel=1e-5)
        assert (
            min(s["terms"]["perplexity"] for s in side) <= point["value"] <= max(s["terms"]["perplexity"] for s in side)
        )
        assert point["low"] < point["value"] < point["high"]
    assert figure["ratio"]["value"] == pytest.approx(
        figure["points"][-1]["value"] / figure["points"][0]["value"], rel=1e-4
    )
    assert figure["change"]["high"] < 0, "training on eight kinds of sentence lowers it, surely"
    first, *_, last = samples(whole, "pretrain")
    fell = [float(after["terms"]["perplexity"] < before["terms"]["perplexity"]) for before, after in zip(first, last)]
    assert figure["wins"]["value"] == pytest.approx(np.mean(fell)), "whose text became likelier"


def test_accuracy_counts_comparisons_not_rows(whole: Run) -> None:
    figures = phase(numbers(whole), "reward-model")["evaluations"][0]["figures"]
    assert figures["accuracy"]["rows"] == 4
    assert 0.5 <= figures["ceiling"]["points"][-1]["value"] <= 1
    assert "wins" not in figures["accuracy"]


def test_reward_against_kl_has_a_point_per_evaluation_and_phase(whole: Run) -> None:
    found = numbers(whole)
    for name in ("rl", "rl-oracle"):
        (curve,) = phase(found, name)["reward_kl"]
        assert curve["reward"] == "keyword-coverage"
        assert [point["step"] for point in curve["points"]] == [0, 2, 4]
        assert curve["points"][0]["kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert not phase(found, "pretrain")["reward_kl"]


def test_the_interval_of_a_mean_is_as_wide_as_statistics_says() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    estimate = report_numbers.Table(made(values.tolist()), "x").estimate("mean", 4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert estimate["low"] == pytest.approx(values.mean() - half, abs=0.03)
    assert estimate["high"] == pytest.approx(values.mean() + half, abs=0.03)


def test_eval_the_report_and_a_comparison_show_one_interval(whole: Run) -> None:
    point = phase(numbers(whole), "rl")["evaluations"][0]["figures"]["keyword-coverage"]["points"][-1]
    judged = {f["figure"]: f for f in hookline.evaluate(whole, "rl")}["keyword-coverage"]
    compared = hookline.compare([whole.directory], metric="eval/keyword-coverage", phase="rl")["configurations"][0]
    for end in ("low", "value", "high"):
        assert judged[end] == pytest.approx(point[end], abs=1e-5)
        assert compared[end] == pytest.approx(point[end], abs=1e-5)


def test_answers_to_one_prompt_are_no_independent_evidence() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=50), 8).tolist()
    apart = report_numbers.Table(made(values), "x").estimate("mean", 1000)
    together = report_numbers.Table(made(values, [i // 8 for i in range(400)]), "x").estimate("mean", 1000)
    assert together["value"] == pytest.approx(apart["value"])
    assert together["high"] - together["low"] > 2 * (apart["high"] - apart["low"])


def test_a_paired_change_is_surer_than_its_two_ends() -> None:
    before = np.random.default_rng(0).normal(0, 5, 100)
    first, last = (
        report_numbers.Table(made(before.tolist()), "x"),
        report_numbers.Table(made((before + 0.5).tolist()), "x"),
    )
    change = report_numbers.change(first, last, "mean", 500)
    assert (change["low"], change["value"], change["high"]) == pytest.approx((0.5, 0.5, 0.5))


def test_only_rows_judged_at_both_ends_are_paired() -> None:
    first, last = made([1.0, 2.0, 3.0]), made([2.0, 2.0, 9.0])
    first[2]["terms"], last[0]["terms"] = {}, {"x": float("nan")}
    a, b = report_numbers.Table(first, "x").both(report_numbers.Table(last, "x"))
    assert (a.samples, a.value.tolist(), b.value.tolist()) == ([1], [2.0], [2.0])


def test_a_figure_summed_up_in_a_way_of_its_own_gets_no_interval(opened: Callable[..., Followed]) -> None:
    run = opened("report")
    for step, logged in ((0, 7.0), (4, 8.0)):
        rows = [{"prompt": "p", "response": "r", **s} for s in made([1.0, 2.0])]
        rows = [{**s, "terms": {"keyword-coverage": s["terms"]["x"], "kl": 0.0}} for s in rows]
        run.commit_samples("rl", step, "heldout", rows)
        run.commit_row("rl", step, {"eval/keyword-coverage": logged, "eval/kl": 0.0}, {})
    run.tell("run_finished", status="finished")
    assert not run.notices
    figure = phase(numbers(run), "rl")["evaluations"][0]["figures"]["keyword-coverage"]
    assert figure["summary"] == "own"
    assert [point["value"] for point in figure["points"]] == [7.0, 8.0]
    assert figure["points"][0]["low"] is None
    assert "change" not in figure


def test_a_killed_run_reports_the_same_to_the_last_bit(whole: Run, resumed: tuple[Run, list[str]]) -> None:
    mine, theirs = numbers(whole), numbers(resumed[0])
    for found in (mine, theirs):
        assert found.pop("timings")["phases"]["rl"]["seconds"] > 0
    assert json.dumps(mine) == json.dumps(theirs)


def test_a_complete_run_writes_its_report_again(whole: Run, small: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(whole.directory, tmp_path / "run")
    (tmp_path / "run/report.html").unlink()
    (tmp_path / "run/report.json").unlink()
    again = hookline.run({**small, "trackers": ["report"]}, out=tmp_path / "run")
    assert (again.directory / "report.html").exists()
    assert numbers(again) == numbers(whole)


def test_a_run_that_did_not_finish_has_no_report(opened: Callable[..., Followed]) -> None:
    run = opened("report")
    run.tell("run_finished", status="stopped")
    assert not (run.directory / "report.html").exists()


# -- page


def page(run: Run) -> Page:
    return read((run.directory / "report.html").read_text())


def test_the_page_is_whole_and_stands_alone(whole: Run) -> None:
    found = page(whole)
    found.is_harmless()
    found.is_accessible()
    for heading in (
        "Results",
        "What was run",
        "Before and after, in figures",
        "The reward model beside its ceiling",
        "Reward against KL",
        "Curves",
        "Answers before and after",
        "Where the time went",
        "What it ran on",
    ):
        assert heading in found.headings
    figure = phase(numbers(whole), "rl")["evaluations"][0]["figures"]["keyword-coverage"]
    assert words.number(figure["points"][-1]["value"]) in found.said
    assert "4 steps of ppo (lr 0.003), starting from the policy at the end of pretrain" in found.said
    assert str(phase(numbers(whole), "rl")["weights"]) in found.said
    assert whole.id in found.said


def test_every_logged_figure_is_explained(whole: Run) -> None:
    found = numbers(whole)
    logged = {name for row in whole.rows() for name in (*row["metrics"], *row["timings"])}
    assert set(found["words"]) == logged
    assert [name for name, meaning in found["words"].items() if not meaning["formula"]] == []
    assert found["words"]["eval/keyword-coverage"]["formula"].startswith("Share of a row's `keywords`")
    assert found["words"]["kl"]["unit"] == "nats per answer"
    assert {f"{name}" for name in logged} <= {text.strip() for text in page(whole).text}


def test_what_the_tables_and_curves_hold_can_be_downloaded(whole: Run) -> None:
    files = page(whole).files()
    table = list(csv.DictReader(io.StringIO(files["rl-before-and-after.csv"])))
    figure = phase(numbers(whole), "rl")["evaluations"][0]["figures"]["keyword-coverage"]
    [row] = [row for row in table if row["figure"] == "keyword-coverage"]
    assert float(row["end"]) == figure["points"][-1]["value"]
    assert float(row["change_interval_low"]) == figure["change"]["low"]
    assert files["rl-before-and-after.tex"].count(r"\\") == 1 + len(table)
    curve = list(csv.DictReader(io.StringIO(files["rl-kl.csv"])))
    logged = phase(numbers(whole), "rl")["curves"]["kl"]
    assert [[float(p["step"]), float(p["value"])] for p in curve if p["line"] == "training"] == logged
    ElementTree.fromstring(files["rl-kl.svg"].encode())
    assert {Path(name).suffix for name in files} == {".csv", ".tex", ".svg"}


def test_answers_that_are_html_stay_text(whole: Run) -> None:
    found = numbers(whole)
    example = phase(found, "rl")["evaluations"][0]["examples"][0]
    example["prompt"] = example["before"]["response"] = example["after"]["response"] = EVIL
    found["phases"][0]["does"] = found["phases"][0]["chain"] = EVIL
    shown = read(report_run.page(found, "id"))
    shown.is_harmless()
    assert "".join(shown.text).count('<script>alert("x")</script>') == 5
    assert "\x07" not in shown.source


@pytest.mark.parametrize("name", UGLY, ids=range(len(UGLY)))
def test_whatever_name_a_user_gives_stays_text(whole: Run, name: str) -> None:
    """In place of every name and text of the figures: of phases, components, evaluations, files, answers."""

    def renamed(value: Any, keys: bool = False) -> Any:
        if isinstance(value, dict):
            return {(name + key if keys else key): renamed(v, key in NAMED) for key, v in value.items()}
        if isinstance(value, list):
            return [renamed(item) for item in value]
        return (
            name + value
            if isinstance(value, str) and value not in ("kl", "pair-accuracy", "mean", "perplexity")
            else value
        )

    shown = read(report_run.page(renamed(numbers(whole)), name))
    shown.is_harmless()
    assert visible(name) in shown.source or visible(name) in shown.said
    for name, text in shown.files().items():
        if name.endswith(".svg"):
            drawn = ElementTree.fromstring(text.encode())
            assert not [
                e for e in drawn.iter() if e.tag.rpartition("}")[2] in ("script", "image", "a", "foreignObject")
            ]


def test_prompt_words_are_marked_as_whole_words_only() -> None:
    marked = [piece for piece, wanted in report_run.marked("A <cat> sees the cats, Cat!", {"cat"}) if wanted]
    assert marked == ["cat", "Cat"]


def test_ten_answers_are_shown_in_order_once_per_prompt() -> None:
    first = [
        {"sample": i, "group": i // 2, "prompt": f"p{i // 2}", "response": f"a{i}", "terms": {}} for i in range(30)
    ]
    last = [{**s, "response": s["response"].upper()} for s in first]
    shown = report_numbers._examples(first, last, 10)
    assert [e["prompt"] for e in shown] == [f"p{i}" for i in range(10)]
    assert [(e["before"]["response"], e["after"]["response"]) for e in shown] == [
        (f"a{2 * i}", f"A{2 * i}") for i in range(10)
    ]


def test_without_figures_the_tables_come(whole: Run, tmp_path: Path) -> None:
    shown = read(report.write(whole, tmp_path, figures=False).read_text())
    shown.is_harmless()
    assert not [name for name in shown.files() if name.endswith(".svg")]
    assert {"keyword-coverage", "midway"} <= {text.strip() for text in shown.text}
    assert json.loads((tmp_path / "report.json").read_text()) == numbers(whole)


def test_a_run_without_evaluations_says_what_is_missing(opened: Callable[..., Followed]) -> None:
    run = opened("report")
    run.commit_row("pretrain", 1, {"loss": float("inf"), "nll": 2.0}, {})
    run.tell("run_finished", status="finished")
    assert not run.notices
    assert "No phase was evaluated" in " ".join(page(run).text)
