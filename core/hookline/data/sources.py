"""Reads the rows of a data name: `builtin:NAME/SPLIT?option=value`, `task:NAME/SPLIT`, a file or a folder, or a name of the
experiment's section `data`.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from hookline.batch.stages import Record
from hookline.config.data import DataSpec, Part
from hookline.data.names import is_task, options_of
from hookline.data.reading import FIRST, MISSING, Reading, column, prompt_of, reading_of
from hookline.data.rows import Rows, joined, mixed, seen
from hookline.data.source import Files, Source, Split
from hookline.data.stores import Stored, is_store
from hookline.errors import DataError, shorten
from hookline.registry.offers import Offer
from hookline.storage.paths import beside

__all__ = ["Catalogue"]

HELD = ("train", "heldout")
"""The splits of data with a held-out share."""


@dataclass(frozen=True)
class _Asked:
    """What a data name asks for."""

    spec: DataSpec
    held: str
    """The split of data with a held-out share; empty for other data."""
    sources: tuple[Source, ...]

    def reading(self, source: Source, first: Sequence[Record]) -> Reading:
        """How a source's rows become rows with Hookline's fields, by its first rows."""
        return reading_of(first, source.name, source.how, self.spec) if source.how else Reading()

    def leaves_out(self, record: Record, where: str) -> bool:
        """Whether a row is not used, whatever the other rows are."""
        unwanted = _unwanted(record, self.spec, where)
        return bool(unwanted) or (self.held != "" and _is_held(_prompt(record), self.spec) is (self.held == "train"))


@dataclass(frozen=True)
class Catalogue:
    """Where data names lead, in one experiment."""

    loose: tuple[Offer, ...] = ()
    """The formats and tasks of loose files."""
    named: Mapping[str, DataSpec] = field(default_factory=dict)
    """The experiment's section `data`."""
    folder: str = ""
    """Where relative paths begin; empty: where the process is."""
    _known: dict[str, _Asked] = field(default_factory=dict, repr=False, compare=False)
    """The names that were looked up: a folder is searched once."""

    def exists(self, name: str) -> None:
        """Raise DataError for a data name without data; the data itself is not read."""
        self._asked(name)

    def offers(self, name: str) -> list[Offer]:
        """The tasks and formats behind a data name that `exists` has accepted."""
        return [offer for source in self._asked(name).sources for offer in source.offers()]

    def rows(self, name: str) -> Rows:
        """All rows of a data name. Raises DataError naming file, row and field.

        A process reads and hashes a file or a task's split only once, even under different names; it reads a file again if
        its size, modification time or inode has changed.
        """
        asked = self._asked(name)
        parts = [_read(asked, source) for source in asked.sources]
        weights = [source.weight for source in asked.sources if source.weight is not None]
        whole = mixed(parts, weights, name) if len(parts) > 1 and weights else joined(parts, name)
        found = _kept(whole, asked)
        if not len(found) and asked.held and len(whole):
            raise DataError(
                f"{name}: none of {len(whole)} rows is in this part, since few of their prompts differ",
                f"change the share `heldout`, now {asked.spec.heldout:g}",
            )
        if not len(found):
            raise DataError(
                f"{name}: 0 of {len(whole)} rows are usable", "; ".join(found.notes) or "give it at least one row"
            )
        return found

    def first(self, name: str) -> list[tuple[str, Record]]:
        """The first rows of each source of a data name that are used, with their positions.

        No more is read than the first FIRST rows of each source; of sources that have no more, all. Raises DataError as
        `rows` does for these rows.
        """
        asked = self._asked(name)
        heads = [source.head() for source in asked.sources]
        if all(whole for _, whole in heads):
            return list(islice(self.rows(name).placed(), FIRST))
        found: list[tuple[str, Record]] = []
        for source, (some, _) in zip(asked.sources, heads):
            reading = asked.reading(source, [row for _, row in some])
            read = ((where, reading(row, where)) for where, row in some)
            found += [(where, row) for where, row in read if row is not None and not asked.leaves_out(row, where)]
        return found

    def decided(self, name: str) -> str:
        """How the rows of a data name are read, where that is not plain from the name; empty where it is."""
        asked, shape = self._asked(name), self.shape(name)
        spec, sources = asked.spec, asked.sources
        shown = [one.name if one.weight is None else f"{one.name} (weight {one.weight:g})" for one in sources]
        said = [
            " and ".join(shown) if sources[0].name != name else "",
            *(source.note for source in sources),
            f"columns as '{shape}'" if shape else "",
            "text as messages" if spec.chat else "",
            f"filtered by {', '.join(spec.filter)}" if spec.filter else "",
            "one row per prompt" if spec.unique else "",
            f"{spec.heldout:.0%} of the prompts {'alone' if asked.held == 'heldout' else 'held out'}"
            if asked.held
            else "",
        ]
        return "; ".join(filter(None, said))

    def shape(self, name: str) -> str:
        """The name of the shape, or of the event format, of a data name's rows; empty for rows that have Hookline's fields."""
        asked = self._asked(name)
        source = asked.sources[0]
        if source.form:
            return source.form
        shape = asked.reading(source, [row for _, row in source.head()[0]]).shape
        return shape.name if shape else ""

    def others(self, name: str) -> list[Rows]:
        """The rows of the other splits of a data name: of what is held out, and of a folder's other splits."""
        asked = self._asked(name)
        if asked.held:
            return [self.rows(f"{name.partition('/')[0]}/{split}") for split in HELD if split != asked.held]
        found = []
        for source, part in zip(asked.sources, asked.spec.path):
            for split in source.others:
                how = asked.spec.reads(part).model_copy(update={"split": split})
                other = Files(part, how, self.loose, self.folder)
                found.append(replace(_read(asked, other), name=f"{part.path}?split={split}"))
        return found

    def _asked(self, name: str) -> _Asked:
        if name not in self._known:
            self._known[name] = self._look_up(name)
        return self._known[name]

    def _look_up(self, name: str) -> _Asked:
        if not name:
            raise DataError("an empty text is not the name of data", "give a path, or builtin:NAME/SPLIT")
        if is_task(name):
            return _Asked(DataSpec(path=(Part(path=name),)), "", (Split(name, self.loose),))
        head, _, split = name.partition("/")
        spec, held = self.named.get(head), split
        if spec is None:
            path, options = (name, {}) if os.path.exists(beside(name, self.folder)) else options_of(name)
            spec, held = DataSpec(path=(Part(path=path, **options),)), ""
        elif split and (split not in HELD or not spec.heldout):
            has = "train, heldout" if spec.heldout else "none, as it has no `heldout` share"
            raise DataError(f"{name}: '{head}' has no split '{shorten(split)}'", f"splits: {has}")
        return _Asked(
            spec, held or ("train" if spec.heldout else ""), tuple(self._source(spec, part) for part in spec.path)
        )

    def _source(self, spec: DataSpec, part: Part) -> Source:
        if is_store(part.path):
            return Stored(part, spec.reads(part), self.loose, self.folder)
        if not is_task(part.path):
            return Files(part, spec.reads(part), self.loose, self.folder)
        how = spec.reads(part)
        if how.split or how.subset:
            raise DataError(f"{part.path}: the split of a task is part of its name", "write it so: builtin:NAME/SPLIT")
        return Split(part.path, self.loose, part.weight, how)


