"""Rows as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tracker_runs import Followed, commit

from hookline import ExperimentError, Run
from hookline.loop.api import plan


def lines(run: Run) -> list[Any]:
    return [json.loads(line) for line in (run.directory / "rows.jsonl").read_text().splitlines()]


def test_the_file_holds_the_runs_rows(whole: Run) -> None:
    assert lines(whole) == whole.rows()
    assert [row["row"] for row in whole.rows()] == list(range(len(whole.rows())))


def test_a_resumed_run_has_each_row_once(resumed: tuple[Run, list[str]]) -> None:
    run, _ = resumed
    assert lines(run) == run.rows()


def test_a_path_of_ones_own_lies_in_the_run_directory(opened: Callable[..., Followed]) -> None:
    run = opened({"use": "jsonl", "path": "logs/mine.jsonl"})
    commit(run, "pretrain", 2)
    assert len((run.directory / "logs/mine.jsonl").read_text().splitlines()) == 2


def test_a_dash_is_standard_output(opened: Callable[..., Followed], capsys: pytest.CaptureFixture[str]) -> None:
    commit(opened({"use": "jsonl", "path": "-"}), "pretrain", 3)
    assert [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]


def test_the_runs_own_log_cannot_be_written_over(small: dict[str, Any]) -> None:
    with pytest.raises(ExperimentError, match="file of the run itself"):
        plan({**small, "trackers": [{"use": "jsonl", "path": "../run/metrics.jsonl"}]})
