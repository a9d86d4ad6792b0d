"""Arrow: files, streams, and folders written by `save_to_disk`, mapped into memory, read and written with pyarrow alone."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hookline import DataError, Format, Record
from hookline_plugins.formats.columns import Batches, Columns, library, reading
from hookline_plugins.formats.kinds import Table, features, writing

__all__ = ["Arrow", "SaveToDisk", "copied"]

KIND = "an Arrow file"
START, END = b"\xff" * 4, b"\xff" * 4 + b"\0" * 4
"""How a stream begins and ends; streams of before 2019 lack the first four bytes of both."""
STATE: dict[str, Any] = {
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}
"""What else stands in the state.json of a folder."""
ROWS = 128
"""Rows per batch of a copy: what must be unpacked to read one row."""


class Arrow(Format):
    """Arrow files and streams, and Feather. Columns are read and written as `parquet` does; written are files."""

    suffixes = (".arrow", ".feather")

    def read(self, path: Path) -> Iterator[Record]:
        yield from rows_of(path, [path])

    def open(self, path: Path) -> Sequence[Record]:
        return rows_of(path, [path]).kept()

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        pyarrow, table = library(path), Table(path, rows)
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4" if path.suffix.lower() == ".feather" else None)
        with writing(path, KIND), pyarrow.ipc.new_file(str(path), table.schema, options=options) as writer:
            for batch in table.batches():
                writer.write_batch(batch)
        return table.count


class SaveToDisk(Format):
    """A folder written by `Dataset.save_to_disk` of the `datasets` library: its files, in the order of state.json.

    Columns are read and written as `parquet` does. The `datasets` library is not needed; from 4.7 on it reads what
    Hookline writes.
    """

    marks = ("state.json", "dataset_info.json")

    def read(self, path: Path) -> Iterator[Record]:
        yield from rows_of(path, _files(path))

    def open(self, path: Path) -> Sequence[Record]:
        return rows_of(path, _files(path)).kept()

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        pyarrow, table = library(path), Table(path, rows)
        file, described = path / "data-00000-of-00001.arrow", features(table.kinds)
        schema = table.schema.with_metadata({"huggingface": json.dumps({"info": {"features": described}})})
        path.mkdir()
        with writing(path, KIND), pyarrow.ipc.new_stream(str(file), schema) as writer:
            for batch in table.batches():
                writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        with file.open("rb") as content:
            mark = hashlib.file_digest(content, "sha256").hexdigest()[:16]
        about = {"citation": "", "description": "", "features": described, "homepage": "", "license": ""}
        (path / "dataset_info.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
        state = {"_data_files": [{"filename": file.name}], "_fingerprint": mark, **STATE}
        (path / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
        return table.count


def _files(folder: Path) -> list[Path]:
    """The data files of a folder, in order. Raises DataError for a folder that is damaged or was not written whole."""
    again = "write it again: dataset.flatten_indices().save_to_disk(FOLDER)"
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder written by save_to_disk", "name the folder, or use arrow:FILE")
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [entry["filename"] for entry in state["_data_files"]]
        indices = state.get("_indices_data_files") or state.get("_indices_files")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as err:
        why = err.strerror if isinstance(err, OSError) else "it names no data files"
        raise DataError(f"{folder}/state.json cannot be read: {why}", again) from None
    if indices or any(folder.glob("indices*.arrow")):
        raise DataError(f"{folder} holds a selection of rows (an indices file), which is not read", again)
    if not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise DataError(f"{folder}/state.json names a data file outside the folder", again)
    if not names:
        raise DataError(f"{folder}: 0 usable rows: state.json names no data files", "give it at least one row")
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise DataError(f"{folder} lacks {lost[0]}, which its state.json names", "copy the folder again")
    return [folder / name for name in names]


def rows_of(path: Path, files: Sequence[Path]) -> Batches:
    """The rows of Arrow files, one after another. path: what the user named."""
    pyarrow = library(path)
    columns, counts, loads, size = None, [], [], 0
    for file in files:
        with reading(file, KIND):
            schema, some, load, more = _opened(pyarrow, file)
        if columns is None:
            columns, first = Columns(path, schema), schema
        elif not schema.equals(first):
            raise DataError(f"{file} has other columns than {files[0].name}", "write the folder again")
        counts += some
        size += more
        loads += [(load, number) for number in range(len(some))]
    assert columns is not None

    def loaded(number: int) -> Any:
        load, inside = loads[number]
        return load(inside)

    return Batches(columns, counts, loaded, size, KIND)


Opened = tuple[Any, list[int], Callable[[int], Any], int]
"""A schema, the number of rows of each batch, a function that loads the batch of a number, and the size of all in bytes."""


def _opened(pyarrow: Any, path: Path) -> Opened:
    handle = os.open(path, os.O_RDONLY)
    try:
        if os.pread(handle, 4, 0) == b"FEA1":
            raise DataError(f"{path} is Feather of version 1, which is no longer written", "write it again as .parquet")
        mapped = pyarrow.memory_map(str(path))
        content = mapped.read_buffer()
        mapped.seek(0)
        if os.pread(handle, 6, 0) == b"ARROW1":
            reader = pyarrow.ipc.open_file(mapped)
            batches: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
        else:
            reader = pyarrow.ipc.open_stream(mapped)
            _ends(path, content)
            batches = iter(reader)
        first = list(islice(batches, 1))
        if any(_is_compressed(batch, content) for batch in first):
            os.close(handle)
            return copied(reader.schema, chain(first, batches))
        kept = [*first, *batches]  # only their places: the data stays in the file
        unchanged = _guard(path, handle)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(handle)
        raise

    def load(number: int) -> Any:
        unchanged()
        return kept[number]

    weakref.finalize(load, os.close, handle)
    return reader.schema, [batch.num_rows for batch in kept], load, content.size


def _ends(path: Path, content: Any) -> None:
    """Refuse a stream without the mark of its end, which pyarrow takes for a whole one."""
    begin, end = bytes(content[: len(START)]), bytes(content[-8:])
    if not end.endswith(END if begin == START else END[4:]):
        raise DataError(f"{path} is cut off: the mark of its end is missing", "write or fetch the file again")


def _guard(path: Path, handle: int) -> Callable[[], None]:
    """A check before a mapped file is touched: to read behind the end of one that became shorter ends the process."""
    seen = os.fstat(handle)

    def unchanged() -> None:
        found = os.fstat(handle)
        if (found.st_size, found.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
            raise DataError(
                f"{path} was overwritten while it is being read",
                "restore it and run the same command again; write new data to another file",
            )

    return unchanged


def _is_compressed(batch: Any, whole: Any) -> bool:
    """Whether a batch was unpacked into memory, instead of lying in the mapped file. whole: the bytes of that file."""
    first, end = whole.address, whole.address + whole.size
    parts = (part for column in batch.columns for part in column.buffers() if part is not None and part.size)
    return any(not first <= part.address < end for part in parts)


def copied(schema: Any, batches: Iterable[Any]) -> Opened:
    """Batches written to a temporary file that has no name, so that a row can be read without those before it.

    The file is packed with LZ4, and goes when the rows are no longer needed or the process ends.
    """
    import pyarrow

    def plain(kind: Any) -> Any:
        return kind.value_type if pyarrow.types.is_dictionary(kind) else kind

    # an Arrow file has one dictionary per column, and the batches may have several
    written = pyarrow.schema([field.with_type(plain(field.type)) for field in schema])
    counts, size = [], 0
    with tempfile.NamedTemporaryFile(prefix="hookline-rows-", suffix=".arrow") as file:
        options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
        with pyarrow.ipc.new_file(file.name, written, options=options) as writer:
            for batch in batches:
                batch.validate(full=True)  # what points beyond the data of a damaged file would be read otherwise
                columns = [c.dictionary_decode() if pyarrow.types.is_dictionary(c.type) else c for c in batch.columns]
                whole = pyarrow.record_batch(columns, schema=written)
                size += whole.nbytes
                for start in range(0, whole.num_rows, ROWS):
                    part = whole.slice(start, ROWS)
                    writer.write_batch(part)
                    counts.append(part.num_rows)
        reader = pyarrow.ipc.open_file(pyarrow.memory_map(file.name))
    return written, counts, lru_cache(maxsize=8)(reader.get_batch), size
