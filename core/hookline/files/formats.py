"""Finds the format of a file or folder, by the ending of its name, the files in it, or from `NAME:FILE`, and opens it.

JSON lines and text are core code; the other built-in formats are plugins.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast, overload

from pydantic import ValidationError

from hookline.batch.encoded import Record
from hookline.contract.check import check_class
from hookline.contract.component import Component
from hookline.contract.event_format import EventFormat
from hookline.contract.format import Format
from hookline.errors import DataError, HooklineError, PluginError
from hookline.files import jsonl, packed
from hookline.files.stretches import Stretches
from hookline.registry.construct import configure, construct
from hookline.registry.offers import Offer, find, offers
from hookline.storage.disguised import foreign, pointer

__all__ = [
    "JSONLines",
    "Text",
    "by_marks",
    "by_suffix",
    "contained",
    "event_formats",
    "format_and_file",
    "named",
    "opened",
    "packs",
    "peeked",
    "silent",
]

SMALL = 8 << 20
"""The maximum size in bytes of a file whose rows are kept in memory; rows of larger files are parsed on each access."""


class JSONLines(Format):
    """One JSON object per line, or one array of objects, read strictly: incomplete rows, duplicate keys and invalid numbers
    are errors."""

    suffixes = (".jsonl", ".json", ".ndjson")
    text = True

    def read(self, path: Path) -> Iterator[Record]:
        with path.open("rb") as file:
            for _, record in jsonl.scan(file, str(path)):
                yield record

    def open(self, path: Path) -> Sequence[Record]:
        return Stretches(path, jsonl.scan, jsonl.again) if path.stat().st_size > SMALL else super().open(path)

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        return jsonl.write(path, rows)


class Text(Format):
    """Plain text: rows with the field `text`, separated by blank lines."""

    suffixes = (".txt",)
    text = True

    def read(self, path: Path) -> Iterator[Record]:
        with path.open("rb") as file:
            for _, record in _texts(file, str(path)):
                yield record

    def open(self, path: Path) -> Sequence[Record]:
        return Stretches(path, _texts, _text) if path.stat().st_size > SMALL else super().open(path)

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        number = 0
        with path.open("wb") as file:
            for number, row in enumerate(rows, 1):
                raw = row["text"].encode() if isinstance(row.get("text"), str) else b""
                if [own for _, own in _texts(io.BytesIO(raw), str(path))] != [row]:
                    raise DataError(
                        f"{path} row {number} cannot be written as text: {_unwritable(row)}", "name a .jsonl file"
                    )
                file.write((b"\n" if number > 1 else b"") + raw + b"\n")
        return number


def _texts(file: BinaryIO, name: str) -> Iterator[tuple[int, Record]]:
    """The byte at which each text of a file begins, and its row; texts are separated by lines of white space."""
    lines: list[bytes] = []
    start, end = 0, len(codecs.BOM_UTF8) if file.read(3) == codecs.BOM_UTF8 else 0
    file.seek(end)
    for line in file:
        if jsonl.decode(line, name, end).strip():
            start = start if lines else end
            lines.append(line)
        elif lines:
            yield start, _text(b"".join(lines))
            lines = []
        end += len(line)
    if lines:
        yield start, _text(b"".join(lines))


def _text(raw: bytes) -> Record:
    return {"text": raw.decode().strip()}


def _unwritable(row: Record) -> str:
    if row.keys() != {"text"} or not isinstance(row["text"], str):
        return f"its columns are {', '.join(map(repr, row)) or 'none'}, not 'text' alone"
    return "its text is empty, has a blank line, or begins or ends with white space"


@dataclass(frozen=True)
class Known:
    """The offered formats whose class follows the contract, with their endings, and the problems of the other
    formats."""

    formats: tuple[tuple[Offer, tuple[str, ...]], ...]
    broken: tuple[str, ...]
    marks: tuple[tuple[Offer, tuple[str, ...]], ...] = ()
    """The formats that read folders, with the names of the files by which they know one."""

    @property
    def suffixes(self) -> set[str]:
        return {suffix for _, claimed in self.formats for suffix in claimed}


def format_and_file(name: str, loose: tuple[Offer, ...] = ()) -> tuple[Format | None, str]:
    """The format in a data name `FORMAT:FILE` or `DISTRIBUTION:FORMAT:FILE`, or None, and the file.

    If a file with the whole name exists, it is used as the file. Raises PluginError for a format that is not offered.
    """
    head, colon, rest = name.partition(":")
    if not colon or not rest or not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", head) or _is_there(name):
        return None, name
    _no_task(name, head, rest, loose)
    second, colon, file = rest.partition(":")
    if colon and file and any(o.kind == "format" and o.name == second for o in offers(loose)):
        return _make(find("format", f"{head}:{second}", loose)), file
    return _make(find("format", head, loose)), rest


def _no_task(name: str, head: str, rest: str, loose: tuple[Offer, ...]) -> None:
    """Refuse `DISTRIBUTION:TASK`, which is a name for a component but not for data."""
    short = re.split(r"[/?]", rest)[0]
    task = next((o for o in offers(loose) if (o.kind, o.name, o.distribution) == ("task", short, head)), None)
    if task:
        prefix = "builtin" if task.built_in else "task"
        raise DataError(f"{name}: '{short}' is a task, and its rows have another name", f"write {prefix}:{rest}")


def by_suffix(path: Path, name: str, loose: tuple[Offer, ...] = ()) -> Format:
    """The format that claims the longest ending of a file's name; upper and lower case are equal.

    `rows.csv.gz` is read by the format that claims `.csv.gz`, and if there is none, by the format that claims `.csv`.
    Installed formats cannot take over the ending of a built-in format, and a loose file that claims such an ending is
    refused. Raises DataError if no format or more than one claims the ending, and PluginError if the format is invalid.
    """
    ours = _known(tuple(offer for offer in offers() if offer.built_in))
    given = _known(tuple(loose))
    claims = _claims(path, (*ours.formats, *given.formats))
    if claims:
        return _only(claims, name)
    others = _known(tuple(offer for offer in offers() if not offer.built_in))
    claims = _claims(path, others.formats)
    if claims:
        return _only(claims, name)
    suffixes = sorted(ours.suffixes | given.suffixes | others.suffixes)
    broken = "".join(f"; {problem}" for problem in (*given.broken, *others.broken))
    raise DataError(
        f"{name}: unknown kind of file '{_ending(path)}'; known are {', '.join(suffixes)}{broken}",
        "use .jsonl (one row per line) or .txt (blank line between texts), or write FORMAT:FILE (hookline plugins list)",
    )


def _ending(path: Path) -> str:
    """The ending that says what is in a file: of `rows.dat.gz` it is `.dat`."""
    bare = packed.inner(path)
    return bare.suffix if bare and bare.suffix else path.suffix


def by_marks(path: Path, loose: tuple[Offer, ...] = ()) -> Format | None:
    """The format that reads a folder, known by the files in it; None if no format does.

    As for endings, built-in and loose formats come before installed ones. Raises DataError if several know the folder,
    and PluginError if the format is invalid.
    """
    ours = _known(tuple(offer for offer in offers() if offer.built_in))
    given = _known(tuple(loose))
    others = _known(tuple(offer for offer in offers() if not offer.built_in))
    for among in ((*ours.marks, *given.marks), others.marks):
        found = [offer for offer, marks in among if all(_is_there(str(path / mark)) for mark in marks)]
        if len(found) > 1:
            raise DataError(
                f"{path} is a folder that {' and '.join(map(str, found))} read", f"say which: {found[0].name}:{path}"
            )
        if found:
            return _make(found[0])
    return None


def contained(path: Path) -> Format:
    """The format of the file whose rows an event format reads."""
    return by_suffix(path, str(path))


def event_formats(loose: tuple[Offer, ...] = ()) -> tuple[EventFormat, ...]:
    """The formats that read rows of other formats as events."""
    return _event_formats((*loose, *offers()))


@lru_cache(maxsize=32)
def _event_formats(among: tuple[Offer, ...]) -> tuple[EventFormat, ...]:
    classes = ((offer, _class(offer)) for offer, _ in _known(among).formats)
    made = (_make(offer) for offer, cls in classes if issubclass(cls, EventFormat))
    return tuple(one for one in made if isinstance(one, EventFormat))


def opened(reader: Format, path: Path) -> Sequence[Record]:
    """The rows of a file or folder. Errors name the user's file, also where a compressed file was unpacked first.

    Raises DataError for a Git-LFS pointer, and for a compressed or binary file that a format of text should read.
    """
    own = _own(reader, path)
    with named(own, path):
        rows = reader.open(own)
    return rows if own is path or isinstance(rows, tuple) else _Renamed(rows, own, path)


def silent(reader: Format, path: Path) -> int:
    """How many rows of a file hold no event, where events are read."""
    if not isinstance(reader, EventFormat):
        return 0
    own = _own(reader, path)
    with named(own, path):
        return reader.silent(own)


def peeked(reader: Format, path: Path) -> Iterator[Record]:
    """The rows of a file or folder, one after another, for those who need only the first; errors as with `opened`."""
    own = _own(reader, path)
    with named(own, path):
        yield from reader.read(own)


def _own(reader: Format, path: Path) -> Path:
    """The path that a format gets: of an unpacked file, or the user's."""
    if path.is_dir():
        return path
    wrong = pointer(path)
    if not wrong and packs(reader, path):
        path = packed.unpacked(path)
    if not wrong and (reader.text or (isinstance(reader, EventFormat) and reader.container(path).text)):
        wrong = foreign(path)
    if wrong:
        raise DataError(*wrong)
    return path


