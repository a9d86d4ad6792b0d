"""One source of rows: a split of a task, or the files behind a path. Files are read, checked and hashed once per process."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from hookline.batch.stages import Record
from hookline.config.data import Part, Reads
from hookline.contract.event_format import EventFormat
from hookline.contract.format import Format
from hookline.data import info, places
from hookline.data.judged import EVENTS, event_format
from hookline.data.places import Found, Place
from hookline.data.reading import FIRST
from hookline.data.rows import Rows, digest, joined
from hookline.data.tasks import task_and_split, task_offer
from hookline.errors import DataError, HooklineError, PluginError, cause, nearest
from hookline.files import formats
from hookline.registry.offers import Offer
from hookline.storage.folders import look
from hookline.storage.paths import beside

__all__ = ["Files", "Source", "Split"]


class Source(ABC):
    """The rows of one place, as it holds them."""

    name: str
    """As messages name it."""
    weight: float | None = None
    """Its share of a mixture."""
    how: Reads | None = None
    """How its rows are read; None: as they are, whatever their columns."""
    note: str = ""
    """What was chosen without being asked for."""
    others: tuple[str, ...] = ()
    """The other splits that the place has."""

    @property
    def form(self) -> str:
        """The event format of its rows; empty where they are read as they are."""
        return ""

    @abstractmethod
    def offers(self) -> list[Offer]:
        """The task or the formats that read it."""

    @abstractmethod
    def rows(self) -> Rows:
        """All rows."""

    @abstractmethod
    def head(self) -> tuple[list[tuple[str, Record]], bool]:
        """The first rows, at most FIRST, with their positions, and whether these are all; no more is read."""

    def part(self, total: int) -> range:
        """Which of all rows are asked for."""
        return range(total)


class Split(Source):
    """A split of a task. Raises DataError if the task does not have it."""

    def __init__(
        self, name: str, loose: tuple[Offer, ...], weight: float | None = None, how: Reads | None = None
    ) -> None:
        self.name, self.weight, self.how, self._loose = name, weight, how, loose
        self._task, self._split = task_and_split(name, loose)
        splits = self._task.splits
        if self._split not in splits:
            raise DataError(
                f"{name}: there is no split '{self._split}'{nearest(self._split, splits)}", f"splits: {list(splits)}"
            )

    def offers(self) -> list[Offer]:
        return [task_offer(self.name, self._loose)]

    def rows(self) -> Rows:
        def read() -> tuple[Sequence[Record], str]:
            records = tuple(self._task.rows(self._split))
            return records, digest(records)

        return Rows(self.name, *_once((self._task, self._split), read))

    def head(self) -> tuple[list[tuple[str, Record]], bool]:
        some = list(islice(self._task.rows(self._split), FIRST + 1))
        return [(f"{self.name} row {i}", row) for i, row in enumerate(some[:FIRST], 1)], len(some) <= FIRST


class Files(Source):
    """The files behind a path. Raises DataError where there are none, or several choices."""

    def __init__(self, part: Part, how: Reads, loose: tuple[Offer, ...], folder: str) -> None:
        self.name, self.weight, self._loose = part.path, part.weight, loose
        self.how, self._found = _found(part.path, how, loose, folder)
        self.note, self.others = self._found.note, self._found.others
        self._decided: tuple[Place, ...] | None = None

    @property
    def form(self) -> str:
        reader = self._places(_peek)[0].reader
        return reader.instance if isinstance(reader, EventFormat) else ""

    def _places(self, first: Callable[[Place], Sequence[Record]]) -> tuple[Place, ...]:
        """The files, with the event format that reads them where they hold events of another tool.

        first: reads the first rows of a file, which decide.
        """
        if self._decided is None:
            self._decided, how = self._found.places, self.how or Reads()
            named = isinstance(self._decided[0].reader, EventFormat)
            if not named and (how.shape == EVENTS or (how.shape is None and not how.columns)):
                form = event_format(first(self._decided[0]), self.name, self._loose, asked=how.shape == EVENTS)
                if form is not None:
                    self._decided = tuple(replace(place, reader=form) for place in self._decided)
        return self._decided

    def offers(self) -> list[Offer]:
        places = self._places(_peek)
        inner = (place.reader.container(place.path) for place in places if isinstance(place.reader, EventFormat))
        readers = {reader.instance: reader for reader in (*(place.reader for place in places), *inner)}
        return [formats.offer_of(reader, self._loose) for reader in readers.values()]

    def rows(self) -> Rows:
        places = self._places(lambda place: _rows_of(place).records[:FIRST])
        found = joined([_rows_of(place) for place in places], self.name)
        silent = sum(formats.silent(place.reader, place.path) for place in places)
        if not len(found):
            why = f"none of its {silent} rows holds a judgement" if silent else "the file has none"
            raise DataError(f"{self.name}: 0 usable rows: {why}", "give it at least one row")
        notes = [self.note] if self.note else []
        notes += [f"{silent} rows hold no judgement and were left out"] if silent else []
        return replace(found, notes=tuple(f"{self.name}: {note}" for note in notes)) if notes else found

    def head(self) -> tuple[list[tuple[str, Record]], bool]:
        place, *further = self._places(_peek)
        some = _peek(place)
        shown = [(f"{place.name} row {i}", row) for i, row in enumerate(some[:FIRST], 1)]
        return shown, len(some) <= FIRST and not further

    def part(self, total: int) -> range:
        wanted = self._found.part(total)
        if total and not len(wanted):
            raise DataError(f"{self.name}: the part of its rows that `split` names is empty", f"there are {total} rows")
        return wanted


def _found(path: str, how: Reads, loose: tuple[Offer, ...], folder: str) -> tuple[Reads, Found]:
    """The files behind a path, and how they are read: an entry of dataset_info.json may say so."""
    here = Path(beside(path, folder))
    entries = info.entries_of(here) if here.name == info.FILE or how.subset is not None else {}
    if entries and (here.name == info.FILE or how.subset in entries):
        file, own = info.entry_of(path, here, entries, how.subset)
        how = how.model_copy(update={**own, "subset": None})
        return how, places.find(str(file), loose, "", how.split)
    return how, places.find(path, loose, folder, how.split, how.subset)


# -- reading files


_known: dict[tuple[Any, ...], tuple[Sequence[Record], str]] = {}
"""The records and hash of the data that this process has read, by reader and place."""
MOST_KNOWN = 128


def _once(key: tuple[Any, ...], read: Callable[[], tuple[Sequence[Record], str]]) -> tuple[Sequence[Record], str]:
    if key not in _known:
        _known[key] = read()
        if len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
    return _known[key]


def _rows_of(place: Place) -> Rows:
    def read() -> tuple[Sequence[Record], str]:
        found = formats.opened(place.reader, place.path)
        return found, digest(_shown(place.reader, place.path, found))

    return Rows(place.name, *_reads(place, lambda: _once(_key(place), read)))


def _peek(place: Place) -> list[Record]:
    """The first rows of a file, one more than FIRST if there are."""
    found: list[Record] = _reads(place, lambda: _peeked(place.reader, place.path, _key(place)))
    return found


@lru_cache(maxsize=256)
def _peeked(reader: Format, path: Path, unchanged: tuple[Any, ...]) -> list[Record]:
    """The first rows of a file, one more than FIRST if there are; unchanged: what tells the file from an earlier one."""
    return list(islice(_shown(reader, path, formats.peeked(reader, path)), FIRST + 1))


def _key(place: Place) -> tuple[Any, ...]:
    """What tells a file, or a folder that is one table, from what was read before."""
    inside = sorted(place.path.iterdir()) if place.path.is_dir() else []
    return (place.reader, place.path.absolute(), *(look(path.stat()) for path in (place.path, *inside)))


def _reads(place: Place, read: Callable[[], Any]) -> Any:
    """What a format answers. Any unexpected exception in it becomes a PluginError."""
    try:
        return read()
    except HooklineError:
        raise
    except OSError as err:
        raise DataError(
            f"{place.name} cannot be read: {err.strerror or err}", "check its permissions and the disk"
        ) from None
    except Exception as err:
        raise PluginError(
            f"format '{place.reader.instance}' failed on {place.path}: {cause(err)}", "raise DataError for a bad file"
        ) from err


def _shown(reader: Format, path: Path, records: Iterable[object]) -> Iterator[Record]:
    """The rows of a format, each checked to be a row."""
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping) or not all(isinstance(key, str) for key in record):
            what = "keys that are not text" if isinstance(record, Mapping) else type(record).__name__
            raise PluginError(
                f"format '{reader.instance}' returns {what} for {path} row {number}", "yield a mapping with text keys"
            )
        yield record
