"""Corrections and marked spans: tokens that changed weigh more, pairs add to cloning, marks are rewards of tokens."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch

import hookline
from hookline import ExperimentError
from hookline.testing import conformance, open_phase
from hookline_plugins.algorithms.comparisons import answer_logprob
from hookline_plugins.rewards.spans import Spans

test_spans_keeps_the_laws = pytest.mark.slow(conformance(Spans))


def experiment(tmp_path: Path, update: dict[str, Any], **phase: Any) -> dict[str, Any]:
    path = tmp_path / "corrections.jsonl"
    rows = [
        {"prompt": f"p{i} ", "annotator": "ann", "candidates": [{"text": f"a wrong word{i}"}],
         "answer": {"kind": "correction", "of": 0, "text": f"a right word{i} now"}}
        for i in range(6)
    ]  # fmt: skip
    rows.append({
        "prompt": "q ", "annotator": "ann", "candidates": [{"text": "abcdef"}],
        "answer": {"kind": "spans", "spans": [
            {"start": 1, "end": 3, "label": "bad"}, {"start": 2, "end": 6, "label": "good", "worth": 0.5},
        ]},
    })  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path.with_name("letters.txt").write_text("@@@@ #### " * 9)
    rollout = {"use": "judgements", "path": str(path), "rows": 6, "kinds": ["correction"]}
    return {
        "name": "edits", "seed": 1, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "bpe", "on": str(path.with_name("letters.txt")), "vocabulary": 262},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 48},
        "phases": [{"name": "learn", "rollout": rollout, "steps": 3, "update": {"lr": 1e-2, **update}, **phase}],
    }  # fmt: skip


def test_weights_of_tokens_are_those_of_the_paper() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -3.0, -9.0]])
    mask = torch.tensor([[True, True, True, False]])
    changed = torch.tensor([[False, True, False, True]])
    gamma = 5.0
    want = (-1 - 3 + gamma * -2) / (2 + gamma * 1)  # 1/N [Σ unchanged + γ Σ changed], N = |u| + γ|c|
    assert float(answer_logprob(logprobs, mask, "mean", 1 + (gamma - 1) * changed.float())) == pytest.approx(want)
    plain = answer_logprob(logprobs, mask, "mean")
    assert torch.equal(answer_logprob(logprobs, mask, "mean", torch.ones_like(logprobs)), plain)


def test_changed_tokens_weigh_more_and_a_weight_of_one_is_dpo(tmp_path: Path) -> None:
    found = {}
    for name, update in (
        ("mean", {"length": "mean"}), ("one", {"length": "mean", "changed": 1.0}), ("five", {"length": "mean", "changed": 5.0}),
    ):  # fmt: skip
        run = hookline.run(experiment(tmp_path, {"use": "dpo", **update}), out=tmp_path / name)
        found[name] = [row["metrics"] for row in run.rows()]
    assert [row["loss"] for row in found["one"]] == [row["loss"] for row in found["mean"]]
    assert found["five"][-1]["margin"] > 1.2 * found["mean"][-1]["margin"]


def test_options_that_read_corrections_are_refused_without_them(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"changed is 5.*set length: mean"):
        hookline.run(experiment(tmp_path, {"use": "dpo", "changed": 5.0}), out=tmp_path / "run")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "p ", "chosen": "a", "rejected": "b"}) + "\n")
    made = experiment(tmp_path, {"use": "dpo", "changed": 5.0, "length": "mean"})
    made["phases"][0]["rollout"] = {"use": "preferences", "path": str(tmp_path / "pairs.jsonl")}
    with pytest.raises(ExperimentError, match="these rows do not say which"):
        hookline.run(made, out=tmp_path / "run")


def test_a_pair_adds_to_cloning_the_correction_at_the_same_number_of_labels(tmp_path: Path) -> None:
    """60 corrections of random answers to the best of four; the worth of what the policy then says, over six seeds in pairs."""
    gains = [_gain(seed, tmp_path / str(seed)) for seed in range(1, 7)]
    assert mean(gains) - 2.015 * stdev(gains) / 6**0.5 > 0, "95 % of Student's t with five degrees of freedom"


def _gain(seed: int, out: Path) -> float:
    """The worth with the pair and SFT, minus that with SFT alone."""
    drawn = {"use": "generate", "prompts": "builtin:worths?count=24", "rows": 6}
    reward = {"use": "task", "task": "builtin:worths?count=24"}
    reads = {"use": "judgements", "from": "ask", "kinds": ["correction"], "rows": 30}
    learn = {
        "sft": {"rollout": {**reads, "answers": "best"}, "update": {"use": "sft", "lr": 0.1}},
        "both": {"rollout": reads, "update": {"use": "dpo", "beta": 1.0, "sft": 1.0, "lr": 0.1}},
    }
    run = hookline.run({
        "name": "edits", "seed": seed, "threads": 1, "device": "cpu", "trackers": [],
        "tokenizer": {"train": "words", "on": "builtin:worths/answers?count=24"},
        "model": {"build": "tabular", "task": "builtin:worths?count=24", "sees": ["last"], "context": 4},
        "phases": [
            {"name": "ask", "steps": 5, "rollout": {**drawn, "samples_per_prompt": 4, "max_new_tokens": 1}, "reward": reward,
             "feedback": {"use": "simulated-annotator", "kinds": ["correction"], "judgements": 3}},
            *({"name": name, "model": {"from": "ask"}, "steps": 20, **phase, "evaluate": [
                {"every": 20, "rows": 600, "rollout": {**drawn, "samples_per_prompt": 100, "max_new_tokens": 2}, "reward": reward},
            ]} for name, phase in learn.items()),
        ],
    }, out=out)  # fmt: skip
    worth = {row["phase"]: row["metrics"].get("eval/task") for row in run.rows()}
    corrections = (out / "phases/ask/data.jsonl").read_text().splitlines()
    assert 50 <= len(corrections) <= 90
    assert worth["sft"] > 0
    return float(worth["both"] - worth["sft"])


def test_spans_are_rewards_of_their_tokens(tmp_path: Path) -> None:
    made = experiment(tmp_path, {"use": "sft"}, reward="spans")
    made["phases"][0]["rollout"] |= {"kinds": ["spans"], "rows": 1, "worths": {"bad": -1.0}}
    with open_phase(made) as loop:
        scored = loop.hooks.score(loop.ctx, loop.hooks.rollout(loop.ctx))
    assert len(scored) == 1
    assert scored.response_text(0) == "abcdef"
    assert scored.reward_BT[0, :7].tolist() == [0, -1, -0.5, 0.5, 0.5, 0.5, 0]
