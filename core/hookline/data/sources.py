"""Reads the rows of a data name: `builtin:NAME/SPLIT?option=value`, `task:NAME/SPLIT`, a file or a folder, or a name of the
experiment's section `data`.

Rows are read strictly and hashed.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from hookline.batch.stages import Record
from hookline.config.data import DataSpec, Part
from hookline.data import info, places
from hookline.data.names import is_task, options_of
from hookline.data.places import Place
from hookline.data.reading import FIRST, MISSING, Reading, column, prompt_of, reading_of
from hookline.data.rows import Rows, digest, joined, mixed, seen
from hookline.data.tasks import task_and_split, task_offer
from hookline.errors import DataError, HooklineError, PluginError, cause, nearest, shorten
from hookline.files import formats
from hookline.registry.offers import Offer
from hookline.storage.folders import look
from hookline.storage.paths import beside

__all__ = ["Catalogue"]

HELD = ("train", "heldout")
"""The splits of data with a held-out share."""


@dataclass(frozen=True)
class Catalogue:
    """Where data names lead, in one experiment."""

    loose: tuple[Offer, ...] = ()
    """The formats and tasks of loose files."""
    named: Mapping[str, DataSpec] = field(default_factory=dict)
    """The experiment's section `data`."""
    folder: str = ""
    """Where relative paths begin; empty: where the process is."""

    def exists(self, name: str) -> None:
        """Raise DataError for a data name without data; the data itself is not read."""
        if is_task(name):
            task, split = task_and_split(name, self.loose)
            if split not in task.splits:
                raise DataError(
                    f"{name}: there is no split '{split}'{nearest(split, task.splits)}", f"splits: {list(task.splits)}"
                )
            return
        spec, _ = self._spec(name)
        for part in spec.path:
            if is_task(part.path):
                self.exists(part.path)
            else:
                self._places(spec, part)

    def offers(self, name: str) -> list[Offer]:
        """The tasks and formats behind a data name that `exists` has accepted."""
        if is_task(name):
            return [task_offer(name, self.loose)]
        spec, _ = self._spec(name)
        found: list[Offer] = []
        for part in spec.path:
            if is_task(part.path):
                found.append(task_offer(part.path, self.loose))
            else:
                readers = {place.reader.instance: place.reader for place in self._places(spec, part)[0].places}
                found += [formats.offer_of(reader, self.loose) for reader in readers.values()]
        return found

    def rows(self, name: str) -> Rows:
        """All rows of a data name. Raises DataError naming file, row and field.

        A process reads and hashes a file or a task's split only once, even under different names; it reads a file again if
        its size, modification time or inode has changed.
        """
        if is_task(name):
            return self._task(name)
        spec, held = self._spec(name)
        parts = [self._part(spec, part) for part in spec.path]
        weights = [part.weight for part in spec.path if part.weight is not None]
        whole = mixed(parts, weights, name) if len(parts) > 1 and weights else joined(parts, name)
        found = _kept(whole, spec, held)
        if not len(found) and held and len(whole):
            raise DataError(
                f"{name}: none of {len(whole)} rows is in this part, since few of their prompts differ",
                f"change the share `heldout`, now {spec.heldout:g}",
            )
        if not len(found):
            raise DataError(
                f"{name}: 0 of {len(whole)} rows are usable", "; ".join(found.notes) or "give it at least one row"
            )
        return found

    def first(self, name: str) -> list[tuple[str, Record]]:
        """The first rows of each source of a data name, with their positions; no more is read than these rows.

        Rows that a `filter` leaves out are left out here, too. Raises DataError as `rows` does for these rows.
        """
        if is_task(name):
            task, split = task_and_split(name, self.loose)
            return [(f"{name} row {i}", row) for i, row in enumerate(islice(task.rows(split), FIRST), 1)]
        spec, held = self._spec(name)
        heads = [(part, self._head(spec, part)) for part in spec.path]
        if all(len(some) < FIRST for _, some in heads):  # these are all rows
            return list(islice(self.rows(name).placed(), FIRST))
        found: list[tuple[str, Record]] = []
        for part, some in heads:
            reading = self._reading(spec, part, [row for _, row in some], part.path)
            read = ((where, reading(row, where)) for where, row in some)
            found += [(where, row) for where, row in read if row is not None and not _unwanted(row, spec, where)]
        return [(where, row) for where, row in found if not held or _held(row, spec) is (held == "heldout")]

    def _head(self, spec: DataSpec, part: Part) -> list[tuple[str, Record]]:
        """The first rows of a source in its first file; all of them if they are fewer than FIRST."""
        if is_task(part.path):
            return self.first(part.path)
        places = self._places(spec, part)[0].places
        some = [(f"{places[0].name} row {i}", row) for i, row in enumerate(_first(places[0]), 1)]
        return some if len(places) == 1 or len(some) == FIRST else [*some, *(some * FIRST)][:FIRST]

    def decided(self, name: str) -> str:
        """How the rows of a data name are read, where that is not plain from the name; empty where it is."""
        if is_task(name):
            return ""
        spec, held = self._spec(name)
        shape = self.shape(name)
        several = [part.path if part.weight is None else f"{part.path} (weight {part.weight:g})" for part in spec.path]
        found = ["" if is_task(part.path) else self._places(spec, part)[0].note for part in spec.path]
        said = [
            " and ".join(several) if spec.path[0].path != name else "",
            *found,
            f"columns as '{shape}'" if shape else "",
            "text as messages" if spec.chat else "",
            f"filtered by {', '.join(spec.filter)}" if spec.filter else "",
            "one row per prompt" if spec.unique else "",
            f"{spec.heldout:.0%} of the prompts {'alone' if held == 'heldout' else 'held out'}" if held else "",
        ]
        return "; ".join(filter(None, said))

    def shape(self, name: str) -> str:
        """The name of the shape of a data name's rows; empty for rows that have Hookline's fields."""
        if is_task(name):
            return ""
        spec, _ = self._spec(name)
        part = spec.path[0]
        if is_task(part.path):
            first: Sequence[Record] = [row for _, row in self.first(part.path)]
        else:
            first = _first(self._places(spec, part)[0].places[0])
        reading = self._reading(spec, part, first, part.path)
        return reading.shape.name if reading.shape else ""

    def others(self, name: str) -> list[Rows]:
        """The rows of the other splits of a data name: of what is held out, and of a folder's other splits."""
        if is_task(name):
            return []
        spec, held = self._spec(name)
        if held:
            whole = name.partition("/")[0]
            return [self.rows(f"{whole}/{split}") for split in HELD if split != held]
        found = []
        for part in spec.path:
            for split in () if is_task(part.path) else self._places(spec, part)[0].others:
                rows = self._part(spec.model_copy(update={"split": split}), part)
                found.append(replace(rows, name=f"{part.path}?split={split}"))
        return found

    # -- one source

    def _spec(self, name: str) -> tuple[DataSpec, str]:
        """How the data of a name is read, and which of its splits is asked for."""
        if not name:
            raise DataError("an empty text is not the name of data", "give a path, or builtin:NAME/SPLIT")
        head, _, split = name.partition("/")
        if head in self.named:
            spec = self.named[head]
            if split and (split not in HELD or not spec.heldout):
                has = "train, heldout" if spec.heldout else "none, as it has no `heldout` share"
                raise DataError(f"{name}: '{head}' has no split '{shorten(split)}'", f"splits: {has}")
            return spec, split or ("train" if spec.heldout else "")
        path, options = (name, {}) if os.path.exists(beside(name, self.folder)) else options_of(name)
        return DataSpec(path=(Part(path=path, **options),)), ""

    def _places(self, spec: DataSpec, part: Part) -> tuple[places.Found, Any]:
        """The files of a source, and how they are read."""
        read = spec.read(part)
        path = Path(beside(part.path, self.folder))
        entries = info.entries_of(path) if path.name == info.FILE or read.subset is not None else {}
        if entries and (path.name == info.FILE or read.subset in entries):
            file, own = info.entry_of(part.path, path, read.subset)
            read = read.model_copy(update={**own, "subset": None})
            return places.find(str(file), self.loose, "", read.split, None), read
        return places.find(part.path, self.loose, self.folder, read.split, read.subset), read

    def _reading(self, spec: DataSpec, part: Part, first: Sequence[Record], where: str, read: Any = None) -> Reading:
        read = read or (spec.read(part) if is_task(part.path) else self._places(spec, part)[1])
        return reading_of(
            first, where, shape=read.shape, columns=read.columns, message=read.message, roles=read.roles,
            chat=spec.chat, system=spec.system,
        )  # fmt: skip

    def _part(self, spec: DataSpec, part: Part) -> Rows:
        """The rows of one source with Hookline's fields."""
        if is_task(part.path):
            self.exists(part.path)
            raw, found, read = self._task(part.path), None, None
        else:
            found, read = self._places(spec, part)
            raw = joined([_file(place) for place in found.places], part.path)
            if not len(raw):
                raise DataError(f"{part.path}: 0 usable rows: the file has none", "give it at least one row")
            if found.note:
                raw = Rows(raw.name, raw.records, raw.sha256, (*raw.notes, f"{part.path}: {found.note}"))
        reading = self._reading(spec, part, raw.records[:FIRST], part.path, read)
        wanted = found.part(len(raw)) if found else range(len(raw))
        if not reading.changes:
            return raw if len(wanted) == len(raw) else seen(raw, wanted, f"rows {wanted}")
        index = array("Q", (i for i in wanted if reading(raw.records[i], raw.place(i)) is not None))
        silent = len(wanted) - len(index)
        notes = [f"{part.path}: {silent} of {len(wanted)} rows prefer no answer and were left out"] if silent else []
        return seen(raw, index, f"rows {wanted}; {reading.changes}", reading, notes)

    def _task(self, name: str) -> Rows:
        self.exists(name)
        task, split = task_and_split(name, self.loose)
        return _once(name, (task, split), lambda: _hashed(tuple(task.rows(split))))


