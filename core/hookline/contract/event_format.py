"""An event format reads what people and tools have judged: rows of another format become events, and events such rows."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, overload

from hookline.batch.stages import Record
from hookline.contract.component import ConfigT
from hookline.contract.feedback import Event
from hookline.contract.format import Format
from hookline.errors import DataError, a

__all__ = ["EventFormat"]

Placed = tuple[int, list[Record]]
"""The index of the first of some rows, and these rows."""


class EventFormat(Format[ConfigT]):
    """Reads rows of JSON, CSV, Parquet … as events (`hookline.Event`), and writes events as such rows: kind `format`.

    A file is read so if its name says it, `argilla:export.json`, or if its columns are those of one such format and of
    nothing else that Hookline reads. Whatever a row holds beside the judgement goes into `record` (what belongs to the
    prompt) and `extra` (what belongs to the answer), so that it is written again.
    """

    columns: ClassVar[Mapping[str, type | tuple[type, ...]]] = {}
    """The columns that every row has, with the type of their values; rows are recognised by them."""
    holds: ClassVar[Collection[str]] = ()
    """The kinds of answers that can be written, e.g. `{"comparison", "ranking"}`; empty: the format only reads."""
    container: Callable[[Path], Format]
    """Set by Hookline: the format of a file by its ending."""

    def fits(self, row: Record) -> bool:
        """Whether a row has this format."""
        return all(isinstance(row.get(name), kind) for name, kind in self.columns.items())

    def together(self, row: Record) -> Any:
        """Rows in succession for which this is equal are read together; None: each row is read by itself."""
        return None

    @abstractmethod
    def events(self, rows: Sequence[Record]) -> Iterable[Mapping[str, Any]]:
        """The fields of `hookline.Event` of each judgement in a row, or in rows that belong together.

        `KeyError`, `TypeError`, `ValueError` and `AttributeError` become a DataError that names file and row.
        """
        raise NotImplementedError

    def key(self, event: Event) -> Any:
        """Events for which this is equal are written together, e.g. those of one item; None: each is written by itself."""
        return None

    def rows(self, events: Sequence[Event]) -> Iterable[Record]:
        """The rows for some events, whose `extra` is empty where another format read them. Raise ValueError with a sentence
        about what the format cannot hold."""
        raise ValueError("the format only reads")

    @staticmethod
    def apart(conversations: Sequence[Sequence[Any]]) -> tuple[list[Any], list[list[Any]]]:
        """The messages with which all conversations begin, of each at most all but the last, and the rest of each."""
        first, most = conversations[0], max(min(map(len, conversations)) - 1, 0)
        same = (at for at in range(most) if any(one[at] != first[at] for one in conversations))
        count = next(same, most)
        return list(first[:count]), [list(one[count:]) for one in conversations]

    # -- what a Format does

    def read(self, path: Path) -> Iterator[Record]:
        """Yield the events of a file, as JSON. Raises DataError that names file and row."""
        for place in self._placed(self.container(path).read(path)):
            yield from self._events(place, path)

    def open(self, path: Path) -> Sequence[Record]:
        """The events of a file; of a file larger than memory, its rows are read again when an event is accessed."""
        rows = self.container(path).open(path)
        return tuple(self.read(path)) if isinstance(rows, tuple) else _Events(self, rows, path)

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        """Write events as rows of this format and return the number of events. Raises DataError for what it cannot hold."""
        events = [Event.read(_without_none(row), f"{path} event {number}") for number, row in enumerate(rows, 1)]
        self.container(path).write(path, list(self._written(path, events)))
        return len(events)

    def silent(self, path: Path) -> int:
        """How many rows of a file that was read hold no judgement, e.g. tasks that nobody has annotated."""
        placed = self._placed(self.container(path).read(path))
        return sum(len(rows) for _, rows in placed if next(iter(self.events(rows)), None) is None)

    def _placed(self, rows: Iterable[Record]) -> Iterator[Placed]:
        waiting: list[Record] = []
        start, known = 0, None
        for index, row in enumerate(rows):
            own = self.together(row) if self.fits(row) else None
            if waiting and (own is None or own != known):
                yield start, waiting
                waiting = []
            start, known = (start if waiting else index), own
            waiting.append(row)
        if waiting:
            yield start, waiting

    def _events(self, place: Placed, path: Path) -> Iterator[Record]:
        start, rows = place
        where = f"{path} row {start + 1}"
        lost = next((name for name, kind in self.columns.items() if not isinstance(rows[0].get(name), kind)), None)
        if lost is not None or not self.fits(rows[0]):
            what = "is missing" if rows[0].get(lost or "") is None else f"is {a(type(rows[0][lost or '']).__name__)}"
            said = f"'{lost}' {what}, unlike in rows of the format '{self.instance}'"
            raise DataError(
                f"{where}: {said if lost else f'the row does not have the format {self.instance!r}'}",
                f"the row has: {', '.join(rows[0]) or 'nothing'}",
            )
        try:
            for values in self.events(rows):
                yield Event.read({"source": self.instance, **values}, where).written()
        except (LookupError, TypeError, ValueError, AttributeError) as err:
            why = f"there is no {err}" if isinstance(err, LookupError) else str(err)
            raise DataError(
                f"{where} does not have the format '{self.instance}': {why}", "correct the row, or name another format"
            ) from None

    def _written(self, path: Path, events: Sequence[Event]) -> Iterator[Record]:
        groups: dict[Any, list[tuple[int, Event]]] = {}
        for number, event in enumerate(events, 1):
            key = self.key(event)
            groups.setdefault((number, key) if key is None else key, []).append((number, event))
        for numbered in groups.values():
            try:
                for _, event in numbered:
                    self._holds(event)
                yield from self.rows([self._own(event) for _, event in numbered])
            except ValueError as err:
                first, event = numbered[0]
                which = f"event {first}" if len(numbered) == 1 else f"item '{event.item}'"
                raise DataError(
                    f"{path}: {which} cannot be written as '{self.instance}': {err}",
                    "leave it out, or write another format: see docs/feedback.md",
                ) from None

    def _holds(self, event: Event) -> None:
        if event.answer.kind not in self.holds:
            kinds = ", ".join(sorted(self.holds))
            holds = f"the format holds answers of the kind {kinds}" if kinds else "the format only reads"
            raise ValueError(f"{holds}, and this is a {event.answer.kind}")

    def _own(self, event: Event) -> Event:
        """An event without the `extra` of another format."""
        return event if event.source == self.instance else event.model_copy(update={"extra": {}})


def _without_none(row: Record) -> Record:
    return {name: value for name, value in row.items() if value is not None}


class _Events(Sequence[Record]):
    """The events of a file that is too large for memory: rows are read again when an event is accessed."""

    def __init__(self, form: EventFormat[Any], rows: Sequence[Record], path: Path) -> None:
        self._form, self._rows, self._path = form, rows, path
        self._begin, self._count, self._place = array("Q"), array("Q"), array("Q")
        for start, some in form._placed(rows):
            for place, _ in enumerate(form._events((start, some), path)):
                self._begin.append(start)
                self._count.append(len(some))
                self._place.append(place)

    def __len__(self) -> int:
        return len(self._begin)

    def __iter__(self) -> Iterator[Record]:
        for place in self._form._placed(self._rows):
            yield from self._form._events(place, self._path)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._begin[index]
        some = [self._rows[i] for i in range(start, start + self._count[index])]
        return list(self._form._events((start, some), self._path))[self._place[index]]
