"""Tables of text: CSV and TSV, with the standard library's reader.

pyarrow's reader would guess the types of a column from its first rows, so that one more row could change the others.
"""

from __future__ import annotations

import csv
import os
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar, overload

from hookline import DataError, Format, Record
from hookline_plugins.formats.cells import Unreadable, cell_of, reader_of

__all__ = ["CSV", "TSV"]

LONGEST = 64 << 20
"""The longest line of a file, in bytes."""
SMALL = 8 << 20
"""The maximum size in bytes of a file whose rows are kept in memory; rows of larger files are parsed on each access."""
SAYINGS = {
    "unexpected end of data": "a cell begins with a quote that is never closed",
    "expected after": "text follows the quote that closes a cell; a quote inside a cell is written twice",
    "new-line character": "a line ends with a carriage return alone",
    "field larger": f"a cell is longer than {LONGEST >> 20} MiB; a quote may never be closed",
}
Reader = tuple[str, Callable[[str], Any]]


class CSV(Format):
    """Comma-separated values; the first line names the columns. Cells are text, and may contain quoted line ends.

    Not text are: a number, `true` or `false` in a column whose name contains the word label, score, reward, margin, weight
    or rating, where an empty cell is a missing value; and a JSON list or object, which is decoded. In columns of text
    (prompt, completion, chosen, rejected, text, instruction, input, output, query, question, response, answer, system)
    only a list of messages is decoded. Values that would be read as others are not written.
    """

    suffixes: ClassVar[Sequence[str]] = (".csv",)
    text = True
    delimiter: ClassVar[str] = ","

    def read(self, path: Path) -> Iterator[Record]:
        with path.open("rb") as file:
            for _, record in _Table(str(path), self.delimiter).scan(file):
                yield record

    def open(self, path: Path) -> Sequence[Record]:
        if path.stat().st_size <= SMALL:
            return tuple(self.read(path))
        return _Rows(path, _Table(str(path), self.delimiter))

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        """Write rows; a value that would be read as another one is refused."""
        names, number = list(dict.fromkeys(name for row in rows for name in row)), 0
        _Table(str(path), self.delimiter).check(names)
        readers = [(name, reader_of(name)) for name in names]
        with path.open("w", encoding="utf-8", newline="") as file:
            # with \n alone as the end of a line, the library would not quote \r
            lines = SimpleNamespace(write=lambda line: file.write(f"{line[:-2]}\n"))
            writer = csv.writer(lines, delimiter=self.delimiter, lineterminator="\r\n")
            writer.writerow(names)
            for number, row in enumerate(rows, 1):
                cells = []
                for name, read in readers:
                    try:
                        cells.append(cell_of(row.get(name), read))
                    except Unreadable as err:
                        where = f"{path} row {number}: column '{name[:60]}'"
                        raise DataError(f"{where} {err.args[0]}", err.args[1]) from None
                writer.writerow(cells)
        return number


class TSV(CSV):
    """Tab-separated values; the first line names the columns. Cells are quoted and mean what they mean in CSV."""

    suffixes = (".tsv", ".tab")
    delimiter = "\t"


