"""Reads the rows of a data name: `builtin:NAME/SPLIT?option=value`, `task:NAME/SPLIT`, or a file with its format.

Rows are read strictly and hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, TypeVar, overload

from hookline.batch.stages import Record
from hookline.contract.format import Format
from hookline.data import formats
from hookline.data.formats import by_suffix, format_and_file
from hookline.data.names import is_task
from hookline.data.tasks import task_and_split, task_offer
from hookline.errors import DataError, HooklineError, PluginError, cause, nearest, shorten
from hookline.registry.offers import Offer
from hookline.storage.disguised import compressed, pointer
from hookline.storage.folders import look

__all__ = ["Rows", "at", "digest", "exists", "joined", "offer_of", "rows", "text_of"]

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset, and their hash; resuming a run with other data is refused."""

    name: str
    records: Sequence[Record]
    """All rows, in order. A record of a large file is parsed on each access."""
    sha256: str

    def __len__(self) -> int:
        return len(self.records)

    def placed(self) -> Iterator[tuple[str, Record]]:
        """Every record with its position for error messages, e.g. `pairs.jsonl row 17`."""
        for number, record in enumerate(self.records, 1):
            yield f"{self.name} row {number}", record

    def at(self, index: int) -> tuple[str, Record]:
        """The record at an index from 0, with its position for error messages."""
        return f"{self.name} row {index + 1}", self.records[index]

    def made(self, make: Callable[[Record, str], T]) -> Callable[[int], T]:
        """A function from a row's index to `make(record, where)`, which caches the last few thousand results."""

        @lru_cache(maxsize=8192)
        def of(index: int) -> T:
            where, record = self.at(index)
            return make(record, where)

        return of

    def texts(self, field: str) -> Iterator[str]:
        """The values of a field that are present and not empty. Raises DataError for one that is not text."""
        return (text for where, row in self.placed() if field in row and (text := text_of(row, field, where)))


def text_of(record: Record, field: str, where: str = "") -> str:
    """The value of a field that must be text. Raises DataError if it is missing or not text."""
    value = record.get(field)
    if isinstance(value, str):
        return value
    has = f"is {type(value).__name__}, not text" if field in record else "is missing"
    raise DataError(at(where, f"'{field}' {has}"), f"the row has: {', '.join(map(str, record)) or 'nothing'}")


def at(where: str, sentence: str) -> str:
    """A sentence about one record, after the record's position."""
    return f"{where}: {sentence}" if where else sentence


def exists(name: str, loose: tuple[Offer, ...] = ()) -> None:
    """Raise DataError for a data name without data; the data itself is not read."""
    if is_task(name):
        task, split = task_and_split(name, loose)
        if split not in task.splits:
            raise DataError(
                f"{name}: there is no split '{split}'{nearest(split, task.splits)}", f"splits: {list(task.splits)}"
            )
        return
    reader, file = _format_and_file(name, loose)
    path = Path(file)
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no data file {file}", "give a path, or builtin:NAME/SPLIT (hookline plugins list)") from None
    except (OSError, ValueError) as err:
        raise DataError(f"{shorten(name)} cannot be read: {_why(err)}", "check the path and its permissions") from None
    if not stat.S_ISREG(found.st_mode):
        folder = stat.S_ISDIR(found.st_mode)
        raise DataError(
            f"{name} is {'a folder' if folder else 'not a regular file'}", f"name a file{' in it' if folder else ''}"
        )
    if reader is None:
        _by_suffix(path, name, loose)
    if not found.st_size:
        raise DataError(f"{name}: 0 usable rows: the file is empty", "give it at least one row")


def offer_of(name: str, loose: tuple[Offer, ...] = ()) -> Offer:
    """The task or format of a data name that `exists` has accepted."""
    if is_task(name):
        return task_offer(name, loose)
    reader, file = format_and_file(name, loose)
    return formats.offer_of(reader or by_suffix(Path(file), name, loose), loose)


