"""JSON lines, read strictly: incomplete lines, duplicate keys and invalid numbers are errors that name the line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

from hookline.batch.stages import Record
from hookline.errors import DataError, a, shorten

__all__ = ["again", "decode", "scan"]

LONGEST_LINE = 64 << 20


def decode(raw: bytes, name: str, start: int = 0) -> str:
    """Decode UTF-8 bytes. name: the file or line, for error messages; start: the offset of the bytes in it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        byte = f"byte {start + err.start} (0x{raw[err.start]:02x})"
        raise DataError(f"{name} is not UTF-8 at {byte}", "re-encode it: iconv -f latin1 -t utf-8") from None


def scan(file: BinaryIO, name: str) -> Iterator[tuple[int, Record]]:
    """The byte at which each line that is not blank begins, and its object.

    Raises DataError for an incomplete line, a duplicate key, or an invalid number.
    """
    number = start = 0
    while raw := file.readline(LONGEST_LINE + 1):
        number += 1
        if len(raw) > LONGEST_LINE:
            raise DataError(f"{name} line {number} is longer than {LONGEST_LINE >> 20} MiB", "write one row per line")
        line = decode(raw, f"{name} line {number}").removeprefix("\ufeff").strip()
        if number == 1 and line.startswith("["):
            raise DataError(
                f"{name} line 1 begins a JSON array; the file must have one object per line",
                "convert it: jq -c '.[]' FILE > rows.jsonl",
            )
        if line:
            yield start, _object(line, raw, f"{name} line {number}")
        start += len(raw)


def again(raw: bytes) -> Record:
    """The object of a line that `scan` has already read; blank lines may follow the line."""
    found: dict[str, Any] = json.loads(raw.partition(b"\n")[0].decode("utf-8-sig").strip())
    return found


def _object(line: str, raw: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(
            line, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
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
    if not isinstance(record, dict):
        raise DataError(f"{where} holds {a(type(record).__name__)}, not an object", "write one JSON object per line")
    if "\\u" in line and not _sayable(record):
        raise DataError(f"{where} holds half a character (a lone surrogate)", "write the whole character")
    return record


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"the key '{shorten(next(k for k in keys if keys.count(k) > 1))}' appears twice")
    return found


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {shorten(text, 20)} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > 40:
        raise ValueError(f"the number {shorten(text, 20)} has {len(text)} digits")
    return int(text)


def _sayable(record: Record) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
