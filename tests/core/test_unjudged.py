"""Rows that a rollout could not finish: dropped and counted in training, shown without a figure in an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from hookline import HooklineError, PluginError, Rollout
from hookline.contract.metrics import CORE_METRICS
from hookline.loop.guards import judged
from hookline.loop.loop import PhaseLoop
from hookline.runs.figures import Dictionary, MetricLog
from hookline.storage import lines
from hookline.testing import open_phase

PLUGIN = """
from hookline_plugins.rollouts.generate import Generate

class Flaky(Generate):
    "Every third sample could not be played."
    name = "flaky"

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        return rollout.with_extra(ok_B=self.said(rollout.sample_B % 3 != 0))

    def said(self, ok_B):
        return ok_B

class Odd(Flaky):
    name = "odd"

    def said(self, ok_B):
        return ok_B.float()

class Picky(Component):
    "Refuses to look at what could not be played."
    name = "picky"

    @hookimpl
    def hookline_reward(self, rollout):
        assert (rollout.sample_B % 3 != 0).all(), "it was shown a row that is not judged"
        return rollout.sample_B.float()
"""


@pytest.fixture
def phase(tiny: Any, plugin: Any, tmp_path: Path) -> Any:
    """`phase(rollout="flaky", reward="picky")`: what is described of it."""
    path = plugin(PLUGIN, "flaky")

    def make(rollout: str = "flaky", **changes: Any) -> dict[str, Any]:
        described: dict[str, Any] = tiny(**{"reward": "picky", "patience": 99, **changes})
        described["phases"][0]["rollout"]["use"] = rollout
        described["plugins"].append(path)
        return described

    return make


@pytest.fixture
def loop(phase: Any) -> Iterator[PhaseLoop]:
    with open_phase(phase(evaluate=[{"name": "held", "rows": 8, "reward": "picky"}])) as opened:
        yield opened


def test_rows_that_were_not_played_are_dropped_before_a_reward_is_asked(loop: PhaseLoop) -> None:
    loop.step()
    figures, _ = loop.phase.metrics.collect()
    assert (figures["rows"], figures["unjudged"]) == (5, 3)
    assert figures["reward"] == pytest.approx((1 + 2 + 4 + 5 + 7) / 5)


def test_an_evaluation_shows_them_without_a_figure(loop: PhaseLoop) -> None:
    figures, samples = loop.evaluators[0].run(loop.ctx)
    assert figures["picky"] == pytest.approx((1 + 2 + 4 + 5 + 7) / 5)
    assert [sample["sample"] for sample in samples] == list(range(8))
    assert {sample["sample"]: sample["terms"] for sample in samples} == {
        i: {"picky": float(i)} if i % 3 else {} for i in range(8)
    }


def test_rows_are_dropped_where_nothing_is_scored_too(phase: Any) -> None:
    described = phase(reward=None, advantage=None, update={"use": "sft", "lr": 1e-3})
    with open_phase(described) as opened:
        opened.step()
        figures, _ = opened.phase.metrics.collect()
    assert (figures["rows"], figures["unjudged"]) == (5, 3)


def test_an_episode_with_a_row_that_could_not_be_judged_is_dropped_whole(loop: PhaseLoop) -> None:
    rollout: Rollout = loop.hooks.rollout(loop.ctx)
    metrics = MetricLog(Dictionary(CORE_METRICS))
    ok_B = torch.tensor([True, False, True, True, True, True, True, False])
    assert judged(rollout, ok_B, metrics).tolist() == [0, 2, 3, 4, 5, 6]
    assert metrics.collect()[0]["unjudged"] == 2
    pairs = replace(rollout, episode_B=torch.tensor([9, 9, 8, 8, 7, 7, 6, 6]))
    assert judged(pairs, ok_B, metrics).tolist() == [2, 3, 4, 5]
    assert metrics.collect()[0]["unjudged"] == 4
    assert len(judged(pairs, torch.ones(8, dtype=torch.bool), metrics)) == 8
    assert "unjudged" not in metrics.collect()[0]


def test_a_column_that_is_not_true_or_false_is_refused(phase: Any) -> None:
    with open_phase(phase("odd")) as opened, pytest.raises(HooklineError, match=r"ok_B is torch\.float32") as caught:
        opened.step()
    assert isinstance(caught.value, PluginError)


def test_a_figure_that_is_no_number_is_null_on_disk_and_nan_again_when_read(tmp_path: Path) -> None:
    """JSON has neither NaN nor infinity; a strict reader stops at them."""

    def no(name: str) -> float:
        raise AssertionError(f"{name} is no JSON")

    path = tmp_path / "rows.jsonl"
    entry = {"row": 0, "metrics": {"a": math.nan, "b": -math.inf, "c": 0.5}, "note": None}
    sample = {"terms": {"x": math.inf}, "without": {"x": math.nan}, "prompt": "NaN"}
    for line in (entry, {"row": 1, "samples": [sample]}):
        lines.append(path, lines.finite(line))
    assert [json.loads(line, parse_constant=no)["row"] for line in path.read_text().splitlines()] == [0, 1]
    first, second = lines.figures(path)
    assert math.isnan(first["metrics"]["a"])
    assert math.isnan(first["metrics"]["b"])
    assert first["metrics"]["c"] == 0.5
    assert first["note"] is None
    assert math.isnan(second["samples"][0]["terms"]["x"])
    raw = path.read_bytes()
    lines.rewrite(path, lines.finite([first, second]))
    assert path.read_bytes() == raw, "cutting back changes nothing"
