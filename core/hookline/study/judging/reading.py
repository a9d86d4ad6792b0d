"""Events from a file of rows, or from what a run's phases collected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline.contract.feedback import Event
from hookline.data.judged import EVENTS, as_event
from hookline.data.names import options_of
from hookline.errors import DataError
from hookline.files.writing import written
from hookline.runs.run import Run
from hookline.storage.paths import expanded
from hookline.study.dataset import rows
from hookline.study.speak import run_of

__all__ = ["read_events", "remove_annotator"]


def read_events(source: Run | str | Path) -> list[Event]:
    """All events of a file, of a run's finished phases, or of RUN/phases/NAME, in their order.

    A file holds events (JSON lines, Parquet …), what another tool exported (docs/feedback.md lists the formats), or rows with
    `chosen` and `rejected`. Raises DataError that names the row for one that judges nothing, and for a run that collected
    nothing.
    """
    path = source.directory if isinstance(source, Run) else expanded(Path(source))
    run, phase = run_of(Path(path))
    if run is None:
        name, options = options_of(str(source))
        return [_event(record, where) for where, record in rows(name, **{"shape": EVENTS, **options}).placed()]
    opened = Run.read(run)
    names = [phase] if phase else [str(each["name"]) for each in opened.experiment["phases"]]
    collected = [name for name in names if opened.has_collected(name)]
    if not collected:
        raise DataError(
            f"{path} has no phase that collected judgements", "name a run with `feedback`, or a file of events"
        )
    return [
        _event(record, f"phase '{name}' row {i}")
        for name in collected
        for i, record in enumerate(opened.collected(name).records, 1)
    ]


def remove_annotator(file: str | Path, annotator: str) -> int:
    """Remove an annotator's rows from a file of events, and return their number; a file with no others is deleted.

    Raises DataError for a file whose rows are not events. Nothing is written if the annotator is not in the file.
    """
    path = expanded(Path(file))
    events = [(_event(record, where).annotator, record) for where, record in rows(str(path)).placed()]
    kept = [record for name, record in events if name != annotator]
    if not kept:
        path.unlink()
    elif len(kept) < len(events):
        written(path, kept, overwrite=True)
    return len(events) - len(kept)


def _event(record: Mapping[str, Any], where: str) -> Event:
    event = as_event(record, where)
    if event is None:
        raise DataError(
            f"{where}: this row is not a judgement of somebody (it has {', '.join(map(str, list(record)[:6]))})",
            "give rows with `prompt`, `candidates`, `answer` and `annotator`: see hookline.Event",
        )
    return event
