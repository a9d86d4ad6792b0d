"""The rows of a dataset: read in place, chosen, changed, joined, mixed; each keeps its position in the user's file."""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TypeVar, overload

from hookline.batch.stages import Record
from hookline.data.shapes import nearly
from hookline.errors import DataError

__all__ = ["Rows", "at", "digest", "joined", "mixed", "seen", "text_of"]

T = TypeVar("T")
MIXED, REPEATED = 1_000_000, 10
"""An epoch of a mixture has at most this many rows, or this many times the rows of its sources."""


@dataclass(frozen=True)
class Rows:
    """The rows of a dataset, and their hash; resuming a run with other data is refused."""

    name: str
    records: Sequence[Record]
    """All rows, in order. A record of a large file is parsed on each access."""
    sha256: str
    notes: tuple[str, ...] = ()
    """What the user should know about them: what was left out, and which split was chosen."""

    def __len__(self) -> int:
        return len(self.records)

    def place(self, index: int) -> str:
        """The position of the row at an index from 0 for error messages, e.g. `pairs.jsonl row 17`."""
        own = self.records
        return own.place(index) if isinstance(own, _Placed) else f"{self.name} row {index + 1}"

    def placed(self) -> Iterator[tuple[str, Record]]:
        """Every record with its position for error messages."""
        for index, record in enumerate(self.records):
            yield self.place(index), record

    def at(self, index: int) -> tuple[str, Record]:
        """The record at an index from 0, with its position for error messages."""
        return self.place(index), self.records[index]

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
    has = f"the row has: {', '.join(map(str, record)) or 'nothing'}"
    if record.get(field) is not None:
        raise DataError(at(where, f"'{field}' is {type(value).__name__}, not text"), has)
    near = nearly(record, field) if field not in record else ""
    raise DataError(
        at(where, f"'{field}' is {'null' if field in record else 'missing'}"),
        f"{has}{f'; {near}' if near else ''}; to read a column of another name, see `columns` in docs/data.md",
    )


def at(where: str, sentence: str) -> str:
    """A sentence about one record, after the record's position."""
    return f"{where}: {sentence}" if where else sentence


def digest(records: Iterable[Record]) -> str:
    """A hash of the content of rows, which does not depend on the layout of their file."""
    sha, encode = hashlib.sha256(), json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode
    for record in records:
        sha.update(encode(record).encode("utf-8", "surrogatepass"))
        sha.update(b"\n")
    return sha.hexdigest()


def together(*parts: str) -> str:
    """One hash of several texts."""
    return hashlib.sha256("".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


class _Placed(Sequence[Record]):
    """A sequence that is made of others, and knows the position of each row in the user's file."""

    def place(self, index: int) -> str:
        raise NotImplementedError

    def one(self, index: int) -> Record:
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        numbers = range(len(self))[index]
        return tuple(map(self.one, numbers)) if isinstance(numbers, range) else self.one(numbers)


class _Seen(_Placed):
    """Some rows of a dataset, in an order of their own, each as a function shows it."""

    def __init__(self, rows: Rows, index: Sequence[int], show: Callable[[Record, str], Record | None] | None) -> None:
        self._rows, self._index, self._show = rows, index, show

    def __len__(self) -> int:
        return len(self._index)

    def place(self, index: int) -> str:
        return self._rows.place(self._index[index])

    def one(self, index: int) -> Record:
        record = self._rows.records[self._index[index]]
        if self._show is None:
            return record
        found = self._show(record, self.place(index))
        if found is None:
            raise DataError(f"{self.place(index)} changed while it was read", "do not write to a file that is in use")
        return found


class _Joined(_Placed):
    """Several datasets as one."""

    def __init__(self, parts: Sequence[Rows]) -> None:
        self._parts, self._ends = parts, list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Record]:
        for part in self._parts:
            yield from part.records

    def _within(self, index: int) -> tuple[Rows, int]:
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)

    def place(self, index: int) -> str:
        rows, own = self._within(index)
        return rows.place(own)

    def one(self, index: int) -> Record:
        rows, own = self._within(index)
        return rows.records[own]


def seen(
    rows: Rows,
    index: Sequence[int],
    says: str,
    show: Callable[[Record, str], Record | None] | None = None,
    notes: Sequence[str] = (),
) -> Rows:
    """Some rows of a dataset, each as `show` shows it. says: what was done, which becomes part of the hash."""
    sha256 = together(rows.sha256, says)
    return Rows(rows.name, _Seen(rows, index, show), sha256, (*rows.notes, *notes))


def joined(parts: Sequence[Rows], name: str | None = None) -> Rows:
    """The rows of several sources, in order; the hash is computed from their hashes."""
    if len(parts) == 1:
        return parts[0]
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    sha256 = together(*(part.sha256 for part in parts))
    return Rows(name or ", ".join(part.name for part in parts), _Joined(parts), sha256, notes)


def mixed(parts: Sequence[Rows], weights: Sequence[float], name: str) -> Rows:
    """The rows of several sources in given shares: an epoch holds every row of every source at least once, and repeats the
    rows of sources that would otherwise have too small a share."""
    scale = max(len(part) / weight for part, weight in zip(parts, weights))
    counts = [max(len(part), round(weight * scale)) for part, weight in zip(parts, weights)]
    if sum(counts) > max(MIXED, REPEATED * sum(map(len, parts))):
        raise DataError(
            f"{name}: an epoch with every row at least once and these weights has {sum(counts):,} rows",
            "give the small source a smaller weight, or the large one fewer rows: `split: '[:100000]'`",
        )
    index, first = array("Q"), 0
    for part, count in zip(parts, counts):
        index.extend(first + i % len(part) for i in range(count))
        first += len(part)
    shares = ", ".join(f"{part.name} {count / sum(counts):.1%}" for part, count in zip(parts, counts))
    note = f"{name}: an epoch has {len(index)} rows: {shares}"
    return seen(joined(parts, name), index, f"weights {list(weights)}", notes=[note])
