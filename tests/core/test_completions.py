"""Answers of training: which are kept, what a line holds, that trackers receive them, and that a resume repeats none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import NumbersError
from hookline.config.experiment import Completions
from hookline.loop.completions import CHARACTERS, _cut, due

Tiny = Callable[..., dict[str, Any]]


def kept(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "completions.jsonl").read_text().splitlines()]


def test_steps_whose_answers_are_kept_become_rarer_so_that_the_file_stays_small() -> None:
    spec = Completions()
    steps = [step for step in range(1, 20_001) if due(step, spec)]
    assert steps[:4] == [1, 10, 20, 30]
    assert {1000, 1100, 10_000, 11_000} <= set(steps)
    assert not {1010, 10_100} & set(steps)
    assert len(steps) == 1 + 100 + 90 + 10
    assert not any(due(step, Completions(every=0)) for step in range(1, 50))


def test_a_line_holds_the_answer_its_rewards_and_its_advantage(tiny: Tiny, tmp_path: Path) -> None:
    experiment = tiny(
        reward=["keyword-coverage", {"use": "length", "weight": -0.5}], steps=3, completions={"every": 2, "rows": 4}
    )
    run = hookline.run(experiment, out=tmp_path / "run")
    lines = kept(run.directory)
    assert run.completions() == lines
    assert [(line["step"], line["row"]) for line in lines] == [(1, 0)] * 4 + [(2, 1)] * 4
    assert len({line["group"] for line in lines[:4]}) == 4, "they are answers to different prompts"
    for line in lines:
        assert line["phase"] == "rl"
        assert line["source"] == "policy"
        assert line["finish_reason"] in ("stop", "length")
        assert line["reward"] == pytest.approx(line["reward/keyword-coverage"] - 0.5 * line["reward/length"])
        assert math.isfinite(line["advantage"])
        assert line["prompt"]
        assert line["tokens"] > 0


def test_rows_that_are_read_are_kept_too_without_a_reward(tiny: Tiny, tmp_path: Path, shelf: Path) -> None:
    rollout = {"use": "dataset", "path": str(shelf / "pairs.jsonl"), "rows": 2}
    (shelf / "pairs.jsonl").write_text('{"prompt": "a", "completion": " b"}\n{"prompt": "c", "completion": " d"}\n')
    experiment = tiny(rollout=rollout, reward=None, advantage=None, update={"use": "sft", "lr": 1e-3}, steps=1)
    run = hookline.run(experiment, out=tmp_path / "run")
    assert {(c["completion"], c["reward"], c["advantage"], c["finish_reason"]) for c in run.completions()} == {
        (" b", None, None, "recorded"), (" d", None, None, "recorded"),
    }  # fmt: skip


def test_a_run_that_stopped_between_two_saves_ends_with_the_same_lines(
    tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]
) -> None:
    experiment = tiny(steps=6, completions={"every": 1}, save={"every": 2})
    hookline.run(experiment, out=tmp_path / "whole")
    stop = plugin(
        """
        class Stop(Component):
            name = "stop"

            @hookimpl
            def hookline_row(self, row):
                if row["step"] == 3:
                    raise KeyboardInterrupt
        """,
        "stop",
    )
    with pytest.raises(KeyboardInterrupt):
        hookline.run({**experiment, "trackers": ["stop"]}, out=tmp_path / "cut", plugins=[stop])
    assert kept(tmp_path / "cut")[-1]["step"] == 3
    hookline.run(experiment, out=tmp_path / "cut")
    assert (tmp_path / "cut/completions.jsonl").read_bytes() == (tmp_path / "whole/completions.jsonl").read_bytes()


def test_the_answers_of_a_first_step_that_failed_are_there_and_the_directory_is_still_free(
    tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]
) -> None:
    source = """
        import hookline

        class Fails(Component):
            name = "fails"
            Config = UpdateConfig

            @hookimpl
            def hookline_update(self, ctx, batch):
                raise hookline.NumbersError("the loss is nan", "lower lr")
        """
    experiment = tiny(update={"use": "fails"})
    with pytest.raises(NumbersError):
        hookline.run(experiment, out=tmp_path / "run", plugins=[plugin(source, "fails")])
    assert [line["step"] for line in kept(tmp_path / "run")] == [1] * 4
    run = hookline.run(tiny(), out=tmp_path / "run")
    assert kept(tmp_path / "run") == run.completions()
    assert len({line["sample"] for line in run.completions()}) == 4


def test_a_change_of_what_is_kept_does_not_end_a_resume(tiny: Tiny, tmp_path: Path) -> None:
    hookline.run(tiny(), out=tmp_path / "run")
    hookline.run(tiny(completions={"every": 0}), out=tmp_path / "run")


def test_every_tracker_receives_them_before_the_row(tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]) -> None:
    source = """
        import json

        class Told(Component):
            name = "told"

            @hookimpl
            def hookline_completions(self, run, phase, step, completions):
                with (run.directory / "told.txt").open("a") as file:
                    file.write(f"{phase} {step} {len(run.rows())} {len(completions)} {completions[0]['row']}\\n")
        """
    experiment = {**tiny(steps=2, completions={"every": 2, "rows": 3}), "trackers": ["told"]}
    run = hookline.run(experiment, out=tmp_path / "run", plugins=[plugin(source, "told")])
    assert (run.directory / "told.txt").read_text().splitlines() == ["rl 1 0 3 0", "rl 2 1 3 1"]


def test_the_console_shows_drawn_answers_and_the_report_has_them(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = {**tiny(steps=12), "trackers": ["console", "report"]}
    run = hookline.run(experiment, out=tmp_path / "run")
    shown = [line for line in capsys.readouterr().out.splitlines() if '" → "' in line]
    assert [line.split()[1] for line in shown] == ["1", "10"]
    assert "   advantage " in shown[0]
    assert "(keyword-coverage " in shown[0]
    [phase] = json.loads((run.directory / "report.json").read_text())["phases"]
    assert [c["step"] for c in phase["completions"]] == [1] * 4 + [10] * 4
    assert "Answers in training" in (run.directory / "report.html").read_text()


def test_a_long_text_is_cut_in_its_middle() -> None:
    text = "a" * CHARACTERS + "b" * 50
    assert _cut(text[:CHARACTERS]) == text[:CHARACTERS]
    assert "[…50 characters…]" in _cut(text)
    assert _cut(text).endswith("b" * 50)
    assert len(_cut(text)) < CHARACTERS + 40
