"""A format reads rows from one kind of file, and may write them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT
from hookline.errors import DataError, PluginError, shorten

__all__ = ["Format"]


class Format(Component[ConfigT]):
    """Reads rows from one kind of file: kind `format`.

    A data name such as `rows.csv` is read by the format whose `suffixes` contain its ending; `NAME:FILE`, e.g.
    `csv:export.dat`, names the format. Rows must come in file order and be equal each time the file is read, because
    their hash identifies the data.

    A compressed file (`rows.csv.gz`, also `.zst`, `.bz2`, `.xz`) is unpacked first, and the format gets the path of
    `rows.csv` in a temporary folder; in error messages the user's own path takes its place. A format whose `suffixes`
    contain an ending such as `.csv.gz` gets the compressed file itself.
    """

    suffixes: ClassVar[Sequence[str]] = ()
    """The endings of file names that the format reads, e.g. `(".csv", ".tsv")`."""
    marks: ClassVar[Sequence[str]] = ()
    """Names of files that a folder must all contain to be read by this format, e.g. `("state.json",)`; `read` and `open`
    then get the folder's path."""
    text: ClassVar[bool] = False
    """Whether the files are text. Compressed and binary files are then refused by name, before they are read."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Record]:
        """Yield the rows of a file, one mapping each. Raise DataError for a bad row, naming file, row and problem."""
        raise NotImplementedError

    def open(self, path: Path) -> Sequence[Record]:
        """The rows of a file as a sequence; by default everything that `read` yields, kept in memory.

        A format for files larger than memory should return a sequence that parses a row when it is accessed. A format
        for files without random access may convert the file to JSON lines and return those. The
        sequence is iterated once before any other use; that iteration must raise DataError for any damaged row.
        """
        found: object = self.read(path)
        if not isinstance(found, Iterable):
            raise PluginError(
                f"format '{self.instance}' returns {shorten(repr(found))} for {path}, not rows",
                "yield a mapping for each row",
            )
        return tuple(found)

    def write(self, path: Path, rows: Iterable[Record]) -> int:
        """Write rows into a new file, or a new folder if the format has `marks`, and return their number.

        `rows` can be iterated several times, and hold what JSON has. Reading must give the same rows again; raise
        DataError naming path, row and column otherwise. Hookline compresses the file, and renames it to the user's name.
        """
        raise DataError(f"{path} cannot be written: format '{self.instance}' only reads", "name a .jsonl file")
