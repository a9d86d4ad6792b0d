"""What a file of rows holds, as training would see it: columns, lengths, an example with its mask, and what is wrong with it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hookline.batch.encoded import Record
from hookline.config.data import DataSpec
from hookline.contract.event_format import EventFormat
from hookline.contract.settled import settled_rows
from hookline.data.judged import EVENTS, as_event, as_row
from hookline.data.messages import speaker
from hookline.data.reading import prompt_of
from hookline.data.rows import Rows
from hookline.data.sources import Catalogue
from hookline.data.writing import shaped
from hookline.errors import DataError, ExperimentError, HooklineError
from hookline.files.formats import event_formats, format_and_file
from hookline.files.writing import written
from hookline.storage.paths import adapter_base, expanded, model_folder, tokenizer_folder
from hookline.tokens.encode import answers_of, encode
from hookline.tokens.peek import pieces
from hookline.tokens.tokenizer import Tokenizer

__all__ = ["Finding", "Inspection", "convert_data", "inspect_data", "rows", "validate_data"]

NAME = "data"
"""What the data is called in a section made for one command."""
ANSWERS = ("chosen", "rejected", "completion")
LOPSIDED = 0.99
"""The share of one label above which the labels tell too little."""


@dataclass
class Inspection:
    """What the rows of a dataset are."""

    rows: int
    """How many rows there are."""
    sha256: str
    """The hash of what they hold, whatever their file looks like."""
    shape: str
    """How the columns are understood; empty for files that have Hookline's fields."""
    kind: str
    """What the rows are for: `preferences`, `answers`, `prompts`, `text`, or nothing."""
    columns: dict[str, str]
    """Column → the types of its values, and how many rows lack it."""
    roles: dict[str, int]
    """Who speaks in conversations → the number of messages."""
    lengths: dict[str, dict[str, float]]
    """`prompt`, `answer` → median, 95th percentile and maximum, in tokens with a model, else in characters."""
    unit: str
    """What lengths are counted in: `tokens` or `characters`."""
    example: list[tuple[str, bool]]
    """The first row as the model sees it: pieces of text, and whether each is learned. Empty without a model."""
    notes: list[str] = field(default_factory=list)
    """What was chosen or left out."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with rows, or may be."""

    what: str
    """A sentence about such a row, without its subject."""
    rows: int
    """How many rows have it."""
    where: str
    """The first of them."""
    error: bool
    """Whether training refuses such a row; else it is a warning."""


def rows(name: str, **options: Any) -> Rows:
    """All rows of a file, a folder, or a task's split, e.g. `hookline.rows("qa.parquet", columns={"prompt": "question"})`.

    options: as in the section `data` of an experiment. Raises DataError naming file, row and column.
    """
    catalogue, asked = _opened(name, options)
    return catalogue.rows(asked)


def inspect_data(name: str, *, model: str | Path | None = None, **options: Any) -> Inspection:
    """Read all rows of a data name and describe them.

    model: a transformers folder or a run, for lengths in tokens and the first row as the model sees it. options: as in the
    section `data` of an experiment. Raises DataError for rows that cannot be read.
    """
    catalogue, asked = _opened(name, options)
    found = catalogue.rows(asked)
    tokenizer = _tokenizer(model)
    types: dict[str, Counter[str]] = {}
    roles: Counter[str] = Counter()
    sizes: dict[str, list[int]] = {"prompt": [], "answer": []}
    for where, record in found.placed():
        for column, value in record.items():
            types.setdefault(column, Counter())[_type(value)] += 1
        roles.update(_speakers(record))
        for part, size in _sizes(record, tokenizer, where):
            sizes[part].append(size)
    records = [record for _, record in catalogue.first(asked)]
    return Inspection(
        rows=len(found),
        sha256=found.sha256,
        shape=catalogue.shape(asked),
        kind=_kind(records[0]) if records else "",
        columns={column: _types(counts, len(found)) for column, counts in types.items()},
        roles=dict(roles.most_common()),
        lengths={part: _spread(values) for part, values in sizes.items() if values},
        unit="tokens" if tokenizer else "characters",
        example=_example(records[0], tokenizer) if records and tokenizer else [],
        notes=list(found.notes),
    )


