"""Open a phase of an experiment, to step it and inspect it: for tests of components and for measurements."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline.loop.api import open_phase as open_phase_of
from hookline.loop.api import open_run, phase_named, plan
from hookline.loop.loop import PhaseLoop
from hookline.storage.paths import expanded
from hookline.world.signals import Stopping

__all__ = ["open_phase"]


@contextlib.contextmanager
def open_phase(
    experiment: str | Path | Mapping[str, Any],
    folder: str | Path | None = None,
    *,
    phase: str | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
) -> Iterator[PhaseLoop]:
    """A phase of an experiment, at its start or at its newest checkpoint: `loop.step()`, `loop.ctx`, `loop.hooks`, …

    folder: the run's directory; by default a temporary directory, which is removed at the end. phase: the name of the
    phase, by default the last; earlier phases are run to their end first. When the `with` block ends, components are
    closed and the directory's lock is released. Raises the same errors as `hookline.run`.
    """
    planned = plan(experiment, overrides, plugins)
    chosen = phase_named(planned, phase)
    with contextlib.ExitStack() as stack:
        where = (
            expanded(Path(folder))
            if folder is not None
            else Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        )
        run = open_run(where, planned)
        stack.callback(run.close)
        for earlier in planned.phases[: planned.phases.index(chosen)]:
            if run.finished(earlier.spec.name) is None:
                with open_phase_of(run, planned, earlier.spec.name) as before:
                    before.run(Stopping())
        yield stack.enter_context(open_phase_of(run, planned, chosen.spec.name))
