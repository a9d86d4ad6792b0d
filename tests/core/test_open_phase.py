"""`hookline.testing.open_phase`: a phase of any experiment, ready to step, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hookline import CheckpointError, ExperimentError, Run
from hookline.loop.api import open_finished
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
