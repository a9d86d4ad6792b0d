"""A table of logits is a language model like any other: it starts at the task's reference, trains, is saved and goes on."""

from __future__ import annotations

import json

import pytest
import torch

import hookline
from hookline import ExperimentError, NumbersError
from hookline_plugins.models.tabular import Situations, TableConfig

FIGURES = [
    {"use": "exact", "name": "return", "task": "builtin:walks"},
    {"use": "exact", "name": "kl", "task": "builtin:walks", "figure": "kl"},
    {"use": "exact", "name": "gap", "task": "builtin:walks", "figure": "gap"},
]


def experiment(sees, steps=8, **more):
    phase = {
        "name": "rl",
        "steps": steps,
        "rollout": {"use": "generate", "prompts": "builtin:walks", "rows": 20, "samples_per_prompt": 2, "max_new_tokens": 10},
        "reward": {"use": "task", "task": "builtin:walks"},
        "advantage": "gae",
        "update": {"use": "ppo", "lr": 0.1},
        "evaluate": [{"prompts": "heldout", "rows": 20, "reward": FIGURES}],
        **more,
    }  # fmt: skip
    return {
        "name": "table",
        "seed": 3,
        "threads": 1,
        "trackers": [],
        "tokenizer": {"train": "words", "on": "builtin:walks/walks"},
        "model": {"build": "tabular", "task": "builtin:walks", "sees": sees, "context": 12},
        "phases": [phase],
    }


def evaluations(run):
    return [row["metrics"] for row in run.rows() if "eval/return" in row["metrics"]]


def test_it_starts_at_the_reference_and_learns_under_the_frontier(tmp_path):
    before, after = evaluations(hookline.run(experiment(["position", "last"]), out=tmp_path / "run"))
    assert before["eval/return"] == pytest.approx(0.34622569951, abs=1e-6)
    assert before["eval/kl"] == pytest.approx(0.0, abs=1e-6)
    assert after["eval/return"] > before["eval/return"] + 0.05
    assert after["eval/kl"] > 0.01
    assert min(before["eval/gap"], after["eval/gap"]) > -1e-6


def test_a_later_phase_goes_on_with_the_table(tmp_path):
    plan = experiment(["first", "position", "last"], steps=2)
    plan["phases"].append({**plan["phases"][0], "name": "more", "steps": 1})
    rows = evaluations(hookline.run(plan, out=tmp_path / "run"))
    assert rows[2]["eval/return"] == pytest.approx(rows[1]["eval/return"], abs=1e-12)
    assert rows[3]["eval/return"] != rows[2]["eval/return"]


def test_the_kl_of_a_network_that_says_other_words_is_refused(tmp_path):
    plan = experiment([], steps=1, update="reinforce", advantage="reward-to-go")
    plan["model"] = {"build": "gpt2", "layers": 1, "heads": 1, "width": 8, "context": 16}
    with pytest.raises(ExperimentError, match="its KL is infinite"):
        hookline.run(plan, out=tmp_path / "kl")
    plan["phases"][0]["evaluate"][0]["reward"] = [FIGURES[2]]
    with pytest.raises(NumbersError, match="nothing was learned"):  # no answer is a walk yet
        hookline.run(plan, out=tmp_path / "gap")
    (before, _) = evaluations_of(hookline.Run.read(tmp_path / "gap"), "gap")
    assert 0.9 < before <= 1.0


def evaluations_of(run, figure):
    return [row["metrics"][f"eval/{figure}"] for row in run.rows() if f"eval/{figure}" in row["metrics"]]


def test_the_first_word_is_not_seen_before_it_is_said():
    config = TableConfig(vocab_size=5, n_positions=4, sees=["first"])
    look, ids = Situations(config), torch.tensor([[1, 3, 4]])
    whole = look.index(ids, torch.arange(3)[None])[0].tolist()
    assert whole == [1, 3, 3]
    assert [int(look.index(ids[:, :n], torch.arange(n)[None])[0, -1]) for n in (1, 2, 3)] == whole


def test_a_table_that_sees_too_little_is_refused(tmp_path):
    with pytest.raises(ExperimentError, match=r"sees \['position'\] cannot distinguish situations of builtin:walks"):
        hookline.run(experiment(["position"]), out=tmp_path / "run")


def test_words_without_a_place_in_the_vocabulary_are_refused(tmp_path):
    plan = experiment(["position", "last"])
    plan["tokenizer"] = {"train": "words", "on": "builtin:stdlib-docs", "vocabulary": 300}
    with pytest.raises(hookline.DataError, match="different words, more than the vocabulary of 300"):
        hookline.run(plan, out=tmp_path / "run")


def test_the_run_says_which_data_it_used(tmp_path):
    run = hookline.run(experiment(["position", "last"], steps=1), out=tmp_path / "run")
    assert "builtin:walks" in json.loads((run.directory / "run.json").read_text())["data"]


def test_a_task_takes_options_in_its_name(tmp_path):
    plan = json.loads(json.dumps(experiment(["position", "last"], steps=1)).replace("builtin:walks/walks", "builtin:walks/walks?seed=1002")
                      .replace('"builtin:walks"', '"builtin:walks?seed=1002"'))  # fmt: skip
    first = evaluations(hookline.run(plan, out=tmp_path / "run"))[0]
    assert first["eval/return"] == pytest.approx(0.7852, abs=5e-5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("builtin:walks?sede=2", "'walks' has no option 'sede'; did you mean 'seed'?"),
        ("builtin:walks?seed=many", "seed is many: Input should be a valid integer"),
        ("builtin:walks/nowhere?seed=2", "no split 'nowhere'"),
    ],
)
def test_a_wrong_option_of_a_task_is_named(tmp_path, name, says):
    plan = experiment(["position", "last"], steps=1)
    plan["phases"][0]["rollout"]["prompts"] = name
    with pytest.raises(hookline.HooklineError, match=says.replace("?", r"\?")):
        hookline.run(plan, out=tmp_path / "run")
