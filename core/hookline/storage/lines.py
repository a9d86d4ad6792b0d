"""Files of one JSON object per line: append a line, read the complete lines, and rewrite the file.

JSON has no NaN and no infinity (RFC 8259, section 6), so figures that are not finite are `null` in a file; `figures` reads
such lines with NaN in their places.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hookline.errors import CheckpointError
from hookline.storage import folders

__all__ = ["append", "cut_torn_line", "digest", "figures", "finite", "not_finite", "rewrite", "whole_lines"]


def append(path: Path, entry: Mapping[str, Any], sync: bool = False) -> bytes:
    """Append one line and return it. sync: flush it to the disk before returning, and escape non-ASCII characters,
    because text from a service may contain lone surrogates, which UTF-8 cannot encode."""
    line = _line(entry, sync)
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            if sync:
                os.fsync(file.fileno())
    except OSError as err:
        raise folders.write_error(path, err) from err
    return line


def _line(entry: Mapping[str, Any], escaped: bool) -> bytes:
    return json.dumps(entry, ensure_ascii=escaped, default=float).encode() + b"\n"


def not_finite(value: Any, *at: str) -> str:
    """The first number in a value that is not finite, with its place, e.g. `nan in scores.0`; empty if there is none."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else " in ".join([str(value), *([".".join(at)] if at else [])])
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, list | tuple):
        inside = enumerate(value)
    if len(at) > DEEPEST:  # or endless; JSON that is nested so deeply is refused where it is written
        return ""
    return next((odd for key, one in inside if (odd := not_finite(one, *at, str(key)))), "")


DEEPEST = 255
"""How deeply pydantic writes what is nested."""


def digest(entries: Iterable[Mapping[str, Any]]) -> hashlib._Hash:
    """SHA-256 of the lines that `append` writes for these entries; it can be updated with further lines."""
    sha = hashlib.sha256()
    for entry in entries:
        sha.update(_line(entry, False))
    return sha


def whole_lines(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Every complete line; a last line that a kill cut off is skipped. Raises CheckpointError for a damaged line."""
    number = 0
    try:
        with path.open("rb") as file:
            for raw in file:
                number += 1
                if not raw.endswith(b"\n"):
                    return
                line = json.loads(raw)
                if not isinstance(line, dict) or any(key not in line for key in keys):
                    raise ValueError("not what a run writes")
                yield line
    except OSError as err:
        raise CheckpointError(f"{path} cannot be read: {err.strerror}", "check the folder and the disk") from None
    except ValueError:
        raise CheckpointError(f"{path} line {number} is damaged", "restore the file") from None


def finite(value: Any) -> Any:
    """The same value with None in place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def figures(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """`whole_lines` of rows or evaluations, in which `null` was a figure that is not finite."""
    for line in whole_lines(path, keys):
        for holder in (line, *line.get("samples", ())):
            for name in {"metrics", "terms", "without"} & holder.keys():
                holder[name] = {key: math.nan if value is None else value for key, value in holder[name].items()}
        yield line


def cut_torn_line(path: Path) -> None:
    """Remove a last line that a kill cut off; otherwise the next line would be appended to it."""
    if path.exists():
        raw = path.read_bytes()
        if raw and not raw.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(raw.rfind(b"\n") + 1)


def rewrite(path: Path, entries: Sequence[Mapping[str, Any]], escaped: bool = False) -> None:
    """Replace a file by these lines. escaped: escape non-ASCII characters, as `append` does with `sync`."""
    aside = path.with_name(f".{path.name}.aside")
    raw = b"".join(_line(entry, escaped) for entry in entries)
    try:
        if path.exists() and path.read_bytes() == raw:
            return
        with aside.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as err:
        raise folders.write_error(path, err) from err
