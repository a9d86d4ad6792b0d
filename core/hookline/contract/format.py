"""A format: how a kind of file becomes rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT

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