def packs(reader: Format, path: Path) -> bool:
    """Whether a file is compressed, and its format expects it unpacked."""
    return bool(packed.inner(path)) and not any(path.name.lower().endswith(end.lower()) for end in reader.suffixes)


@contextlib.contextmanager
def named(own: Path, path: Path) -> Iterator[None]:
    """Let errors name the user's path instead of the one that the format got."""
    try:
        yield
    except HooklineError as err:
        if own is not path:
            err.message = err.message.replace(str(own), str(path))
            err.hint = err.hint.replace(str(own), str(path))
        raise


class _Renamed(Sequence[Record]):
    """Rows of an unpacked file, whose errors name the compressed one."""

    def __init__(self, rows: Sequence[Record], own: Path, path: Path) -> None:
        self._rows, self._paths = rows, (own, path)

    def __len__(self) -> int:
        with named(*self._paths):
            return len(self._rows)

    def __iter__(self) -> Iterator[Record]:
        with named(*self._paths):
            yield from self._rows

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        with named(*self._paths):
            return self._rows[index]


def _claims(path: Path, among: tuple[tuple[Offer, tuple[str, ...]], ...]) -> list[tuple[Offer, str]]:
    """The formats that claim the longest ending of a file's name that any of them claims, with that ending.

    The ending of a compressed file counts as claimed where the ending before it is.
    """
    name, bare = path.name.lower(), packed.inner(path)
    more = path.suffix.lower() if bare else ""
    ends = {suffix: (suffix, *([suffix + more] if more else [])) for _, claimed in among for suffix in claimed}
    found = [
        (offer, end)
        for offer, claimed in among
        for suffix in set(claimed)
        for end in ends[suffix]
        if name.endswith(end)
    ]
    longest = max((len(suffix) for _, suffix in found), default=0)
    return [(offer, suffix) for offer, suffix in found if len(suffix) == longest]


