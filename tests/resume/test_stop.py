"""`stop`: a phase ends when a figure no longer improves; after a kill just the same; and what follows copes with fewer steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.loop import stopping_early
from hookline.loop.checkpoint import Checkpoint

SOURCE = '''
from hookline import Component, hookimpl

class Scripted(Component):
    """The reward of each step, by a script; rows differ, so that there is something to learn."""
    name = "scripted"

    @hookimpl
    def hookline_reward(self, ctx, rollout):
        import torch
        values = [5.0, 4.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
        return torch.full((len(rollout),), values[min(ctx.step, 11)]) + rollout.sample_B % 2 - 0.5
'''


def experiment(stop: dict[str, Any] | None, steps: int = 10) -> dict[str, Any]:
    phase: dict[str, Any] = {
        "name": "one", "steps": steps, "update": {"use": "grpo"}, "reward": ["scripted"], "advantage": "group-relative",
        "rollout": {"use": "generate", "prompts": "task:keywords/train", "rows": 2, "samples_per_prompt": 2, "max_new_tokens": 4},
        "evaluate": [{"name": "rare", "prompts": "heldout", "rows": 2, "reward": "length"}], "save": {"every": 2},
    }  # fmt: skip
    made: dict[str, Any] = {"name": "stops", "trackers": []}
    made["tokenizer"] = {"train": "bpe", "on": "task:keywords/sentences", "vocabulary": 300}
    made["model"] = {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 64}
    second = {**phase, "name": "two", "steps": 2}
    return made | {"phases": [phase | ({"stop": stop} if stop else {}), second]}


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "scripted.py").write_text(SOURCE)
    return str(tmp_path / "scripted.py")


STOP = {"figure": "reward/scripted", "lowest": True, "patience": 2}


def test_a_phase_ends_after_the_row_that_decides_and_says_why(plugin: str, tmp_path: Path) -> None:
    run = hookline.run(experiment(STOP), plugins=[plugin], out=tmp_path / "run")
    rows = [row for row in run.rows() if row["phase"] == "one"]
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5]  # 5, 4, 3, then twice not below 3
    assert "eval/rare/length" in rows[-1]["metrics"]  # the evaluation at the end is not lost
    ended = run.finished("one")
    assert ended is not None
    assert ended["steps"] == 5
    assert ended["stopped"] == "ended after step 5 of 10: reward/scripted was 2 times in a row not below its best, 3"
    assert any("phase 'one' ended after step 5" in notice for notice in run.notices)
    assert (run.finished("two") or {})["steps"] == 2
    again = hookline.run(experiment(STOP), plugins=[plugin], out=tmp_path / "run")
    assert again.rows() == run.rows()


@pytest.mark.parametrize("where", ["before", "after", "at the end"])
def test_a_kill_around_the_decision_changes_nothing(where: str, plugin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = hookline.run(experiment(STOP), plugins=[plugin], out=tmp_path / "whole")
    watch = stopping_early.watch

    def killed(*arguments: Any) -> bool:
        if where == "before" and arguments[0].scope.step == 5:
            raise KeyboardInterrupt
        found = watch(*arguments)
        if where == "after" and found:
            raise KeyboardInterrupt
        return found

    def never(self: Checkpoint, *_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(stopping_early, "watch", killed)
        if where == "at the end":
            during.setattr(Checkpoint, "finish", never)
        with pytest.raises(KeyboardInterrupt):
            hookline.run(experiment(STOP), plugins=[plugin], out=tmp_path / "run")
    again = hookline.run(experiment(STOP), plugins=[plugin], out=tmp_path / "run")
    timeless = [[{k: row[k] for k in ("phase", "step")} | {"m": row["metrics"]} for row in run.rows()] for run in (whole, again)]
    assert timeless[0] == timeless[1]
    assert [(run.finished("one") or {})["weights"] for run in (whole,)] == [(again.finished("one") or {})["weights"]]
    assert (again.finished("one") or {})["stopped"] == (whole.finished("one") or {})["stopped"]


@pytest.mark.parametrize(
    ("change", "steps"),
    [({"patience": 4}, 10), ({"lowest": False}, 3), ({"least": 1.5, "patience": 1}, 2), ({"least": 0.5, "patience": 3}, 9)],
)
def test_patience_direction_and_least_decide(change: dict[str, Any], steps: int, plugin: str, tmp_path: Path) -> None:
    run = hookline.run(experiment(STOP | change), plugins=[plugin], out=tmp_path / "run")
    assert (run.finished("one") or {})["steps"] == steps


def test_what_reads_a_run_copes_with_fewer_steps(plugin: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = experiment(STOP) | {"trackers": ["console", "report"]}
    for seed in (1, 2):
        hookline.run(made, [f"seed={seed}"], plugins=[plugin], out=tmp_path / str(seed))
    said = capsys.readouterr().out
    assert "one done in" in said
    assert "two done in" in said
    assert "Ended after step 5 of 10" in (tmp_path / "1" / "report.html").read_text()
    hookline.run(made, ["seed=1"], plugins=[plugin], out=tmp_path / "1")
    assert "already complete: 7 steps in 2 phases" in capsys.readouterr().out
    hookline.evaluate(tmp_path / "1", phase="one")
    assert hookline.reproduce(tmp_path / "1", tmp_path / "again")["equal"]
    found = hookline.compare([f"a={tmp_path / '1'}", f"b={tmp_path / '2'}"], phase="one")
    assert json.dumps(found, default=str)


def test_a_figure_that_nothing_gives_is_refused(plugin: str) -> None:
    with pytest.raises(hookline.HooklineError, match=r"stop: no evaluation of phase 'one' gives 'eval/perplexity'"):
        hookline.explain(experiment({"figure": "eval/perplexity"}), plugins=[plugin])
    with pytest.raises(hookline.HooklineError, match=r"stop: nothing in phase 'one' logs 'rewardz'"):
        hookline.explain(experiment({"figure": "rewardz"}), plugins=[plugin])
