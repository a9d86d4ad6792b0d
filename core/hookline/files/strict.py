"""JSON, read strictly: duplicate keys, numbers that JSON does not have, and halves of characters are errors."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from hookline.errors import DataError, a, shorten

__all__ = ["DECODER", "LONGEST", "checked", "decode"]

LONGEST = 64 << 20
"""The longest row of a file, in bytes."""
HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""The escape of half a character; the other half may stand beside it."""


def decode(raw: bytes, name: str, start: int = 0) -> str:
    """Decode UTF-8 bytes. name: the file or line, for error messages; start: the offset of the bytes in it."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        raise DataError.not_utf8(err, name, start) from None


def checked(record: object, text: str, where: str) -> dict[str, Any]:
    """A decoded row that is an object of whole characters. text: what it was decoded from, or more of the file."""
    if not isinstance(record, dict):
        raise DataError(f"{where} holds {a(type(record).__name__)}, not an object", "write one JSON object per row")
    if HALF.search(text) and not _sayable(record):
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


def _sayable(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
)
"""Made once: to make one for each row costs more than to parse a short row."""