# -- which rows are kept


def _kept(rows: Rows, spec: DataSpec, held: str) -> Rows:
    """The rows that the filter keeps, of each prompt one where they are to be unique, and of the split that is asked for."""
    if not (spec.filter or spec.unique or held):
        return rows
    index, left, prompts = array("Q"), Counter[str](), set[bytes]()
    for i, (where, record) in enumerate(rows.placed()):
        reason = _unwanted(record, spec, where)
        if not reason and (spec.unique or held):
            prompt = _hash(record)
            if spec.unique and prompt in prompts:
                reason = "repeat a prompt"
            elif held and _held(record, spec) is not (held == "heldout"):
                continue
            prompts.add(prompt) if spec.unique else None
        if reason:
            left[reason] += 1
        else:
            index.append(i)
    notes = [f"{rows.name}: {count} of {len(rows)} rows {reason} and were left out" for reason, count in left.items()]
    says = f"{spec.model_dump_json(include={'filter', 'unique', 'heldout'})} {held}"
    return seen(rows, index, says, notes=notes)


def _hash(record: Record) -> bytes:
    return hashlib.sha256(json.dumps(prompt_of(record), sort_keys=True, default=str).encode()).digest()


def _held(record: Record, spec: DataSpec) -> bool:
    """Whether a row belongs to the held-out share."""
    return int.from_bytes(_hash(record)[:8], "big") < spec.heldout * 2**64


