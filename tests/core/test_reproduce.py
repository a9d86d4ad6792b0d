"""A run made again: equal bit for bit, or one sentence about what differs, in its surroundings or in its results."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import CheckpointError, DataError, ExperimentError
from hookline.cli import main

JUDGE = """
import os
from hookline import Component, hookimpl

class Grader(Component):
    name = "grader"

    @hookimpl
    async def hookline_reward(self, ctx, rollout):
        async def ask(row):  # nobody can draw these again
            with open(os.environ["HOOKLINE_TEST_ASKED"], "a") as asked:
                asked.write("x")
            return int.from_bytes(os.urandom(2)) / 65536
        return await ctx.each(rollout, ask)
"""
Lab = Callable[..., Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with a run in it: SFT, then PPO with a critic towards a judge whose answers are chance; and its experiment."""
    folder = tmp_path_factory.mktemp("made")
    letters = "abcdefghijkl"
    rows = [{"prompt": f"{a} {b}", "completion": f"{b} {a}."} for a, b in zip(letters, letters[5:] + letters)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "grader.py").write_text(JUDGE)
    data = str(folder / "prompts.jsonl")
    drawn = {"use": "generate", "prompts": data, "rows": 4, "samples_per_prompt": 2, "max_new_tokens": 5}
    experiment = {
        "name": "again",
        "seed": 3,
        "threads": 1,
        "tokenizer": {"train": "bpe", "on": data, "vocabulary": 270},
        "model": {"build": "gpt2", "layers": 1, "width": 16, "context": 32},
        "phases": [
            {"name": "sft", "rollout": {"use": "dataset", "path": data, "rows": 4}, "update": {"use": "sft", "lr": 1e-2},
             "steps": 2},
            {"name": "rl", "rollout": drawn, "reward": "grader", "advantage": "gae",
             "update": {"use": "ppo", "lr": 1e-2, "epochs": 2, "minibatches": 2}, "steps": 3,
             "evaluate": [{"every": 2, "rows": 8, "reward": ["grader", "length"]}]},
        ],
        "trackers": [],
        "plugins": [str(folder / "grader.py")],
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOKLINE_TEST_ASKED", str(folder / "asked"))
        hookline.run(experiment, out=folder / "run")
    return folder, experiment


@pytest.fixture
def run(made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, to be tampered with; whoever is asked a question leaves a mark in `asked` beside it."""
    monkeypatch.setenv("HOOKLINE_TEST_ASKED", str(tmp_path / "asked"))
    shutil.copytree(made[0] / "run", tmp_path / "run")
    return tmp_path / "run"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_run_made_again_is_equal_and_asks_nobody(run: Path, made: tuple[Path, dict[str, Any]]) -> None:
    (made[0] / "grader.py").rename(made[0] / "gone.py")  # the run's own copy is used
    said: list[str] = []
    try:
        found = hookline.reproduce(run, say=said.append)
    finally:
        (made[0] / "gone.py").rename(made[0] / "grader.py")
    assert found == {
        "run": str(run), "out": f"{run}-reproduced", "equal": True, "rows": 6, "evaluations": 3, "phases": ["sft", "rl"],
        "replayed": 48, "asked": 0, "changes": [], "differences": [],
    }  # fmt: skip
    assert said == [
        f"replayed: 48 recorded answers, from {run}; none is asked for again",
        "equal: 6 rows, 3 evaluations, weights of 2 phases",
    ]
    assert not (run.parent / "asked").exists()
    again = hookline.Run.read(found["out"])
    assert again.id != hookline.Run.read(run).id
    assert again.rows()[-1]["timings"] != hookline.Run.read(run).rows()[-1]["timings"]
    with pytest.raises(CheckpointError, match="run-reproduced holds a finished reproduction"):
        hookline.reproduce(run)


def test_without_the_journal_the_answers_differ_and_the_first_figure_is_named(run: Path, capsys) -> None:
    (run / "journal.jsonl").unlink()
    assert main(["reproduce", str(run), "--json"]) == 6
    found = json.loads(capsys.readouterr().out)
    assert (found["equal"], found["replayed"], found["asked"]) == (False, 0, 48)
    rows, evaluations, weights = found["differences"]
    assert rows.startswith("4 of 6 rows differ; first row 2 (phase 'rl', step 0): eval/grader was 0.")
    assert evaluations.startswith(
        "3 of 3 evaluations differ; first evaluation 'heldout' after step 0 of phase 'rl', sample 0: grader was 0."
    )
    assert weights.startswith("phase 'rl' ends with different contents of model/model.safetensors, roles/critic/")


@pytest.mark.parametrize(
    ("file", "change", "sentence"),
    [
        ("experiment.json", lambda e: e.update(seed=4), "experiment.json has changed since the run began"),
        ("run.json", lambda about: about.update(threads=2), "the number of CPU threads was 2 and is now 1"),
        ("run.json", lambda about: about.update(kernels="native (cpu z80)"), "kernels was native (cpu z80) and is "),
        ("run.json", lambda about: about.update(torch="1.0"), "torch was 1.0 and is "),
        ("run.json", lambda about: about.update(arithmetic="abacus"), "the matrix library was abacus and is "),
        (
            "run.json",
            lambda about: about.update(resumed_with={"threads": "threads: 1 then, 2 now"}),
            "the run itself was resumed after something had changed (threads: 1 then, 2 now)",
        ),
    ],
    ids=["seed", "threads", "kernels", "torch", "arithmetic", "resumed"],
)
def test_what_rules_out_equal_bits_is_refused(run: Path, capsys, file: str, change: Any, sentence: str) -> None:
    edit(run / file, change)
    assert main(["reproduce", str(run)]) == 4
    said = capsys.readouterr().err
    assert said.startswith(f"CheckpointError: {run} cannot be repeated bit for bit: {sentence}")
    assert said.endswith("→ restore what has changed, or run and compare anyway with --anyway\n")
    assert not Path(f"{run}-reproduced").exists()


def test_another_seed_made_anyway_names_the_first_figure_that_differs(run: Path, capsys) -> None:
    edit(run / "experiment.json", lambda e: e.update(seed=4))
    assert main(["reproduce", str(run), "--anyway"]) == 6
    out = capsys.readouterr().out
    assert "changed: experiment.json has changed since the run began; equal results cannot be expected\n" in out
    assert re.search(r"^different: \d of 6 rows differ; first row 0 \(phase 'sft', step 1\): loss was \d", out, re.M)
    assert "different: phase 'sft' ends with different contents of model/model.safetensors\n" in out


def test_what_may_change_a_result_is_said_and_then_measured(run: Path, capsys) -> None:
    def older(about: dict[str, Any]) -> None:
        about.update(python="3.0", sources="f00d", processor="Zilog Z80")
        next(p for p in about["plugins"] if p["name"] == "gae")["sha256"] = "f00d"

    edit(run / "run.json", older)
    assert main(["reproduce", str(run), "--until", "sft", "--out", str(run.parent / "other")]) == 0
    changed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("changed: ")]
    assert [line.split(" was ")[0] for line in changed] == [
        "changed: python", "changed: processor",
        "changed: Hookline's own code has changed since the run; this may change results",
    ]  # fmt: skip


def test_an_edited_copy_of_a_loose_plugin_is_refused(run: Path) -> None:
    with (run / "plugins/grader.py").open("a") as file:
        file.write("# another\n")
    with pytest.raises(CheckpointError, match="bit for bit: plugin grader has changed since the run"):
        hookline.reproduce(run)


def test_changed_data_is_refused_and_data_that_is_gone_is_named(run: Path, made: tuple[Path, dict[str, Any]]) -> None:
    data = made[0] / "prompts.jsonl"
    text = data.read_text()
    try:
        data.write_text(text + text[: text.index("\n") + 1])
        with pytest.raises(CheckpointError, match=r"prompts.jsonl is not the data .* 12 rows then, 13 now"):
            hookline.reproduce(run)
        data.unlink()
        with pytest.raises(DataError, match=r"no data file .*prompts.jsonl") as caught:
            hookline.reproduce(run, anyway=True)
        assert "a relative path is looked up from the folder you are in" in caught.value.hint
    finally:
        data.write_text(text)


def test_of_an_unfinished_run_the_phases_that_ended_are_made_again(run: Path) -> None:
    shutil.rmtree(run / "phases/rl")
    said: list[str] = []
    found = hookline.reproduce(run, say=said.append)
    assert (
        said[0]
        == f"{run} is unfinished: it stopped after step 3 of phase 'rl'; the phases that ended are repeated: sft"
    )
    assert said[-1] == "equal: 2 rows, 0 evaluations, weights of 1 phase"
    assert found["phases"] == ["sft"]
    with pytest.raises(CheckpointError, match="is unfinished: it stopped after step 3 of phase 'rl'"):
        hookline.reproduce(run, until="rl", out=run.parent / "other")
    shutil.rmtree(run / "phases")
    with pytest.raises(CheckpointError, match="is unfinished: it stopped after step 2 of phase 'sft'"):
        hookline.reproduce(run, out=run.parent / "other")


def test_an_interrupted_reproduction_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline.loop.checkpoint import Checkpoint

    finish = Checkpoint.finish

    def interrupted(self: Checkpoint, *end: Any) -> None:
        if self.name == "rl":
            raise KeyboardInterrupt
        finish(self, *end)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "finish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hookline.reproduce(run)
    found = hookline.reproduce(run)
    assert (found["equal"], found["asked"]) == (True, 0)
    assert not (run.parent / "asked").exists()


def test_a_directory_of_another_run_is_not_touched(run: Path, made: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(CheckpointError, match="is the run itself"):
        hookline.reproduce(run, out=run)
    other = run.parent / "other"
    shutil.copytree(run, other)
    shutil.rmtree(other / "phases/rl")
    rows = (other / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="other holds a run that is not a reproduction of"):
        hookline.reproduce(run, out=other)
    assert (other / "metrics.jsonl").read_bytes() == rows
    with pytest.raises(ExperimentError, match="there is no phase 'rll'; did you mean 'rl'"):
        hookline.reproduce(run, until="rll", out=other)
    with pytest.raises(CheckpointError, match="is not a run directory"):
        hookline.reproduce(run.parent)
