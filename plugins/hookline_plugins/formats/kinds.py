"""What the columns of rows become in a columnar file, so that reading gives the same values again.

A column whose values have one type keeps it. A column with several types, or with objects of different keys, is written
as JSON, type `arrow.json`: Arrow would give every object the keys of all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from hookline import DataError, Record
from hookline_plugins.formats.columns import SLICE, library

__all__ = ["Table", "features", "writing"]

Kind = Any
"""None for null, a word of `WORDS`, `json`, `("list", kind)`, or `("struct", {key: kind})`."""
WORDS = {"text": "string", "bool": "bool_", "int": "int64", "long": "int64", "float": "float64"}
"""Kinds → the function of pyarrow that gives their type."""
FEATURES = {None: "null", "text": "string", "bool": "bool", "int": "int64", "long": "int64", "float": "float64"}
"""Kinds → what the `datasets` library calls them."""
DEEPEST = 16
"""Values that are nested deeper are written as JSON: readers of Arrow have limits."""
EXACT, LONGEST = 1 << 53, 1 << 63
"""Whole numbers up to the first are the same as floats; those from the second on have no type."""


def kind_of(value: Any, deep: int = 0) -> Kind:
    """The kind of one value."""
    if isinstance(value, str):
        return "text"
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= EXACT else "long" if -LONGEST <= value < LONGEST else "json"
    if isinstance(value, float):
        return "float"
    if deep == DEEPEST:
        return "json"
    if isinstance(value, list):
        inner: Kind = None
        for item in value:
            inner = both(inner, kind_of(item, deep + 1))
        return "json" if inner == "json" else ("list", inner)
    parts = {key: kind_of(item, deep + 1) for key, item in value.items()}
    # reading leaves out keys without a value, and Parquet has no objects without keys
    odd = not parts or "" in parts or any(part in (None, "json") for part in parts.values())
    return "json" if odd else ("struct", parts)


def both(one: Kind, other: Kind) -> Kind:
    """The kind of values of which some have one kind, and some the other."""
    if other is None or one is other:
        return one
    if one is None:
        return other
    if isinstance(one, str) or isinstance(other, str):
        if one == other:
            return one
        pair = {one, other} if isinstance(one, str) and isinstance(other, str) else set()
        return "float" if pair == {"int", "float"} else "long" if pair == {"int", "long"} else "json"
    if one[0] != other[0]:
        return "json"
    if one[0] == "list":
        inner = both(one[1], other[1])
        return "json" if inner == "json" else ("list", inner)
    if list(one[1]) != list(other[1]):
        return "json"
    parts = {key: both(part, other[1][key]) for key, part in one[1].items()}
    return "json" if "json" in parts.values() else ("struct", parts)


class Table:
    """Rows as batches of columns."""

    def __init__(self, path: Path, rows: Iterable[Record]) -> None:
        """Reads all rows, to know the kinds of their columns."""
        self._pyarrow, self._rows = library(path), rows
        self.kinds: dict[str, Kind] = {}
        self.count = 0
        for row in rows:
            self.count += 1
            for name, value in row.items():
                known = self.kinds.get(name)
                self.kinds[name] = known if known == "json" else both(known, kind_of(value))
        if not self.kinds:
            raise DataError(f"{path} cannot be written: its rows have no columns", "give them at least one")
        self.schema = self._pyarrow.schema([(name, self._type(kind)) for name, kind in self.kinds.items()])

    def batches(self) -> Iterator[Any]:
        """The rows, some at a time."""
        rows = iter(self._rows)
        while some := list(islice(rows, SLICE)):
            yield self._pyarrow.record_batch([self._column(name, some) for name in self.kinds], schema=self.schema)

    def _column(self, name: str, rows: list[Record]) -> Any:
        pyarrow, kind, values = self._pyarrow, self.kinds[name], [row.get(name) for row in rows]
        if kind != "json":
            return pyarrow.array(values, self._type(kind))
        texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
        return pyarrow.ExtensionArray.from_storage(pyarrow.json_(), pyarrow.array(texts, pyarrow.string()))

    def _type(self, kind: Kind) -> Any:
        pyarrow = self._pyarrow
        if kind is None:
            return pyarrow.null()
        if kind == "json":
            return pyarrow.json_()
        if isinstance(kind, str):
            return getattr(pyarrow, WORDS[kind])()
        if kind[0] == "list":
            return pyarrow.list_(self._type(kind[1]))
        return pyarrow.struct([(key, self._type(part)) for key, part in kind[1].items()])


def features(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """The columns as the `datasets` library describes them."""
    return {name: _feature(kind) for name, kind in kinds.items()}


def _feature(kind: Kind) -> Any:
    if kind == "json":
        return {"_type": "Json"}
    if kind is None or isinstance(kind, str):
        return {"dtype": FEATURES[kind], "_type": "Value"}
    if kind[0] == "list":
        return {"feature": _feature(kind[1]), "_type": "List"}
    return features(kind[1])


@contextmanager
def writing(path: Path, kind: str) -> Iterator[None]:
    """Turn an error of the library into one sentence that names the file. kind: `a Parquet file`."""
    pyarrow = library(path)
    try:
        yield
    except pyarrow.ArrowException as err:
        if isinstance(err, OSError):
            raise
        why = next(iter(str(err).splitlines()), type(err).__name__)[:200]
        raise DataError(f"{path} cannot be written as {kind}: {why}", "name a .jsonl file") from None