def _unwanted(record: Record, spec: DataSpec, where: str) -> str:
    """Why the filter leaves out a row; empty if it keeps it. Raises DataError for a column that the row does not have."""
    for name, wanted in spec.filter.items():
        value = column(record, name)
        if value is MISSING:
            raise DataError(
                f"{where} has no column '{name}', which `filter` names",
                f"the row has: {', '.join(record) or 'nothing'}",
            )
        if wanted.values is None:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise DataError(f"{where}: '{name}' is {value!r:.40}, not a number", "filter it by values: [a, b]")
            keeps = (wanted.min is None or value >= wanted.min) and (wanted.max is None or value <= wanted.max)
        else:
            keeps = any(value == one and isinstance(value, bool) is isinstance(one, bool) for one in wanted.values)
        if not keeps:
            return f"have another `{name}`"
    return ""


# -- reading files


_known: dict[tuple[Any, ...], tuple[Sequence[Record], str]] = {}
"""The records and hash of all data that this process has read, by reader and place."""
MOST_KNOWN = 32


def _once(name: str, key: tuple[Any, ...], read: Callable[[], tuple[Sequence[Record], str]]) -> Rows:
    if key not in _known:
        _known[key] = read()
        if len(_known) > MOST_KNOWN:
            del _known[next(iter(_known))]
    return Rows(name, *_known[key])


def _hashed(records: Sequence[Record]) -> tuple[Sequence[Record], str]:
    return records, digest(records)


def _file(place: Place) -> Rows:
    try:
        return _once(place.name, _key(place), lambda: _read(place))
    except OSError as err:
        raise DataError(
            f"{place.name} cannot be read: {err.strerror or err}", "check its permissions and the disk"
        ) from None


def _key(place: Place) -> tuple[Any, ...]:
    """What tells a file, or a folder that is one table, from what was read before."""
    inside = sorted(place.path.iterdir()) if place.path.is_dir() else []
    return (place.reader, place.path.absolute(), *(look(path.stat()) for path in (place.path, *inside)))


def _read(place: Place) -> tuple[Sequence[Record], str]:
    """The checked rows of a format, and their hash."""
    found: Sequence[Record] = _guarded(place, lambda: formats.opened(place.reader, place.path))
    return found, _guarded(place, lambda: digest(_shown(place, found)))


def _first(place: Place) -> Sequence[Record]:
    """The first rows of a file, which is read no further."""
    try:
        key = ("first", *_key(place))
        peek = lambda: list(islice(_shown(place, formats.peeked(place.reader, place.path)), FIRST))  # noqa: E731
        return _once(place.name, key, lambda: (_guarded(place, peek), "")).records
    except OSError as err:
        raise DataError(
            f"{place.name} cannot be read: {err.strerror or err}", "check its permissions and the disk"
        ) from None


def _guarded(place: Place, read: Callable[[], Any]) -> Any:
    """What a format answers. Any unexpected exception in it becomes a PluginError."""
    try:
        return read()
    except (HooklineError, OSError):
        raise
    except Exception as err:
        raise PluginError(
            f"format '{place.reader.instance}' failed on {place.path}: {cause(err)}", "raise DataError for a bad file"
        ) from err


def _shown(place: Place, records: Iterable[object]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        if not isinstance(record, Mapping) or not all(isinstance(key, str) for key in record):
            what = "keys that are not text" if isinstance(record, Mapping) else type(record).__name__
            raise PluginError(
                f"format '{place.reader.instance}' returns {what} for {place.path} row {number}",
                "yield a mapping with text keys",
            )
        yield record