class _Lines(Iterator[str]):
    """The lines of a file, with their place."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.byte = self.number = 0

    def __next__(self) -> str:
        raw = self._file.readline(LONGEST + 1)
        if not raw:
            raise StopIteration
        if len(raw) > LONGEST:
            raise DataError(f"{self._name} line {self.number + 1} is longer than {LONGEST >> 20} MiB", "divide the row")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as err:
            raise DataError.not_utf8(err, f"{self._name} line {self.number + 1}", self.byte) from None
        self.byte += len(raw)
        self.number += 1
        return line if self.number > 1 else line.removeprefix("\ufeff")


class _Table:
    """The columns of one file, and how its rows are read."""

    def __init__(self, name: str, delimiter: str) -> None:
        self.name, self.delimiter = name, delimiter
        self.columns: list[Reader] = []

    def scan(self, file: BinaryIO) -> Iterator[tuple[int, Record]]:
        """The byte at which each row begins, and the row. Raises DataError for a row that does not fit the header."""
        csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
        lines = _Lines(file, self.name)
        rows = csv.reader(lines, delimiter=self.delimiter, strict=True)
        self.columns, number = [], 0
        while True:
            start, line = lines.byte, lines.number + 1
            where = f"{self.name} row {number + 1} (line {line})" if self.columns else f"{self.name} line {line}"
            try:
                cells = next(rows, None)
            except csv.Error as err:
                why = next((said for text, said in SAYINGS.items() if text in str(err)), str(err))
                raise DataError(f"{where}: {why}", "fix that row") from None
            if cells is None:
                break
            if not cells:
                continue  # a blank line
            if not self.columns:
                self.columns = self._header(cells, where)
                continue
            number += 1
            yield start, self._record(cells, where)
        if not self.columns:
            raise DataError(f"{self.name}: 0 usable rows: there is no header", "name the columns in the first line")

    def again(self, raw: bytes) -> Record:
        """The row in bytes that `scan` has already read."""
        [cells] = (row for row in csv.reader([raw.decode("utf-8")], delimiter=self.delimiter, strict=True) if row)
        return self._record(cells, self.name)

    def _header(self, cells: list[str], where: str) -> list[Reader]:
        names = [cell.strip() for cell in cells]
        if "" in names:
            raise DataError(f"{where}: column {names.index('') + 1} has no name", "name every column in the header")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{where}: two columns are called '{twice[:60]}'", "rename one of them")
        other = next((sign for sign in ";\t|" if len(names) == 1 and sign in names[0]), None)
        if other:
            raise DataError(
                f"{where}: the header is one column, '{names[0][:60]}'",
                "name the file .tsv" if other == "\t" else f"separate cells by commas, not by {other}",
            )
        return [(name, reader_of(name)) for name in names]

    def check(self, names: list[str]) -> None:
        """Raise DataError for columns whose names would be read as others, or not at all."""
        if not names:
            raise DataError(f"{self.name} cannot be written: its rows have no columns", "give them at least one")
        odd = next((name for name in names if name != name.strip().removeprefix("\ufeff")), None)
        if odd is not None:
            raise DataError(f"{self.name}: column {odd[:60]!r} begins or ends with white space", "rename it")
        self._header(names, self.name)

    def _record(self, cells: list[str], where: str) -> Record:
        if len(cells) != len(self.columns):
            raise DataError(
                f"{where} has {len(cells)} cells, not {len(self.columns)} like the header",
                "put cells that contain the separator or a line end in quotes",
            )
        record: dict[str, Any] = {}
        for (name, read), cell in zip(self.columns, cells):
            try:
                value = read(cell)
            except Unreadable as err:
                raise DataError(f"{where}: column '{name}' {err.args[0]}", err.args[1]) from None
            if value is not None:
                record[name] = value
        return record


class _Rows(Sequence[Record]):
    """The rows of a large table, each parsed from its bytes on each access; the first iteration checks them."""

    def __init__(self, path: Path, table: _Table) -> None:
        self._table, self._starts = table, array("Q")
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._looks = self._look()

    def _look(self) -> tuple[int, int]:
        found = os.fstat(self._file)
        return found.st_size, found.st_mtime_ns

    def __iter__(self) -> Iterator[Record]:
        if self._starts:
            for index in range(len(self)):
                yield self[index]
            return
        starts = array("Q")
        with open(self._file, "rb", buffering=1 << 20, closefd=False) as file:
            file.seek(0)
            for start, record in self._table.scan(file):
                starts.append(start)
                yield record
        self._unchanged()
        starts.append(self._looks[0])
        self._starts = starts

    def __len__(self) -> int:
        if not self._starts:
            for _ in self:
                pass
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        start, end = self._starts[index], self._starts[index + 1]
        raw = b""
        while len(raw) < end - start and (part := os.pread(self._file, end - start - len(raw), start + len(raw))):
            raw += part
        self._unchanged()
        return self._table.again(raw)

    def _unchanged(self) -> None:
        if self._look() != self._looks:
            raise DataError(
                f"{self._table.name} was overwritten while it is being read",
                "restore it and run the same command again; write new data to another file",
            )
