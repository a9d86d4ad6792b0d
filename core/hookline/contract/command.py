"""A command: a verb of the command line, offered like any other component."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from hookline.contract.component import Component, ConfigT

__all__ = ["Argument", "Command", "Out"]


class Argument:
    """Marks a config field as positional: `runs: Annotated[tuple[str, ...], Argument("RUN")]`. The last may be a tuple.

    metavar: what `--help` calls it.
    """

    def __init__(self, metavar: str = "") -> None:
        self.metavar = metavar


class Out(Protocol):
    """Where a command prints: text and tables for people, or one JSON value under `--json`."""

    json: bool
    """Whether the one JSON value is asked for; text and tables then print nothing."""

    def text(self, text: str) -> None:
        """A piece of text, on lines of its own."""

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Rows under column headings; numbers stand right-aligned."""

    def value(self, value: Any) -> None:
        """The JSON value, printed under `--json` and not otherwise. Called at most once."""


class Command(Component[ConfigT]):
    """A verb of the command line: kind `command`. Its Config gives the options, and its docstring the help."""

    def run(self, out: Out) -> int:
        """Do it; returns the exit code. Raises HooklineError for what the user can fix."""
        raise NotImplementedError