def _read(asked: _Asked, source: Source) -> Rows:
    """The rows of one source with Hookline's fields."""
    raw = source.rows()
    wanted = source.part(len(raw))
    reading = asked.reading(source, raw.records[:FIRST])
    if not reading.changes:
        return raw if len(wanted) == len(raw) else seen(raw, wanted, f"rows {wanted}")
    index = array("Q", (i for i in wanted if reading(raw.records[i], raw.place(i)) is not None))
    silent = len(wanted) - len(index)
    notes = [f"{source.name}: {silent} of {len(wanted)} rows prefer no answer and were left out"] if silent else []
    return seen(raw, index, f"rows {wanted}; {reading.changes}", reading, notes)


# -- which rows are kept


def _kept(rows: Rows, asked: _Asked) -> Rows:
    """The rows that the filter keeps, of each prompt one where they are to be unique, and of the split that is asked for."""
    spec, held = asked.spec, asked.held
    if not (spec.filter or spec.unique or held):
        return rows
    index, left, prompts = array("Q"), Counter[str](), set[bytes]()
    for i, (where, record) in enumerate(rows.placed()):
        reason = _unwanted(record, spec, where)
        prompt = _prompt(record) if not reason and (spec.unique or held) else b""
        if spec.unique and prompt in prompts:
            reason = "repeat a prompt"
        if reason:
            left[reason] += 1
            continue
        if held and _is_held(prompt, spec) is (held == "train"):
            continue
        if spec.unique:
            prompts.add(prompt)
        index.append(i)
    notes = [f"{rows.name}: {count} of {len(rows)} rows {reason} and were left out" for reason, count in left.items()]
    says = f"{spec.model_dump_json(include={'filter', 'unique', 'heldout'})} {held}"
    return seen(rows, index, says, notes=notes)


def _prompt(record: Record) -> bytes:
    """A hash of what a row asks."""
    return hashlib.sha256(json.dumps(prompt_of(record), sort_keys=True, default=str).encode()).digest()


def _is_held(prompt: bytes, spec: DataSpec) -> bool:
    """Whether a prompt, by its hash, belongs to the held-out share."""
    return int.from_bytes(prompt[:8], "big") < spec.heldout * 2**64


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
