"""`hookline.testing.open_phase`: a phase of any experiment, ready to step, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookline import CheckpointError, ExperimentError, Run
from hookline.loop.api import open_finished
from hookline.storage import folders
from hookline.testing import open_phase

Tiny = Callable[..., dict[str, Any]]


def two(tiny: Tiny) -> dict[str, Any]:
    """Two phases, the second from the first."""
    experiment = tiny()
    [first] = experiment["phases"]
    return {**experiment, "phases": [{**first, "name": "a", "steps": 1}, {**first, "name": "b"}]}


def test_a_temporary_run_is_gone_in_the_end(tiny: Tiny) -> None:
    with open_phase(tiny()) as loop:
        directory = loop.session.run.directory
        loop.step()
        assert directory.exists()
    assert not directory.exists()


def test_earlier_phases_are_run_and_a_later_opening_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    with open_phase(two(tiny), tmp_path / "run") as loop:
        assert (loop.spec.name, loop.phase.scope.step) == ("b", 0)
        assert loop.session.run.finished("a") is not None
        loop.step()
        loop.phase.scope.step += 1
        loop.checkpoint.save()
    with open_phase(two(tiny), tmp_path / "run") as loop:
        assert loop.phase.scope.step == 1


def test_a_finished_phase_opens_without_the_lock(tiny: Tiny, tmp_path: Path) -> None:
    with open_phase(two(tiny), tmp_path / "run") as loop:
        ended = loop.session.run.finished("a")
        with open_finished(Run.read(tmp_path / "run")) as looked_at:
            assert looked_at.spec.name == "a"
            assert ended is not None
            assert looked_at.phase.roles["policy"].hash() == ended["weights"]
        with (
            pytest.raises(CheckpointError, match="has not finished phase 'b'"),
            open_finished(Run.read(tmp_path / "run"), "b"),
        ):
            raise AssertionError


def test_an_unknown_phase_is_one_sentence(tiny: Tiny, tmp_path: Path) -> None:
    with (
        pytest.raises(ExperimentError, match="there is no phase 'rk' → phases: rl"),
        open_phase(tiny(), phase="rk"),
    ):
        raise AssertionError


def test_a_checkpoint_of_a_release_without_engines_is_gone_on_with(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_phase(two(tiny), tmp_path / "run") as loop:
        loop.step()
        loop.phase.scope.step += 1
        loop.checkpoint.save()
    [folder] = (tmp_path / "run" / "checkpoints").iterdir()
    manifest = folders.verify(folder)
    manifest["files"] = {name: about for name, about in manifest["files"].items() if "engine" not in name}
    assert len(manifest["files"]) < len(list(folder.iterdir())) - 1, "the engine's state was there"
    (folder / "component-engine-local.json").unlink()
    (folder / "manifest.json").write_text(json.dumps({**manifest, "sha256": folders._own_hash(manifest)}))
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    del about["device"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    capsys.readouterr()
    with open_phase(two(tiny), tmp_path / "run") as loop:
        assert loop.phase.scope.step == 1
    assert "not bit-identical" not in capsys.readouterr().err
