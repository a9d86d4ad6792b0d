"""`epochs` of a phase: how many steps they are, what is refused, and that a run keeps the number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.loop.api import open_finished


def experiment(folder: Path, rollout: dict[str, Any], method: str = "sft", **phase: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"name": "passes", "trackers": []}
    made["tokenizer"] = {"train": "bpe", "on": str(folder / "rows.jsonl"), "vocabulary": 300}
    made["model"] = {"build": "gpt2", "layers": 1, "width": 16, "heads": 2, "context": 64}
    return made | {"phases": [{"name": "one", "rollout": rollout, "update": {"use": method}, **phase}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [{"prompt": f"a{i}", "completion": "b", "text": "a b c " * 10, "chosen": "b", "rejected": "c"} for i in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize(
    ("epochs", "rows", "steps"), [(1, 5, 2), (1, 4, 3), (2, 4, 5), (0.1, 4, 1), (0.3, 1, 3), (3, 100, 1), (2.5, 2, 13)]
)
def test_epochs_are_steps_enough_for_every_row(epochs: float, rows: int, steps: int, folder: Path) -> None:
    plan = hookline.explain(experiment(folder, {"use": "dataset", "path": str(folder / "rows.jsonl"), "rows": rows}, epochs=epochs))
    assert plan.phases[0].spec.steps == steps == plan.experiment.resolved()["phases"][0]["steps"]
    assert plan.phases[0].length == f"epochs {epochs:g} × 10 rows / {rows} per step = {steps} steps"


def test_prompts_preferences_and_parts_of_data_have_passes(folder: Path) -> None:
    file = str(folder / "rows.jsonl")
    drawn = {"use": "generate", "prompts": file, "rows": 2, "samples_per_prompt": 4, "max_new_tokens": 4}
    of = {"reward": ["length"], "advantage": "group-relative"}
    assert hookline.explain(experiment(folder, drawn, "grpo", epochs=1, **of)).phases[0].spec.steps == 5
    pairs = {"use": "preferences", "path": file, "rows": 5}
    assert hookline.explain(experiment(folder, pairs, "dpo", epochs=2)).phases[0].spec.steps == 4
    held = experiment(folder, {"use": "dataset", "path": "mine", "rows": 1}, epochs=1)
    held["data"] = {"mine": {"path": file, "heldout": 0.3}}
    assert hookline.explain(held).phases[0].spec.steps == len(hookline.rows(file, heldout=0.3))


def test_blocks_of_text_are_counted_as_the_run_cuts_them(folder: Path) -> None:
    made = experiment(folder, {"use": "text", "path": str(folder / "rows.jsonl"), "rows": 2, "length": 16}, "causal-lm", epochs=1)
    steps = hookline.explain(made).phases[0].spec.steps
    run = hookline.run(made, out=folder / "run")
    with open_finished(run) as loop:
        rollout: Any = loop.planned.rollout.component
        assert steps == -(-rollout.blocks // 2) > 1


def test_a_pass_uses_every_row_once(folder: Path) -> None:
    made = experiment(folder, {"use": "dataset", "path": str(folder / "rows.jsonl"), "rows": 5}, epochs=1)
    run = hookline.run(made, ["phases.one.completions={every: 1, rows: 5}"], out=folder / "run")
    assert sorted(answer["prompt"] for answer in run.completions()) == sorted(f"a{i}" for i in range(10))


def test_a_pass_has_the_judgements_that_are_read(folder: Path) -> None:
    """Of ten thumbs and two comments, those of `bob`, the superseded one and other kinds are not rows of a pass."""

    def said(i: int, who: str, answer: dict[str, Any], **more: Any) -> str:
        return json.dumps({"prompt": f"q{i}", "candidates": [{"text": "a"}], "answer": answer, "annotator": who, "id": f"e{i}", **more})

    up = {"kind": "thumb", "up": True}
    lines = [said(i, "ann" if i < 6 else "bob", up) for i in range(9)]
    lines += [said(9, "ann", up, supersedes="e0"), *(said(i, "ann", {"kind": "comment", "text": "hm"}) for i in (10, 11))]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    for options, steps in (({}, 9), ({"without": ["bob"]}, 6), ({"kinds": ["thumb", "rating"], "without": ["ann"]}, 3)):
        rollout = {"use": "judgements", "path": str(folder / "events.jsonl"), "rows": 1, **options}
        made = experiment(folder, rollout, "latent-reward", epochs=1, model={"head": "reward"})
        assert hookline.explain(made).phases[0].spec.steps == steps


def test_a_run_keeps_its_number_and_more_epochs_are_more_steps(folder: Path) -> None:
    made = experiment(folder, {"use": "dataset", "path": str(folder / "rows.jsonl"), "rows": 5}, epochs=1)
    run = hookline.run(made, out=folder / "run")
    assert [run.experiment["phases"][0][key] for key in ("steps", "epochs")] == [2, 1.0]
    assert hookline.run(made, out=folder / "run").rows() == run.rows()
    assert hookline.reproduce(run, folder / "again")["equal"]
    assert [row["step"] for row in hookline.run(made, ["phases.one.epochs=3"], out=folder / "run").rows()] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(hookline.HooklineError, match="has taken 6 steps, so it cannot have 2"):
        hookline.run(made, out=folder / "run")


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        ({}, "epochs is missing, and so is `steps`"),
        ({"epochs": 1, "steps": 7}, "either `steps` or `epochs`, but this has steps: 7 and epochs 1 × 10 rows / 5 per step = 2 steps"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": float("inf")}, "epochs is inf"),
        ({"epochs": True}, "must be a number, not true"),
    ],
)
def test_a_length_that_says_nothing_or_two_things_is_refused(phase: dict[str, Any], said: str, folder: Path) -> None:
    with pytest.raises(hookline.HooklineError) as told:
        hookline.explain(experiment(folder, {"use": "dataset", "path": str(folder / "rows.jsonl"), "rows": 5}, **phase))
    assert said in str(told.value)


def test_a_rollout_without_passes_says_so(folder: Path) -> None:
    made = experiment(folder, {"use": "preferences", "from": "ask", "rows": 5}, "dpo", epochs=1)
    with pytest.raises(hookline.HooklineError, match="epochs: the rollout 'preferences' does not read data in passes"):
        hookline.explain(made)
    with pytest.raises(hookline.HooklineError, match="no data file"):
        hookline.explain(experiment(folder, {"use": "dataset", "path": str(folder / "gone.jsonl")}, epochs=1))


def test_a_component_of_ones_own_says_how_long_a_pass_is(folder: Path) -> None:
    (folder / "own.py").write_text(
        "from hookline_plugins.rollouts.dataset import Dataset\n"
        "class Own(Dataset):\n"
        "    name = 'own'\n"
        "    def one_pass(self, ctx, records):\n"
        "        return 3 * len(records), 10\n"
    )
    made = experiment(folder, {"use": "own", "path": str(folder / "rows.jsonl")}, epochs=2)
    assert hookline.explain(made, plugins=[str(folder / "own.py")]).phases[0].spec.steps == 6