def offer_of(reader: Format, loose: tuple[Offer, ...] = ()) -> Offer:
    """The offer from which a format was made."""
    named = (o for o in offers(loose) if o.kind == "format" and o.name == reader.instance and not o.problem)
    return next(offer for offer in named if offer.load() is type(reader))


def _only(claims: list[tuple[Offer, str]], name: str) -> Format:
    offer, suffix = claims[0]
    if len(claims) > 1:
        who = " and ".join(str(one) for one, _ in claims)
        raise DataError(f"{name}: '{suffix}' files are read by {who}", f"say which: {offer.name}:{name}")
    return _make(offer)


@lru_cache(maxsize=32)
def _known(among: tuple[Offer, ...]) -> Known:
    """Import the formats among some offers; formats that cannot be imported are listed with their error message."""
    found, broken, folders = [], [], []
    for offer in among:
        if offer.kind == "format" and not offer.problem:
            try:
                cls = _class(offer)
            except PluginError as err:
                broken.append(err.message)
                continue
            found.append((offer, tuple(suffix.lower() for suffix in cls.suffixes)))
            if cls.marks:
                folders.append((offer, tuple(cls.marks)))
    return Known(tuple(found), tuple(broken), tuple(folders))


def _class(offer: Offer) -> type[Format]:
    cls = cast("type[Format]", check_class(offer.load(), "format", str(offer)))
    if not isinstance(cls.marks, tuple | list) or not all(isinstance(mark, str) and mark for mark in cls.marks):
        raise PluginError(f"{offer}: marks is {cls.marks!r:.60}", 'write a tuple of file names like ("state.json",)')
    return cls


@lru_cache(maxsize=64)
def _make(offer: Offer) -> Format:
    """Make a format with default options, because a data name has no options. Raises PluginError if an option has no
    default."""
    cls = _class(offer)
    required = needed(cls)
    if required:
        raise PluginError(
            f"{offer} has no default for its option '{required[0]}', but formats are used with default options",
            f"give '{required[0]}' a default",
        )
    try:
        config = configure(cls, {}, str(offer))
    except ValidationError as err:
        raise PluginError(
            f"{offer} refuses its own defaults: {err.errors()[0]['msg']}", "change the defaults"
        ) from None
    made = construct(cls, config, str(offer))
    made.instance = offer.name
    assert isinstance(made, Format)
    if isinstance(made, EventFormat):
        made.container = contained
    return made


def needed(cls: type[Component]) -> list[str]:
    """The options of a class that have no default."""
    return [field.alias or name for name, field in cls.Config.model_fields.items() if field.is_required()]


def _is_there(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