def validate_data(
    name: str, *, model: str | Path | None = None, longest: int | None = None, **options: Any
) -> tuple[int, list[Finding]]:
    """Check every row as training would. Returns the number of rows and the findings, errors first.

    model, options: as for `inspect_data`. longest: the maximum number of tokens of a row; default: the model's context.
    Raises DataError for a file that cannot be read at all.
    """
    catalogue, asked = _opened(name, options)
    found = catalogue.rows(asked)
    tokenizer = _tokenizer(model)
    limit = longest or _context(model)
    seen = _Seen()
    first = found.records[0]
    for note in found.notes:
        seen.say(note, name)
    for where, record in found.placed():
        _check(seen, record, where, first, tokenizer, limit)
        if first.get("label") is not None and not isinstance(record.get("label"), bool | int | float):
            seen.say("has a `label` that is not true, false or a number", where, error=True)
    seen.labels()
    for other in catalogue.others(asked):
        seen.leaks(other)
    return len(found), seen.findings()


def convert_data(name: str, file: str | Path, *, to: str | None = None, overwrite: bool = False, **options: Any) -> int:
    """Write the rows of a data name to a file, whose ending says the format. Returns the number of rows.

    to: the shape to write, e.g. `messages` or `alpaca`, an event format, e.g. `argilla`, or `events`; default: the rows as they
    are read. options: as for `inspect_data`. Raises DataError for a row that does not have the shape, and for a file that
    cannot be written.
    """
    forms = {one.instance for one in event_formats()}
    if to in forms:
        file = f"{to}:{file}"
    judged = to == EVENTS or isinstance(format_and_file(str(file))[0], EventFormat)
    catalogue, asked = _opened(name, {"shape": EVENTS, **_given(options)} if judged else options)
    found = catalogue.rows(asked)
    placed: Iterable[tuple[str, Record]] = found.placed()
    if to and not judged and {"answer", "candidates"} <= found.records[0].keys():
        counting = set(settled_rows(found.records))
        placed = (one for i, one in enumerate(placed) if i in counting)
    made = (_converted(record, where, None if to in forms else to, judged) for where, record in placed)
    return written(expanded(Path(file)), made, overwrite=overwrite)


def _converted(record: Record, where: str, to: str | None, judged: bool) -> Record:
    """A row on its way into a file: as an event, in a shape, or as it is."""
    if judged:
        event = as_event(record, where)
        if event is None:
            raise DataError(
                f"{where} judges nothing, so it is not an event", f"the row has: {', '.join(record) or 'nothing'}"
            )
        return event.written()
    if not to:
        return record
    event = as_event(record, where) if {"answer", "candidates"} <= record.keys() else None
    return shaped(as_row(event, where) if event else record, to, where)


def _opened(name: str, options: Mapping[str, Any]) -> tuple[Catalogue, str]:
    """A catalogue in which a data name is read with options of the section `data`, and the name to ask for."""
    given = _given(options)
    if not given:
        return Catalogue(), name
    try:
        spec = DataSpec.model_validate({"path": name, **given})
    except ValidationError as err:
        first = err.errors()[0]
        key = ".".join(map(str, first["loc"])) or "data"
        raise ExperimentError(f"{key}: {first['msg']}", f"options: {', '.join(DataSpec.model_fields)}") from None
    return Catalogue(named={NAME: spec}), NAME


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value not in (None, {}, (), [], False)}


