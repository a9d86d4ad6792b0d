"""The rows of a JSON array, found one after another, so that the file may be larger than memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from hookline.batch.stages import Record
from hookline.errors import DataError, shorten
from hookline.files.strict import DECODER, LONGEST, checked

__all__ = ["scan"]

CHUNK = 1 << 20
WHITE = re.compile(r"[ \t\r\n]*")
SURE = 64
"""An error this many characters before the end of what was read is in the file; one nearer may vanish with more text."""


class Window:
    """The part of a file's text that is being parsed."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name = file, name
        self.text = ""
        self.at = 0
        """Where in `text` the parser stands."""
        self.byte = 0
        """The same as an offset in the file."""
        self.line = 1
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._given = 0

    def more(self) -> bool:
        """Read on, and forget what was parsed. False at the end of the file."""
        self.text, self.at = self.text[self.at :], 0
        raw = self.file.read(max(CHUNK, len(self.text)))
        kept = len(self._decoder.getstate()[0])
        try:
            self.text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as err:
            raise DataError.not_utf8(err, self.name, self._given - kept) from None
        self._given += len(raw)
        return bool(raw)

    def move(self, to: int) -> None:
        part = self.text[self.at : to]
        self.byte += len(part) if part.isascii() else len(part.encode("utf-8"))
        self.line += part.count("\n")
        self.at = to

    def next(self) -> str:
        """Move to the next character that is not white space, and return it; empty at the end of the file."""
        while True:
            white = WHITE.match(self.text, self.at)
            assert white
            self.move(white.end())
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def where(self, row: int) -> str:
        return f"{self.name} line {self.line} (row {row})"

    def near(self, at: int) -> str:
        return repr(shorten(self.text[max(self.at, at - 10) : at + 20], 30))


def scan(file: BinaryIO, name: str) -> Iterator[tuple[int, Record]]:
    """The byte at which each object of an array begins, and the object.

    The file's first character must be `[`. Raises DataError for anything but one array of objects.
    """
    window, row = Window(file, name), 0
    window.more()
    window.move(int(window.text.startswith("\ufeff")))
    window.next()
    window.move(window.at + 1)
    if window.next() == "]":
        raise DataError(f"{name}: 0 usable rows: the array is empty", "give it at least one row")
    while True:
        row += 1
        start, where = window.byte, window.where(row)
        record = _object(window, where)
        yield start, record
        sign = window.next()
        if sign == "]":
            break
        if not sign:
            raise DataError(
                f"{name} is cut off after row {row}: its array does not end", "complete it, or end it with ]"
            )
        if sign != ",":
            raise DataError(f"{where} is followed by {window.near(window.at)}, not by a comma", "fix that place")
        window.move(window.at + 1)
        if window.next() == "]":
            raise DataError(f"{where} is the last, but a comma follows it", "remove that comma")
    window.move(window.at + 1)
    if window.next():
        raise DataError(
            f"{name} line {window.line}: {window.near(window.at)} follows the end of the array",
            "write all rows into one array, or one object per line",
        )


def _object(window: Window, where: str) -> dict[str, Any]:
    """Parse the object at which the window stands, and move behind it."""
    while True:
        try:
            record, end = DECODER.raw_decode(window.text, window.at)
        except RecursionError:
            raise DataError(f"{where} is nested too deeply", "flatten the row") from None
        except ValueError as err:
            if not _sure(err, window) and len(window.text) - window.at <= LONGEST and window.more():
                continue
            raise _wrong(err, window, where) from None
        found = checked(record, window.text[window.at : end], where)
        if end - window.at > LONGEST:
            raise DataError(f"{where} is longer than {LONGEST >> 20} MiB", "divide the row")
        window.move(end)
        return found


def _sure(err: ValueError, window: Window) -> bool:
    """Whether an error stays, whatever text follows."""
    if not isinstance(err, json.JSONDecodeError):
        return False  # a number may go on
    return err.pos + SURE < len(window.text) and not err.msg.startswith("Unterminated")


def _wrong(err: ValueError, window: Window, where: str) -> DataError:
    if len(window.text) - window.at > LONGEST and not _sure(err, window):
        return DataError(f"{where} is longer than {LONGEST >> 20} MiB", "divide the row")
    if not isinstance(err, json.JSONDecodeError):
        return DataError(f"{where}: {err}", "fix that row")
    if not _sure(err, window) and not window.text.rstrip().endswith("]"):
        return DataError(f"{where}, the last, is cut off: {err.msg}", "complete or remove that row")
    line = window.line + window.text.count("\n", window.at, err.pos)
    place = "" if line == window.line else f", at line {line}"
    return DataError(f"{where}{place}: not valid JSON near {window.near(err.pos)}: {err.msg}", "fix that place")
