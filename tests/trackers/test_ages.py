"""The report says how old the weights are that wrote what was judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hookline
from hookline_plugins.report import ages, numbers, run


def test_ages_are_optimiser_steps_of_the_policy(tmp_path: Path) -> None:
    checks = tmp_path / "checks.py"
    checks.write_text("def longer(completions, **columns):\n    return [float(len(text)) for text in completions]\n")
    samples = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}
    made: dict[str, Any] = {
        "name": "ages", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64},
        "phases": [{"repeat": 3, "phases": [
            {"name": "ask", "rollout": samples, "reward": f"{checks}:longer", "feedback": "verifier", "steps": 1},
            {"name": "judge", "model": {"head": "reward"}, "rollout": {"use": "preferences", "from": "ask", "rows": 2},
             "update": {"use": "bradley-terry", "lr": 1e-3}, "steps": 3},
            {"name": "rl", "rollout": samples, "reward": {"use": "reward-model", "from": "judge"}, "steps": 2,
             "update": {"use": "rloo", "lr": 1e-3}},
        ]}],
    }  # fmt: skip
    finished = hookline.run(made, out=tmp_path / "run")
    found = {(one["phase"], one["does"]): one for one in ages.gather(finished, finished.rows())}
    assert len(found) == 6
    for number in (1, 2, 3):
        asked, learned = found[f"ask@{number}", "collected"], found[f"judge@{number}", "learned from"]
        assert (asked["judgements"], asked["age"], asked["new"]) == (4, 0, 1), "what was just drawn is new"
        # the policy takes two optimiser steps in a round; training the reward model takes none of them
        assert (learned["judgements"], learned["age"], learned["oldest"]) == (4 * number, number - 1, 2 * (number - 1))
    page = run.page(numbers.gather(finished, 10, 1), finished.id)
    assert "Age of what was judged" in page


def test_ages_are_counted_along_a_policys_own_line(tmp_path: Path) -> None:
    """Two policies begin with the weights that drew what was judged: what the first one learns does not age it for the second."""
    checks = tmp_path / "checks.py"
    checks.write_text("def longer(completions, **columns):\n    return [float(len(text)) for text in completions]\n")
    samples = {"use": "generate", "prompts": "builtin:keywords", "rows": 4, "samples_per_prompt": 4, "max_new_tokens": 4}
    asks = {"rollout": samples, "reward": f"{checks}:longer", "feedback": "verifier", "steps": 1}
    late = {"use": "preferences", "from": "late", "rows": 2}
    learns: dict[str, Any] = {"rollout": {"use": "preferences", "from": "ask", "rows": 2}, "update": {"use": "dpo", "lr": 1e-3}}
    made: dict[str, Any] = {
        "name": "branches", "seed": 1, "threads": 1, "trackers": [],
        "tokenizer": {"train": "bpe", "on": "builtin:keywords", "vocabulary": 300},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 64},
        "phases": [
            {"name": "start", "rollout": samples, "reward": f"{checks}:longer", "update": {"use": "rloo", "lr": 1e-3}, "steps": 3},
            {"name": "ask", **asks},
            {"name": "one", "model": {"from": "start"}, **learns, "steps": 2},
            {"name": "other", "model": {"from": "start"}, **learns, "steps": 1},
            {"name": "again", **learns, "steps": 1},
            {"name": "judge", "model": {"head": "reward", "from": "start"}, **learns, "update": "bradley-terry", "steps": 1},
            {"name": "late", "model": {"from": "one"}, **asks},
            {"name": "across", "model": {"from": "other"}, **learns, "rollout": late, "steps": 1},
        ],
    }  # fmt: skip
    finished = hookline.run(made, out=tmp_path / "run")
    found = {(one["phase"], one["does"]): one["age"] for one in ages.gather(finished, finished.rows())}
    assert found == {
        ("ask", "collected"): 0, ("one", "learned from"): 0, ("other", "learned from"): 0, ("again", "learned from"): 1,
        ("judge", "learned from"): 2,  # `again` goes on from `other`, and is the newest policy
        ("late", "collected"): 0,
    }, "what `one` wrote has no age for a policy that `one` never was"  # fmt: skip
