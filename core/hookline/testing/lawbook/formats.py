"""Laws for formats: a file's rows are the same at every reading, and an unreadable file raises a DataError."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hookline.batch.stages import Record
from hookline.contract.format import Format
from hookline.data.rows import digest
from hookline.errors import DataError, cause
from hookline.files.formats import needed
from hookline.testing.lawbook.apart import made
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law
from hookline.testing.surroundings import own_rows


def examples() -> Iterator[str]:
    """Files of the plain formats, as text."""
    rows = [{key: row[key] for key in ("prompt", "completion")} for row in own_rows()[:5]]
    yield "".join(json.dumps(row) + "\n" for row in rows)
    yield json.dumps(rows)
    for comma in (",", "\t"):
        yield "".join(comma.join(line) + "\n" for line in ([*rows[0]], *([*row.values()] for row in rows)))
    yield "\n".join(row["prompt"] for row in rows) + "\n"
    yield "\n".join(f"{key}: {value}" for row in rows for key, value in row.items()) + "\n"


def suffix_of(component: Format) -> str:
    return next(iter(component.suffixes), ".txt")


def read(subject: Subject, path: Path) -> tuple[Record, ...]:
    component = made(subject)
    assert isinstance(component, Format)
    return tuple(component.read(path))


@law("format", alone=True)
def suffixes(subject: Subject) -> str | None:
    """The format lists the file name suffixes that it reads: a dot, then lower-case letters, digits, - or _."""
    component = made(subject)
    assert isinstance(component, Format)
    wrong = [s for s in component.suffixes if not re.fullmatch(r"(\.[a-z0-9_-]+)+", s)]
    if isinstance(component.suffixes, str) or wrong:
        raise Broken(f'suffixes is {component.suffixes!r}; write them like (".csv", ".tsv")')
    if not component.suffixes:
        raise NotApplicable("the format has no suffix; data names use `NAME:FILE`")
    return ", ".join(component.suffixes)


@law("format", alone=True)
def defaults(subject: Subject) -> str | None:
    """Every option has a default, because a data name cannot set options."""
    required = needed(subject.cls)
    if required:
        raise Broken(f"give '{required[0]}' a default: a format is read with its defaults")
    return None


@law("format", alone=True)
def reads_alike(subject: Subject) -> str | None:
    """A file's rows are mappings with text keys, and are the same at every reading, by number and in every instance."""
    component = made(subject)
    assert isinstance(component, Format)
    path, found = subject.folder / f"example{suffix_of(component)}", 0
    for text in examples():
        path.write_text(text, encoding="utf-8")
        try:
            first, again = tuple(component.read(path)), tuple(component.read(path))
        except DataError:
            continue
        if not all(isinstance(row, dict) and all(isinstance(key, str) for key in row) for row in first):
            raise Broken("some rows are not dicts with text keys")
        if digest(first) != digest(again) or digest(first) != digest(read(subject, path)):
            raise Broken("the rows differ at the second reading")
        numbered = component.open(path)
        if digest(numbered) != digest(first) or digest(numbered[i] for i in range(len(numbered))) != digest(first):
            raise Broken("`open` gives other rows than `read`")
        found += 1
    if not found:
        raise NotApplicable("the format reads none of the plain files tested here")
    return f"{found} files"


@law("format", alone=True)
def refuses(subject: Subject) -> str | None:
    """A file that cannot be read raises a DataError that names the file, and no other exception."""
    component = made(subject)
    assert isinstance(component, Format)
    path = subject.folder / f"odd{suffix_of(component)}"
    for what, content in (("no text", b"\xff\xfe\x00\x01{"), ("half a file", b'{"prompt": "a'), ("nothing", b"")):
        path.write_bytes(content)
        try:
            tuple(component.read(path))
        except DataError as err:
            if path.name not in str(err):
                raise Broken(f"a file with {what}: '{err.message}' does not name the file") from None
        except Exception as err:
            raise Broken(f"a file with {what} raises {cause(err)}") from None
    return None
