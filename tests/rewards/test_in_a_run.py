"""A reward function in an experiment: short and long form, explain, the run's own copy, resume, evaluation, wrong names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import CheckpointError, ExperimentError, HooklineError
from hookline.cli.show import explain_json, explain_text
from hookline.contract.fields import Use
from hookline.errors import Stopped
from hookline.loop import api
from hookline.world.signals import Stopping
from refusing import told

CORRECT = '''"""Whether an answer has the word that its row asks for."""


def correct(completions, answer, log_metric, **kwargs):
    log_metric("words", sum(len(text.split()) for text in completions) / len(completions))
    return [float(want in text.split()) + len(text) / 10 for text, want in zip(completions, answer)]


def shorter(completion):
    return -len(completion) / 10
'''
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(reward=…)`: one phase of reinforcement learning in a folder with rows.jsonl and rewards.py."""
    words = ["red", "green", "blue", "white"]
    rows = [{"prompt": f"say {word}", "completion": f"{word} .", "answer": word} for word in words]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rewards.py").write_text(CORRECT)

    def experiment(**changes: Any) -> dict[str, Any]:
        phase = {
            "name": "rl",
            "rollout": {"use": "generate", "prompts": "rows.jsonl", "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 3},
            "reward": "rewards.py:correct",
            "advantage": "leave-one-out",
            "update": {"use": "reinforce", "lr": 1e-2},
            "steps": 2,
            "save": {"every": 1, "keep": 2},
            **changes,
        }  # fmt: skip
        return {
            "name": "mine", "seed": 1, "threads": 1, "folder": str(tmp_path), "trackers": [], "phases": [phase],
            "tokenizer": {"train": "words", "on": "rows.jsonl", "vocabulary": 300},
            "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 16},
        }  # fmt: skip

    return experiment


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("rewards.py:correct", {"use": "function", "path": "rewards.py", "function": "correct"}),
        ({"use": "~/a b/r.py:_of", "weight": 2, "timeout": 3}, {"use": "function", "name": "of", "weight": 2,
                                                                "path": "~/a b/r.py", "function": "_of", "timeout": 3}),
        ({"use": "r.py:f", "name": "g"}, {"use": "function", "name": "g", "path": "r.py", "function": "f"}),
    ],
)  # fmt: skip
def test_the_short_form_is_the_long_one(short: Any, long: Any) -> None:
    one, two = Use.model_validate(short), Use.model_validate(long)
    assert one == two
    assert Use.model_validate(one.model_dump()) == one
    assert one.instance == (one.name or "correct")


