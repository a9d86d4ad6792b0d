"""Rows of Arrow's columns: values that JSON has, without the keys that columnar files add; pyarrow is imported when needed."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import accumulate
from pathlib import Path
from typing import Any, overload

from hookline import DataError, Record

__all__ = ["SMALL", "Batches", "Columns", "library", "reading"]

SMALL = 8 << 20
"""The maximum size in bytes of a file whose rows are kept in memory."""
SLICE = 1024
"""How many rows become Python's objects at once."""
Convert = Callable[[Any], Any] | None
"""A function from a value as pyarrow gives it to one of JSON; None where it stays as it is."""


def library(path: Path) -> Any:
    """pyarrow. Raises DataError where it is not installed."""
    try:
        import pyarrow
    except ImportError:
        raise DataError(f"{path} needs pyarrow", "pip install 'hookline[data]'") from None
    return pyarrow


@contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Turn an error of the library into one sentence that names the file. kind: `a Parquet file`."""
    pyarrow = library(path)
    try:
        yield
    except DataError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as err:
        if isinstance(err, OSError) and err.errno:
            raise DataError(f"{path} cannot be read: {err.strerror}", "check its permissions and the disk") from None
        why = next(iter(str(err).splitlines()), type(err).__name__)[:200]
        raise DataError(f"{path} is damaged, cut off, or not {kind}: {why}", "write or fetch the file again") from None


class Odd(ValueError):
    """A value that JSON does not have."""


class Columns:
    """The columns of a file, and how their values become rows."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.path, self.names = path, list(schema.names)
        twice = next((name for name in self.names if self.names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{path}: two columns are called '{twice[:60]}'", "rename one of them")
        if not self.names:
            raise DataError(f"{path}: 0 usable rows: it has no columns", "give it at least one row")
        fields = [schema.field(number) for number in range(len(self.names))]
        self._convert = [self._compiled(field.name, field) for field in fields]
        self._casts = [_coarser(field.type, library(path)) for field in fields]

    def _compiled(self, name: str, field: Any) -> Convert:
        try:
            return _converter(field, library(self.path))
        except Odd as err:
            raise self._wrong(f"{self.path}", name, err) from None

    def rows(self, batch: Any, first: int) -> list[Record]:
        """The rows of a batch. first: the index of its first row in the file."""
        columns = []
        for number, name in enumerate(self.names):
            try:
                column, cast = batch.column(number), self._casts[number]
                values = (column.cast(cast, safe=False) if cast else column).to_pylist()
            except (ValueError, OverflowError, KeyError) as err:
                raise self._wrong(f"{self.path} row {first + 1} or later", name, f"cannot be read ({err})") from None
            if convert := self._convert[number]:
                for index, value in enumerate(values):
                    try:
                        values[index] = None if value is None else convert(value)
                    except Odd as err:
                        raise self._wrong(f"{self.path} row {first + index + 1}", name, err) from None
            columns.append(values)
        names = self.names
        return [{name: value for name, value in zip(names, row) if value is not None} for row in zip(*columns)]

    def _wrong(self, where: str, name: str, why: object) -> DataError:
        return DataError(f"{where}: column '{name[:60]}' {why}", "convert that column, or remove it")


class Batches(Sequence[Record]):
    """The rows of a file's batches, each made from its batch on each access; the first iteration checks the batches."""

    def __init__(
        self, columns: Columns, counts: Sequence[int], load: Callable[[int], Any], size: int, kind: str
    ) -> None:
        """counts: the number of rows of each batch; load: the batch of a number; size: of all batches, in bytes."""
        self._columns, self._load, self._kind = columns, load, kind
        self._ends = list(accumulate(counts)) or [0]
        self._size, self._checked = size, False

    def kept(self) -> Sequence[Record]:
        """These rows, in memory if they are few."""
        return tuple(self) if self._size <= SMALL else self

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Record]:
        first = 0
        for number, end in enumerate(self._ends):
            if end == first:
                continue
            with reading(self._columns.path, self._kind):
                batch = self._load(number)
                if not self._checked:
                    batch.validate(full=True)  # places beyond the data would be read otherwise
            for start in range(0, end - first, SLICE):
                yield from self._columns.rows(batch.slice(start, SLICE), first + start)
            first = end
        self._checked = True

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        number = bisect_right(self._ends, index)
        with reading(self._columns.path, self._kind):
            batch = self._load(number)
        inside = index - (self._ends[number - 1] if number else 0)
        [row] = self._columns.rows(batch.slice(inside, 1), index)
        return row


def _coarser(kind: Any, pyarrow: Any) -> Any:
    """The type in microseconds for times in nanoseconds, which Python does not have; None for any other type."""
    if pyarrow.types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", kind.tz)
    return None


def _converter(field: Any, pyarrow: Any) -> Convert:
    """How the values of one column, or of one part of it, become values of JSON."""
    types, kind = pyarrow.types, field.type
    extension = (
        getattr(kind, "extension_name", None) or (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    )
    if extension == "arrow.json":
        return _json
    if extension == "arrow.uuid":
        return str
    if isinstance(kind, pyarrow.BaseExtensionType):
        raise Odd(f"has the type {extension}, which JSON does not have")
    if types.is_dictionary(kind):
        return _converter(pyarrow.field("", kind.value_type), pyarrow)
    if types.is_struct(kind):
        parts = [kind.field(number) for number in range(kind.num_fields)]
        return _struct({part.name: _converter(part, pyarrow) for part in parts})
    if types.is_map(kind):
        if not (types.is_string(kind.key_type) or types.is_large_string(kind.key_type)):
            raise Odd("is a map whose keys are not text")
        return _map(_converter(kind.item_field, pyarrow))
    if any(
        getattr(types, f"is_{one}")(kind)
        for one in ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    ):
        return _list(_converter(kind.value_field, pyarrow))
    if types.is_floating(kind):
        return _float
    if types.is_decimal(kind):
        return _decimal if kind.scale > 0 else int
    if types.is_temporal(kind):
        return _refusing("is a length of time") if types.is_duration(kind) or types.is_interval(kind) else _time
    if any(
        one(kind) for one in (types.is_boolean, types.is_integer, types.is_null, types.is_string, types.is_large_string)
    ):
        return None
    if types.is_string_view(kind):
        return None
    binary = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return _refusing("holds bytes" if any(one(kind) for one in binary) else f"has the type {kind}")


def _refusing(what: str) -> Callable[[Any], Any]:
    """Refuse every value; a column that contains only nulls is accepted."""

    def convert(value: Any) -> Any:
        raise Odd(f"{what}, which JSON does not have")

    return convert


def _struct(parts: dict[str, Convert]) -> Callable[[Any], Any]:
    if not any(parts.values()):
        return lambda value: {key: item for key, item in value.items() if item is not None}

    def convert(value: Any) -> Any:
        made = ((key, _apply(parts[key], item)) for key, item in value.items())
        return {key: item for key, item in made if item is not None}

    return convert


def _apply(convert: Convert, value: Any) -> Any:
    return convert(value) if convert and value is not None else value


def _list(convert: Convert) -> Convert:
    if not convert:
        return None
    return lambda value: [None if item is None else convert(item) for item in value]


def _map(convert: Convert) -> Callable[[Any], Any]:
    def made(value: Any) -> Any:
        found = {key: _apply(convert, item) for key, item in value}
        if len(found) < len(value):
            raise Odd("is a map with a key that appears twice")
        return {key: item for key, item in found.items() if item is not None}

    return made


def _float(value: float) -> float | None:
    """pandas writes NaN for a value that is missing."""
    if math.isinf(value):
        raise Odd("holds Infinity, which JSON does not have")
    return None if math.isnan(value) else value


def _decimal(value: Decimal) -> float:
    return float(value)


def _time(value: Any) -> str:
    """ISO 8601. pandas, where it is installed, gives times of its own."""
    return str((value.to_pydatetime(warn=False) if hasattr(value, "to_pydatetime") else value).isoformat())


def _json(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        raise Odd(f"holds JSON that cannot be read ({err})") from None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")
