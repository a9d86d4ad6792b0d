"""Writes rows into a file of any format: beside its place first, and renamed when it is whole, so that nobody sees half a file."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import pickle
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hookline.batch.stages import Record
from hookline.contract.format import Format
from hookline.errors import DataError, HooklineError, PluginError, a, cause, shorten
from hookline.files import packed
from hookline.files.formats import by_suffix, format_and_file, named, packs
from hookline.registry.offers import Offer
from hookline.storage.disguised import foreign, pointer

__all__ = ["written"]

PREFIX = ".hookline-writing-"
MOST = 10**39
"""Larger numbers are refused when they are read."""


def written(path: Path, rows: Iterable[Record], loose: tuple[Offer, ...] = (), *, overwrite: bool = False) -> int:
    """Write rows into a file, and return their number. The ending of its name says in which format, or `FORMAT:FILE`.

    The file is compressed if its name ends with `.gz`, `.zst`, `.bz2` or `.xz`. It appears when it is whole; until then
    it is in a hidden folder beside it. Rows of an iterator are kept in a temporary file, as some formats need them twice.
    Raises DataError for a file that exists, unless it may be overwritten, and for rows that the format cannot hold.
    """
    writer, name = format_and_file(str(path), loose)
    writer = writer or by_suffix(path, str(path), loose)
    path = Path(name)
    try:
        _refuse(path, writer, overwrite)
        with _aside(path) as folder:
            own = folder / (path.with_suffix("").name if packs(writer, path) else path.name)
            with named(own, path):
                count = _write(writer, own, rows, path)
                if own.name != path.name:
                    packed.pack(own, folder / path.name)
            _sync(folder / path.name)
            if overwrite and path.is_dir():
                path.rename(folder / "before")
            else:
                _refuse(path, writer, overwrite)
            (folder / path.name).replace(path)
            _sync(path.parent)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint = f"disk full while writing {path}, of which nothing is left", "free some space"
        else:
            message, hint = f"{path} cannot be written: {err.strerror or err}", "check its folder and its permissions"
        raise DataError(message, hint) from None
    return count


def _refuse(path: Path, writer: Format, overwrite: bool) -> None:
    """Raise DataError for a place where a file, or a folder of this format, may not be written."""
    if not path.parent.is_dir():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}", f"mkdir -p {path.parent}")
    if path.is_dir() and not (writer.marks and all((path / mark).exists() for mark in writer.marks)):
        raise DataError(f"{path} is a folder with other things in it", f"name a file, e.g. {path / 'rows.jsonl'}")
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path} already exists", "name another file, or replace it: --overwrite, overwrite=True")


def _write(writer: Format, own: Path, rows: Iterable[Record], path: Path) -> int:
    given = _Rows(rows, own)
    if next(iter(given), None) is None:
        raise DataError(f"{path} cannot be written: there are no rows", "give it at least one row")
    try:
        count = writer.write(own, given)
    except (HooklineError, OSError):
        raise
    except Exception as err:
        raise PluginError(
            f"format '{writer.instance}' failed while writing {path}: {cause(err)}", "raise DataError for a bad row"
        ) from err
    if count != given.number or not own.exists():
        raise PluginError(
            f"format '{writer.instance}' answers {shorten(repr(count))} after {given.number} rows for {path}",
            "write all rows into the path that `write` gets, and return their number",
        )
    if own.is_file() and (pointer(own) or (writer.text and foreign(own))):
        raise DataError(f"{path} would begin like a file of another kind", "name a .jsonl file")
    return count


class _Rows(Iterable[Record]):
    """Rows on their way into a file. Raises DataError for a value that JSON does not have."""

    def __init__(self, rows: Iterable[Record], own: Path) -> None:
        self._rows, self._own = rows, own
        self._spool = own.with_name("rows.pickle") if isinstance(rows, Iterator) else None
        self.number = 0
        """How many rows there are, as far as it is known."""
        if self._spool:
            with self._spool.open("wb") as file:
                for row in self._checked():
                    pickle.dump(row, file)

    def __iter__(self) -> Iterator[Record]:
        for number, row in enumerate(self._again(self._spool) if self._spool else self._checked(), 1):
            self.number = max(self.number, number)
            yield row

    def _checked(self) -> Iterator[Record]:
        for number, row in enumerate(self._rows, 1):
            made = {}
            for name, value in row.items():
                try:
                    made[name] = _plain(value)
                except (ValueError, RecursionError) as err:
                    why = "is nested too deeply" if isinstance(err, RecursionError) else err
                    raise DataError(
                        f"{self._own} row {number}: column '{shorten(name)}' {why}", "change or remove that value"
                    ) from None
            yield made

    @staticmethod
    def _again(spool: Path) -> Iterator[Record]:
        with spool.open("rb") as file, contextlib.suppress(EOFError):
            while True:
                yield pickle.load(file)


def _plain(value: object) -> Any:
    """A value as JSON has it; tuples become lists. Raises ValueError for any other."""
    if isinstance(value, str):
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("holds half a character (a lone surrogate)")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"holds {value}, which JSON does not have")
    elif isinstance(value, int):
        if abs(value) >= MOST:
            raise ValueError("holds a number of 40 digits or more")
    elif isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    elif isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("holds an object with keys that are not text")
        return {_plain(key): _plain(item) for key, item in value.items()}
    elif value is not None:
        raise ValueError(f"holds {a(type(value).__name__)}, which JSON does not have")
    return value


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A hidden folder beside a path, for the time of writing. What a killed process left is removed by the next one."""
    folder, handle = packed.locked_folder(path.parent, PREFIX, PREFIX)
    try:
        yield folder
    finally:
        os.close(handle)
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    """Have a file, or a folder with the files in it, on the disk."""
    for one in [*(path.iterdir() if path.is_dir() and path.parent.name.startswith(PREFIX) else ()), path]:
        handle = os.open(one, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
