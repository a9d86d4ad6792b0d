"""What a phase's first step and its evaluations already show: named once, with what to do, and only where it is so."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline

Tiny = Callable[..., dict[str, Any]]
REWARDS = """
class {NAME}(Component):
    name = "{name}"

    @hookimpl
    def hookline_reward(self, rollout):
        return {value}
"""
VALUES = {
    "zero": "torch.zeros(len(rollout))",
    "equal": "rollout.group_B.float() + 1",
    "differ": "torch.arange(len(rollout)).float()",
}


@pytest.fixture
def begun(tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]) -> Callable[..., hookline.Run]:
    def run(reward: str, room: int = 6, steps: int = 2, **phase: Any) -> hookline.Run:
        path = plugin(REWARDS.format(NAME=reward.title(), name=reward, value=VALUES[reward]), reward)
        experiment = tiny(reward=reward, steps=steps, update={"use": "grpo", "lr": 1e-3}, advantage=None, **phase)
        experiment["phases"][0]["rollout"]["max_new_tokens"] = room
        return hookline.run(experiment, out=tmp_path / "run", plugins=[path])

    return run


def first(run: hookline.Run) -> list[str]:
    return [text for text in run.notices if "first step" in text]


def test_answers_that_never_end_are_named_with_the_token_and_the_limit(begun: Callable[..., hookline.Run]) -> None:
    run = begun("differ", room=1)
    if run.rows()[0]["metrics"]["truncated"] < 1:
        pytest.skip("an answer of one token ended")
    [text] = first(run)
    assert "no answer of 8 ended by itself" in text
    assert "max_new_tokens (1)" in text
    assert "'<|endoftext|>'" in text or "end token ('" in text


@pytest.mark.parametrize(
    ("reward", "said"), [("zero", "the reward (zero) of every answer was 0"), ("equal", "equal rewards (equal)"), ("differ", "")]
)
def test_each_cause_has_its_own_sentence(
    begun: Callable[..., hookline.Run], capsys: pytest.CaptureFixture[str], reward: str, said: str
) -> None:
    try:
        begun(reward)
    except hookline.NumbersError:
        assert said  # a phase that learns nothing until its end stops there, after the notice
    notes = [line for line in capsys.readouterr().err.splitlines() if "first step" in line and "reward" in line]
    assert len(notes) == bool(said)
    assert all(said in line for line in notes)


def test_evaluation_rows_that_are_training_rows_are_counted_and_the_first_is_shown(
    tiny: Tiny, tmp_path: Path, shelf: Path
) -> None:
    rows = [json.loads(line) for line in (shelf / "prompts.jsonl").read_text().splitlines()]
    mixed = [{**rows[1], "prompt": "never seen"}, rows[0], {**rows[2], "extra": 1}]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    fresh = [{**row, "prompt": f"{row['prompt']} ?"} for row in rows[:3]]
    (tmp_path / "fresh.jsonl").write_text("".join(json.dumps(row) + "\n" for row in fresh))
    evaluate = [
        {"name": name, "prompts": str(tmp_path / f"{name}.jsonl"), "rows": 4, "reward": "length"} for name in ("mixed", "fresh")
    ]
    run = hookline.run(tiny(evaluate=evaluate) | {"trackers": ["report"]}, out=tmp_path / "run")
    [text] = [text for text in run.notices if "training data" in text]
    assert text.startswith("2 of 3 prompts of evaluation 'mixed' are also in the training data of phase 'rl', the first: ")
    assert rows[0]["prompt"] in text
    [phase] = json.loads((run.directory / "report.json").read_text())["phases"]
    assert [each["shared_rows"] and each["shared_rows"]["shared"] for each in phase["evaluations"]] == [2, None]
    page = (run.directory / "report.html").read_text()
    assert "never sees" not in page
    assert "2 of 3 prompts are also in the training data" in page


def test_the_same_file_is_named_before_the_start_too(tiny: Tiny, shelf: Path) -> None:
    evaluate = [{"prompts": str(shelf / "prompts.jsonl"), "rows": 4, "reward": "length"}]
    [note] = hookline.explain(tiny(evaluate=evaluate)).notes
    assert "evaluation 'heldout' of phase 'rl' reads" in note
    assert "heldout: 0.05" in note
