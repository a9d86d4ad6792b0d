"""Parquet, read and written with pyarrow alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hookline import Format, Record
from hookline_plugins.formats.arrow import copied
from hookline_plugins.formats.columns import SLICE, SMALL, Batches, Columns, library, reading
from hookline_plugins.formats.kinds import Table, writing

__all__ = ["Parquet"]

KIND = "a Parquet file"
GROUP = 32 << 20
"""The size in bytes from which on rows that are written begin a new row group."""


class Parquet(Format):
    """Parquet, with pyarrow (`pip install 'hookline[data]'`).

    A row has no value for a column that is null in it; neither have objects in it, such as messages and arguments of
    tools: Parquet gives each object the keys of all others. NaN counts as null, since pandas writes it for missing values.
    Times become ISO 8601, decimals become numbers, columns of the type `arrow.json` are decoded; bytes, lengths of time and
    infinite numbers are refused.

    Columns with values of several types, or with objects of different keys, are written as `arrow.json`.
    """

    suffixes = (".parquet", ".pq")

    def read(self, path: Path) -> Iterator[Record]:
        with reading(path, KIND):
            file = _opened(path)
        columns, first = Columns(path, file.schema_arrow), 0
        for batch in _batches(path, file):
            yield from columns.rows(batch, first)
            first += batch.num_rows

    def open(self, path: Path) -> Sequence[Record]:
        """Rows of a small file in memory; of a larger one, in a temporary file, as shuffled rows would have to be unpacked
        with their whole row group."""
        with reading(path, KIND):
            file = _opened(path)
            about = file.metadata
            size = sum(about.row_group(number).total_byte_size for number in range(about.num_row_groups))
        if size <= SMALL:
            return tuple(self.read(path))
        Columns(path, file.schema_arrow)  # refuses a column before all of them are copied
        with reading(path, KIND):
            schema, counts, load, size = copied(file.schema_arrow, _batches(path, file))
        return Batches(Columns(path, schema), counts, load, size, KIND)

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        library(path)
        from pyarrow import parquet

        table = Table(path, rows)
        with writing(path, KIND), parquet.ParquetWriter(path, table.schema, compression="zstd") as writer:
            for group in _groups(table):
                writer.write_table(group)
        return table.count


def _groups(table: Table) -> Iterator[Any]:
    """Batches, put together to row groups."""
    import pyarrow

    waiting: list[Any] = []
    for batch in table.batches():
        waiting.append(batch)
        if sum(one.nbytes for one in waiting) >= GROUP:
            yield pyarrow.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pyarrow.Table.from_batches(waiting)


def _opened(path: Path) -> Any:
    library(path)
    from pyarrow import parquet

    return parquet.ParquetFile(path, page_checksum_verification=True)


def _batches(path: Path, file: Any) -> Iterator[Any]:
    batches = file.iter_batches(batch_size=SLICE)
    while True:
        with reading(path, KIND):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
