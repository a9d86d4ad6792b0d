"""A run that is given more steps goes on, finished or stopped; what cannot go on is refused before anything changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import CheckpointError

Tiny = Callable[..., dict[str, Any]]


def steps_of(run: hookline.Run, phase: str = "rl") -> list[int]:
    return [row["step"] for row in run.rows() if row["phase"] == phase]


def losses(run: hookline.Run) -> list[float]:
    return [row["metrics"]["loss"] for row in run.rows()]


def weights(run: hookline.Run, phase: str = "rl") -> str:
    return str(json.loads((run.phase_folder(phase) / "manifest.json").read_text())["weights"])


@pytest.mark.parametrize("adamw", [True, False])
def test_a_finished_run_goes_on_as_if_it_had_had_the_steps_from_the_beginning(
    tiny: Tiny, tmp_path: Path, adamw: bool
) -> None:
    update = {"use": "vanilla", "lr": 1e-2, **({} if adamw else {"optimizer": "sgd"})}
    out = tmp_path / "run"
    hookline.run(tiny(steps=3, update=update), out=out)
    short = json.loads((out / "phases/rl/manifest.json").read_text())["weights"]
    run = hookline.run(tiny(steps=6, update=update), out=out)
    straight = hookline.run(tiny(steps=6, update=update), out=tmp_path / "straight")
    assert steps_of(run) == [1, 2, 3, 4, 5, 6]
    assert losses(run) == losses(straight)
    assert weights(run) == weights(straight) != short
    assert json.loads((out / "experiment.json").read_text())["phases"][0]["steps"] == 6
    assert any("phase 'rl' now has 6 steps instead of 3, of which 3 are done" in text for text in run.notices)
    again = hookline.run(tiny(steps=6, update=update), out=out)  # nothing is left to do
    assert steps_of(again) == [1, 2, 3, 4, 5, 6]
    assert not [text for text in again.notices if "now has" in text]
    with pytest.raises(CheckpointError, match="was given 6 steps instead of 3 after 3"):
        hookline.reproduce(out, out=tmp_path / "again")


def test_the_learning_rate_follows_the_new_length(tiny: Tiny, tmp_path: Path) -> None:
    update = {"use": "vanilla", "lr": 1e-2, "schedule": "linear"}
    hookline.run(tiny(steps=2, update=update), out=tmp_path / "run")
    run = hookline.run(tiny(steps=4, update=update), out=tmp_path / "run")
    assert [row["metrics"]["learning_rate"] for row in run.rows()] == pytest.approx([1e-2, 5e-3, 5e-3, 2.5e-3])


STOP = """
class Stop(Component):
    name = "stop"

    @hookimpl
    def hookline_row(self, row):
        if row["step"] == 3:
            raise KeyboardInterrupt
"""


def test_a_stopped_run_may_get_more_or_fewer_but_not_fewer_than_it_has_taken(
    tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]
) -> None:
    stop = plugin(STOP, "stop")
    with pytest.raises(KeyboardInterrupt):
        hookline.run(
            {**tiny(steps=5, save={"every": 1}), "trackers": ["stop"]}, out=tmp_path / "run", plugins=[stop]
        )
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*.json*")}
    for steps in (2, 3):
        with pytest.raises(CheckpointError, match=f"has taken 3 steps, so it cannot have {steps}"):
            hookline.run(tiny(steps=steps, save={"every": 1}), out=tmp_path / "run")
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*.json*")} == before
    assert steps_of(hookline.run(tiny(steps=4, save={"every": 1}), out=tmp_path / "run")) == [1, 2, 3, 4]
    assert steps_of(hookline.run(tiny(steps=7, save={"every": 1}), out=tmp_path / "run"))[-1] == 7


def test_a_phase_from_whose_end_another_has_begun_and_one_without_its_optimiser_are_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    def two(first: int, second: int, **save: Any) -> dict[str, Any]:
        spec = tiny(steps=first, save=save)
        return {**spec, "phases": [*spec["phases"], {**spec["phases"][0], "name": "more", "steps": second}]}

    hookline.run(two(2, 2), out=tmp_path / "run")
    with pytest.raises(CheckpointError, match="'rl' cannot have 3 steps, because phase 'more' has begun from its end"):
        hookline.run(two(3, 2), out=tmp_path / "run")
    run = hookline.run(two(2, 3), out=tmp_path / "run")
    assert steps_of(run, "more") == [1, 2, 3]
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == ["more-00000003"]
    hookline.run(two(2, 2, end=False), out=tmp_path / "lean")
    assert not list((tmp_path / "lean").glob("checkpoints/*"))
    with pytest.raises(CheckpointError, match="the state of its optimiser was not kept"):
        hookline.run(two(2, 3, end=False), out=tmp_path / "lean")


def test_a_kill_between_the_two_files_loses_nothing(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "run"
    hookline.run(tiny(steps=2), out=out)
    old = {name: (out / name).read_bytes() for name in ("experiment.json",)}
    shutil.copytree(out, tmp_path / "copy")
    hookline.run(tiny(steps=4), out=tmp_path / "copy")
    noted = json.loads((tmp_path / "copy/run.json").read_text())
    (out / "run.json").write_text(json.dumps(noted))  # as after a kill: noted, but experiment.json is still the old one
    assert (out / "experiment.json").read_bytes() == old["experiment.json"]
    same = hookline.run(tiny(steps=2), out=out)
    assert steps_of(same) == [1, 2]
    assert same.about["lengthened"] == []
    assert steps_of(hookline.run(tiny(steps=4), out=out)) == [1, 2, 3, 4]


def test_a_longer_run_that_is_cut_between_two_saves_is_equal_to_one_that_was_not(
    tiny: Tiny, tmp_path: Path, plugin: Callable[..., str]
) -> None:
    stop = plugin(STOP, "stop")
    for name in ("whole", "cut"):
        hookline.run(tiny(steps=2), out=tmp_path / name)
    whole = hookline.run(tiny(steps=5), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        hookline.run({**tiny(steps=5), "trackers": ["stop"]}, out=tmp_path / "cut", plugins=[stop])
    assert hookline.export(tmp_path / "cut", tmp_path / "model").is_dir(), "the old end can still be used"
    cut = hookline.run(tiny(steps=5), out=tmp_path / "cut")
    assert losses(cut) == losses(whole)
    assert weights(cut) == weights(whole)
    assert cut.completions() == whole.completions()
