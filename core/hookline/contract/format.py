"""A format: how a kind of file becomes rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT
from hookline.errors import PluginError, shorten

__all__ = ["Format"]


class Format(Component[ConfigT]):
    """Reads rows from one kind of file: kind `format`.

    A data name such as `rows.csv` is read by the format whose `suffixes` hold its ending; `NAME:FILE`, e.g.
    `csv:export.dat`, says which. Rows come in file order and equal at every reading: their hash identifies the data.
    """

    suffixes: ClassVar[Sequence[str]] = ()
    """Endings of file names that it reads, e.g. `(".csv", ".tsv")`."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Record]:
        """The rows of a file, one mapping each. Raises DataError naming file, row and what is wrong with it."""
        raise NotImplementedError

    def open(self, path: Path) -> Sequence[Record]:
        """The rows of a file by their number: all that `read` yields, in memory, unless a format needs less.

        A format for files larger than memory returns a sequence that parses a row when it is asked for. It may also
        convert a file that has no positions to return to (a compressed one) to JSON lines, and return those. The sequence
        is iterated once before anything else; a damaged row, wherever it stands, raises DataError then.
        """
        found: object = self.read(path)
        if not isinstance(found, Iterable):
            raise PluginError(
                f"format '{self.instance}' returns {shorten(repr(found))} for {path}, not rows",
                "yield a mapping for each row",
            )
        return tuple(found)