class _Seen:
    """What was found while going through the rows."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, bool], list[Any]] = {}
        self._rows: dict[str, str] = {}
        self._prompts: set[str] = set()
        self._labels: Counter[str] = Counter()
        self._ids: dict[str, str] = {}

    def say(self, what: str, where: str, error: bool = False) -> None:
        entry = self._found.setdefault((what, error), [0, where])
        entry[0] += 1

    def row(self, record: Record, where: str) -> None:
        text = json.dumps(record, sort_keys=True, default=str)
        if self._rows.setdefault(text, where) != where:
            self.say("repeats an earlier row", where)
        name = record.get("id")
        if isinstance(name, str | int) and self._ids.setdefault(str(name), text) != text:
            self.say("has the `id` of an earlier row with other content", where)
        self._prompts.add(json.dumps(prompt_of(record), sort_keys=True, default=str))
        if record.get("label") is not None:
            self._labels[repr(record["label"])] += 1

    def labels(self) -> None:
        total = sum(self._labels.values())
        for label, count in self._labels.most_common(1):
            if count / total > LOPSIDED and total > 1:
                self._found["almost all labels are " + label, False] = [count, "the labels"]

    def leaks(self, other: Rows) -> None:
        """Count the prompts of another split that this one has, too."""
        for where, record in other.placed():
            if json.dumps(prompt_of(record), sort_keys=True, default=str) in self._prompts:
                self.say(f"prompts of '{other.name}' that are here, too", where)

    def findings(self) -> list[Finding]:
        every = [Finding(what, count, where, error) for (what, error), (count, where) in self._found.items()]
        return sorted(every, key=lambda one: (not one.error, -one.rows))


def _check(
    seen: _Seen, record: Record, where: str, first: Record, tokenizer: Tokenizer | None, limit: int | None
) -> None:
    """Check a row, which must be for what the first one is for."""
    seen.row(record, where)
    kind, has = _kind(first), _kind(record)
    if not has or not kind:
        seen.say("has no field that training reads", where, error=True)
        return
    asked = answers_of(first)
    if has != kind and not (kind == "prompts" and has == "answers"):
        lost = next((name for name in asked if name and record.get(name) is None), kind)
        seen.say(f"has no '{lost}', unlike the first row", where, error=True)
        return
    if kind == "preferences" and record["chosen"] == record["rejected"]:
        seen.say("compares identical answers, which are left out", where)
    for name in asked:
        if name and isinstance(record.get(name), str) and not record[name].strip():
            seen.say(f"has an empty '{name}'", where)
    if tokenizer is None or kind == "text":
        return
    for name in asked:
        try:
            row = encode(tokenizer, record, answer=name, where=where)
        except HooklineError as err:
            seen.say(_general(err.message, where), where, error=True)
            return
        if limit is not None and len(row) > limit:
            seen.say(f"is longer than {limit} tokens", where)
            return
        if tokenizer.unknown is not None and tokenizer.unknown in (*row.prompt_ids, *row.answer_ids):
            seen.say("has words that the tokenizer does not know", where)


def _general(message: str, where: str) -> str:
    """A sentence without the row's position, so that equal ones are counted together."""
    return re.sub(r"^[:,] ", "", message.removeprefix(where)).strip()


def _kind(record: Record) -> str:
    has = {name for name, value in record.items() if value is not None}
    if {"chosen", "rejected"} <= has:
        return "preferences"
    if {"messages", "conversations"} & has or {"prompt", "completion"} <= has:
        return "answers"
    return "prompts" if "prompt" in has else "text" if "text" in has else ""


def _tokenizer(model: str | Path | None) -> Tokenizer | None:
    return Tokenizer.load(Path(tokenizer_folder(model_folder(str(model))))) if model else None


def _context(model: str | Path | None) -> int | None:
    if not model:
        return None
    from hookline.models.folder import positions

    folder = model_folder(str(model))
    return positions(None, adapter_base(folder) or folder)


def _sizes(record: Record, tokenizer: Tokenizer | None, where: str) -> Iterator[tuple[str, int]]:
    """The length of a row's prompt and of each of its answers."""
    kind = _kind(record)
    if kind == "text":
        text = record["text"]
        yield "answer", len(tokenizer.encode(text)) if tokenizer else len(str(text))
    if kind in ("", "text"):
        return
    names = answers_of(record)
    if tokenizer is None:
        yield "prompt", _characters(prompt_of(record))
        for answer in ANSWERS:
            if answer in record:
                yield "answer", _characters(record[answer])
        return
    rows = [encode(tokenizer, record, answer=name, where=where) for name in names]
    yield "prompt", len(rows[0].prompt_ids)
    for row, name in zip(rows, names):
        if name:
            yield "answer", len(row.answer_ids)


def _characters(value: Any) -> int:
    if isinstance(value, list):
        return sum(len(str(one.get("content") or one.get("value") or "")) for one in value if isinstance(one, Mapping))
    return len(str(value or ""))


def _example(record: Record, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    kind = _kind(record)
    if kind in ("", "text"):
        return [(str(record.get("text", "")), True)]
    return pieces(encode(tokenizer, record, answer=answers_of(record)[0], where="the first row"), tokenizer)


def _type(value: Any) -> str:
    if isinstance(value, list):
        return "messages" if value and isinstance(value[0], Mapping) and {"role", "from"} & value[0].keys() else "list"
    names = {str: "text", bool: "true or false", int: "number", float: "number", dict: "object", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _types(counts: Counter[str], rows: int) -> str:
    missing = rows - sum(counts.values())
    shown = ", ".join(name if len(counts) == 1 else f"{name} ({count})" for name, count in counts.most_common())
    return f"{shown}; missing in {missing}" if missing else shown


def _speakers(record: Record) -> Iterator[str]:
    for value in record.values():
        for one in value if isinstance(value, list) else ():
            if who := speaker(one):
                yield who


def _spread(values: Sequence[int]) -> dict[str, float]:
    ordered = sorted(values)
    middle, high = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"median": middle, "p95": high, "max": ordered[-1]}