def _why(err: Exception) -> str:
    return getattr(err, "strerror", None) or str(err)


def rows(name: str, loose: tuple[Offer, ...] = ()) -> Rows:
    """All rows of a data name. Raises DataError naming file, row and field.

    A process reads and hashes a file or a task's split only once, even under different names; it reads a file again if
    its size, modification time or inode has changed.
    """
    exists(name, loose)
    if is_task(name):
        task, split = task_and_split(name, loose)
        return _once(name, (task, split), lambda: _hashed(tuple(task.rows(split))))
    given, file = _format_and_file(name, loose)
    path = Path(file)
    reader = given or _by_suffix(path, name, loose)
    try:
        found = _once(name, (reader, path.absolute(), look(path.stat())), lambda: _read(reader, path))
    except OSError as err:
        raise DataError(f"{name} cannot be read: {_why(err)}", "check its permissions and the disk") from None
    if not len(found):
        raise DataError(f"{name}: 0 usable rows: the file contains only blank lines", "give it at least one row")
    return found


_known: dict[tuple[Any, ...], tuple[Sequence[Record], str]] = {}
"""The records and hash of all data that this process has read, by reader and place."""
MOST_KNOWN = 32


def _once(name: str, key: tuple[Any, ...], read: Callable[[], tuple[Sequence[Record], str]]) -> Rows:
    if key not in _known:
        _known[key] = read()
        if len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
    return Rows(name, *_known[key])


def _hashed(records: Sequence[Record]) -> tuple[Sequence[Record], str]:
    return records, digest(records)


def _format_and_file(name: str, loose: tuple[Offer, ...]) -> tuple[Format | None, str]:
    with _naming(name):
        return format_and_file(name, loose)


def _by_suffix(path: Path, name: str, loose: tuple[Offer, ...]) -> Format:
    with _naming(name):
        return by_suffix(path, name, loose)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add the data name to the message of a PluginError about a format."""
    try:
        yield
    except PluginError as err:
        err.message = f"{shorten(name, 300)}: {err.message}"
        raise


def _read(reader: Format, path: Path) -> tuple[Sequence[Record], str]:
    """The checked rows of a format, and their hash. Any unexpected exception in a format becomes a PluginError."""
    wrong = pointer(path) or (compressed(path) if type(reader) in (formats.JSONLines, formats.Text) else None)
    if wrong:
        raise DataError(*wrong)
    try:
        found = reader.open(path)
        return found, digest(_shown(reader, path, found))
    except (HooklineError, OSError):
        raise
    except Exception as err:
        raise PluginError(
            f"format '{reader.instance}' failed on {path}: {cause(err)}",
            "raise DataError for a bad file",
        ) from err


def _shown(reader: Format, path: Path, records: Iterable[object]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping) or not all(isinstance(key, str) for key in record):
            what = "keys that are not text" if isinstance(record, Mapping) else type(record).__name__
            raise PluginError(
                f"format '{reader.instance}' returns {what} for {path} row {number}", "yield a mapping with text keys"
            )
        yield record


def joined(parts: Sequence[Rows]) -> Rows:
    """Join the rows of several sources, in order; the hash is computed from their hashes."""
    if len(parts) == 1:
        return parts[0]
    sha256 = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return Rows(", ".join(part.name for part in parts), _Joined([part.records for part in parts]), sha256)


class _Joined(Sequence[Record]):
    """Several sequences as one."""

    def __init__(self, parts: Sequence[Sequence[Record]]) -> None:
        self._parts, self._ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Record]:
        return chain.from_iterable(self._parts)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


def digest(records: Iterable[Record]) -> str:
    """A hash of the content of rows, which does not depend on the layout of their file."""
    sha = hashlib.sha256()
    for record in records:
        sha.update(json.dumps(record, sort_keys=True, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass"))
        sha.update(b"\n")
    return sha.hexdigest()
