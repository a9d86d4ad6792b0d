"""Rows of a file that may be larger than memory; only the position of each row is kept."""

from __future__ import annotations

import os
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, overload

from hookline.batch.stages import Record
from hookline.errors import DataError
from hookline.storage.folders import look

__all__ = ["Stretches"]

Scan = Callable[[BinaryIO, str], Iterator[tuple[int, Record]]]
"""A function from a file and its name to the position and content of each row; raises DataError for an invalid row."""


class Stretches(Sequence[Record]):
    """The rows of a file, each parsed from its bytes on each access.

    The first iteration checks every row and stores its position, in 8 bytes per row. The file stays open: if it is
    replaced by another file, the old content is still read; if it is overwritten, DataError is raised.
    """

    def __init__(self, path: Path, scan: Scan, again: Callable[[bytes], Record]) -> None:
        """again: a function from the bytes between two positions to the row that `scan` found there."""
        self.path, self._scan, self._again = path, scan, again
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._look = look(os.fstat(self._file))
        self._starts: array[int] | None = None

    def __iter__(self) -> Iterator[Record]:
        if self._starts is not None:
            for index in range(len(self._starts)):
                yield self[index]
            return
        starts = array("Q")
        with open(self._file, "rb", buffering=1 << 20, closefd=False) as file:
            file.seek(0)
            for start, record in self._scan(file, str(self.path)):
                starts.append(start)
                yield record
        self._unchanged()
        self._starts = starts

    def __len__(self) -> int:
        return len(self._found())

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        starts = self._found()
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(starts))))
        index = range(len(starts))[index]
        start, end = starts[index], starts[index + 1] if index + 1 < len(starts) else self._look[0]
        raw = b""
        while len(raw) < end - start and (part := os.pread(self._file, end - start - len(raw), start + len(raw))):
            raw += part
        self._unchanged()
        return self._again(raw)

    def _found(self) -> array[int]:
        """The positions of the rows; reads the file if they are not known yet."""
        if self._starts is None:
            for _ in self:
                pass
        assert self._starts is not None
        return self._starts

    def _unchanged(self) -> None:
        if look(os.fstat(self._file)) != self._look:
            raise DataError(
                f"{self.path} was overwritten while it is being read",
                "restore it and run the same command again; write new data to another file",
            )