def test_explain_lists_the_code(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation = {"every": 1, "rows": 4, "reward": ["rewards.py:shorter"]}
    plan = api.plan(make(reward=["rewards.py:correct", {"use": "length", "weight": -0.1}], evaluate=[evaluation]))
    text = explain_text(plan)
    assert "  code       rewards.py:4 correct, a reward (rewards.py " in text
    assert "  code       rewards.py:9 shorter, a reward (rewards.py " in text
    assert len(explain_json(plan)["code"]) == 2
    [line] = [line for line in text.splitlines() if "reward     answers  correct" in line]
    assert line.split()[3:] == ["rewards.py", f"{plan.phases[0].rewards[0].offer.version},", "rewards.py:4"]


def test_a_run_its_copy_and_its_resume(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    evaluation = {"every": 2, "rows": 4, "reward": ["rewards.py:correct"]}
    out, straight = tmp_path / "out", tmp_path / "straight"
    whole = hookline.run(make(evaluate=[evaluation]), out=straight)
    assert {"reward/correct", "eval/correct", "function/correct/words"} <= whole.rows()[-1]["metrics"].keys()
    assert whole.figures is not None
    assert "reward function gave under this name" in whole.figures.find("rl", "function/correct/words").formula  # type: ignore[union-attr]

    # a run that is interrupted after its first step goes on with its own copy, once the user's file is gone
    stop(make(evaluate=[evaluation]), out)
    assert (out / "functions" / "rewards.py").read_text() == CORRECT
    (tmp_path / "rewards.py").unlink()
    again = hookline.run(make(evaluate=[evaluation]), out=out)
    assert again.resumed
    assert [row["metrics"] for row in again.rows()] == [row["metrics"] for row in whole.rows()]

    # a changed file is refused; reading the run uses the copy
    (tmp_path / "rewards.py").write_text("def correct(completions, **kwargs): return [1.0] * len(completions)")
    text = told(CheckpointError, lambda: hookline.run(make(evaluate=[evaluation]), out=out))
    assert f"{tmp_path / 'rewards.py'} has changed since the run in {out} began → restore it from {out / 'functions/rewards.py'}" in text
    [figure] = hookline.evaluate(out)
    assert figure["value"] == whole.rows()[-1]["metrics"]["eval/correct"]
    made = hookline.reproduce(out, tmp_path / "again")
    assert made["equal"], made["differences"]


def stop(experiment: dict[str, Any], out: Path) -> None:
    """Take one of two steps."""
    planned = api.plan(experiment, out=out)
    run = api.open_run(out, planned)
    try:
        stopping = Stopping()
        stopping.code = 143
        with api.open_phase(run, planned) as loop, pytest.raises(Stopped):
            loop.run(stopping)
        assert [row["step"] for row in run.rows()] == [0, 1]
    finally:
        run.close()


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ("reward.py:correct", "there is no file {folder}/reward.py; did you mean 'rewards.py'? → its folder is {folder};"),
        ("rewards.py:corect", "{folder}/rewards.py has no function 'corect'; did you mean 'correct'?"),
        ("rewards.py", "names a file; name a function in it: rewards.py:FUNCTION"),
        ("rewards.py:correct()", "function is 'correct()'"),
        ({"use": "rewards.py:correct", "columns": {"answer": "solution"}}, "row 1: there is no column 'solution', which `columns` names"),
        ({"use": "rewards.py:correct", "memory": 1}, "memory"),
        ({"use": "rewards.py:correct", "timout": 1}, "did you mean 'timeout'"),
        ("rewards:correct", "a function of a file is named FILE.py:NAME, e.g. rewards.py:correct; or install rewards"),
        (["rewards.py:correct", "rewards.py:correct"], "'correct' appears twice under reward"),
    ],
)  # fmt: skip
def test_wrong_names_are_refused_before_the_run(make: Make, tmp_path: Path, reward: Any, sentence: str) -> None:
    assert sentence.format(folder=tmp_path) in told(HooklineError, lambda: api.plan(make(reward=reward)))


def test_a_file_of_functions_needs_no_p(make: Make, tmp_path: Path) -> None:
    path = str(tmp_path / "rewards.py")
    text = told(HooklineError, lambda: api.plan(make(), plugins=[path]))
    assert f"defines no component → derive a class from hookline.Component; a reward function needs no -p: reward: {path}:correct" in text


def test_the_command_line_may_name_a_function(make: Make) -> None:
    plan = api.plan(make(), ["phases.rl.reward=[rewards.py:shorter, {use: 'rewards.py:correct', weight: 2}]"])
    assert [(slot.instance, slot.weight) for slot in plan.phases[0].rewards] == [("shorter", 1.0), ("correct", 2.0)]


def test_other_kinds_have_no_functions(make: Make) -> None:
    text = told(ExperimentError, lambda: api.plan(make(advantage="rewards.py:correct")))
    assert "rewards.py:correct is a function, and an advantage cannot be one" in text


def test_two_files_of_one_name(make: Make, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "rewards.py").write_text("def other(completion): return 1")
    text = told(ExperimentError, lambda: api.plan(make(reward=["rewards.py:correct", "more/rewards.py:other"])))
    assert "have the same name; rename one: a run stores both" in text
    (tmp_path / "more" / "rewards.py").write_text(CORRECT)
    api.plan(make(reward=["rewards.py:correct", "more/rewards.py:shorter"]))


def test_a_failure_in_a_step_names_the_function(make: Make, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text("def correct(completion, answer):\n    return {}[answer]\n")
    text = told(HooklineError, lambda: hookline.run(make(), out=tmp_path / "out"))
    assert text.startswith("reward 'correct' (rewards.py ")
    assert "in hookline_reward: row 0 (sample 0, 'say" in text
    assert "KeyError: '" in text
    assert "(rewards.py line 2)" in text
