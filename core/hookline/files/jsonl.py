"""Rows of JSON, read strictly: one object per line, or the objects of one array. Errors name the line. Also writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hookline.batch.stages import Record
from hookline.errors import DataError, shorten
from hookline.files import arrays
from hookline.files.strict import DECODER, checked, decode
from hookline.files.strict import LONGEST as LONGEST_LINE

__all__ = ["again", "decode", "scan", "write"]

WHITE = b" \t\r\n"
WRAPPERS = (
    "data",
    "dataset",
    "rows",
    "records",
    "examples",
    "samples",
    "instances",
    "items",
    "train",
    "test",
    "validation",
)
"""Keys that hold the rows where a file's only object is not a row itself."""


def scan(file: BinaryIO, name: str) -> Iterator[tuple[int, Record]]:
    """The byte at which each row begins, or its line, and the row.

    A file whose first character is `[` holds an array of rows; any other file holds one row per line that is not blank.
    Raises DataError for incomplete JSON, a duplicate key, or an invalid number.
    """
    if _first(file) == b"[":
        yield from arrays.scan(file, name)
        return
    number = start = found = 0
    only: Record = {}
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            if not found:
                _refuse_spread(file, name, start)
            raise DataError(f"{name} line {number} is longer than {LONGEST_LINE >> 20} MiB", "write one row per line")
        line = decode(raw, f"{name} line {number}").removeprefix("\ufeff").strip()
        if line:
            try:
                record = _object(line, raw, f"{name} line {number}")
            except DataError:
                if not found:
                    _refuse_spread(file, name, start)
                raise
            found += 1
            only = record if found == 1 else {}
            yield start, record
        start += len(raw)
    lists = [key for key in WRAPPERS if _is_rows(only.get(key))]
    if lists:
        raise _one_object(name, only, lists)


def again(raw: bytes) -> Record:
    """The row at the beginning of bytes that `scan` has already read; other text may follow it."""
    found: dict[str, Any] = json.JSONDecoder().raw_decode(raw.decode("utf-8-sig").lstrip())[0]
    return found


def write(path: Path, rows: Iterable[Record]) -> int:
    """Write one row per line; into `.json`, an array with one row per line. Returns the number of rows."""
    array, number = path.suffix.lower() == ".json", 0
    before, after, end = (b",\n", b"", b"\n]\n") if array else (b"", b"\n", b"")
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    row: Record = {}
    with path.open("wb") as file:
        file.write(b"[\n" if array else b"")
        for number, row in enumerate(rows, 1):
            file.write((before if number > 1 else b"") + encode(row).encode() + after)
        file.write(end)
    lists = [] if array or number != 1 else [key for key in WRAPPERS if _is_rows(row.get(key))]
    if lists:
        raise DataError(
            f"{path}: its only row would be read as an object around the rows in '{lists[0]}'",
            "write .json, or more rows",
        )
    return number


def _first(file: BinaryIO) -> bytes:
    """The first character that is not white space. Leaves the file at its beginning."""
    file.seek(0)
    if file.read(3) != b"\xef\xbb\xbf":
        file.seek(0)
    part = file.read(64)
    while part and not part.strip(WHITE):
        part = file.read(1 << 16)
    file.seek(0)
    return part.strip(WHITE)[:1]


def _object(line: str, raw: bytes, where: str) -> dict[str, Any]:
    try:
        record = DECODER.decode(line)
    except RecursionError:
        raise DataError(f"{where} is nested too deeply", "flatten the row") from None
    except json.JSONDecodeError as err:
        if not raw.endswith(b"\n"):
            raise DataError(
                f"{where}, the last, is cut off after {len(raw)} bytes: {err.msg}",
                "complete or remove that line",
            ) from None
        raise DataError(
            f"{where}: not valid JSON at column {err.colno}: {err.msg}",
            "write one JSON object per line",
        ) from None
    except ValueError as err:
        raise DataError(f"{where}: {err}", "fix that row") from None
    return checked(record, line, where)


def _is_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _refuse_spread(file: BinaryIO, name: str, start: int) -> None:
    """Raise DataError if the first object of a file goes on over several lines, or is too long for one row."""
    file.seek(start)
    text = file.read(LONGEST_LINE).decode("utf-8-sig" if not start else "utf-8", "replace").lstrip()
    try:
        found, end = DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        key = re.match(r'\{\s*("(?:[^"\\]|\\.)*")\s*:\s*\[', text)
        if key and len(text) > LONGEST_LINE // 4:
            raise _one_object(name, {}, [json.loads(key[1])]) from None
        return
    if not isinstance(found, dict) or "\n" not in text[:end]:
        return
    if text[end:].strip():
        raise DataError(f"{name} holds objects of several lines", "write one per line: jq -c . FILE > rows.jsonl")
    raise _one_object(name, found, [key for key, value in found.items() if isinstance(value, list)])


def _one_object(name: str, found: Record, lists: list[str]) -> DataError:
    """The error for a file that holds one object. lists: its keys whose values are lists, one of which may be the rows."""
    if not lists:
        return DataError(f"{name} holds one object of several lines, not rows", "write a list of rows, [{…}, {…}]")
    named = ", ".join(f"'{shorten(key)}'" + (f" ({len(found[key])})" if key in found else "") for key in lists[:8])
    path = f".{lists[0]}" if lists[0].isidentifier() else f".[{json.dumps(lists[0])}]"
    return DataError(
        f"{name} holds one object, not rows; its lists are {named}",
        f"write the rows alone: jq '{path}' FILE > rows.json",
    )
