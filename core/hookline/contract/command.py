"""A command: a verb of the command line, offered like any other component.

    class Hello(hookline.Command):
        \"\"\"Say hello.\"\"\"

        class Config(hookline.Config):
            names: Annotated[tuple[str, ...], hookline.Argument("NAME…")]
            \"\"\"Who is greeted.\"\"\"
            shout: bool = False
            \"\"\"In capitals.\"\"\"

        def run(self, out):
            for name in self.config.names:
                out.text(f"HELLO {name.upper()}" if self.config.shout else f"hello {name}")
            return 0

Offered as `[project.entry-points."hookline.command"] hello = "my_package:Hello"`, it is `hookline hello NAME… [--shout]`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from hookline.contract.component import Component, ConfigT

__all__ = ["Argument", "Command", "Out"]


class Argument:
    """Marks a config field as positional: `runs: Annotated[tuple[str, ...], Argument("RUN…")]`. The last may be a tuple.

    metavar: what `--help` calls it; default: the field's name in capitals.
    """

    def __init__(self, metavar: str = "") -> None:
        self.metavar = metavar
        """What `--help` calls the argument; empty: the field's name in capitals."""


class Out(Protocol):
    """Where a command prints: text and tables for people, or one JSON value under `--json`."""

    @property
    def json(self) -> bool:
        """Whether `--json` was given. Text and tables then print nothing, so most commands need not look at it."""

    def text(self, text: str) -> None:
        """Print a piece of text, on lines of its own."""

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Print rows under column headings; numbers are right-aligned, and None and absent cells are blank.

        columns: which, in order; default: the keys of all rows, in the order in which they first appear.
        """

    def value(self, value: Any) -> None:
        """The JSON value of `--json`; prints nothing without it. Called once at most."""


class Command(Component[ConfigT]):
    """A verb of the command line: kind `command`. Its docstring is the help, and each field of its Config an option.

    A field `keep_best` is the option `--keep-best`, and its docstring the option's help. A `bool` is a flag (`--x/--no-x`
    where its default is not False), a `Literal` a choice, a list or tuple an option that may be repeated, and a field
    marked `Argument` is positional. Values are read as pydantic reads text; what does not fit is one sentence per option
    and exit code 2, before `run` is called.
    """

    has_json: ClassVar[bool] = True
    """Whether it has the option `--json`; it then calls `out.value` exactly once. False for a command without a JSON value."""

    @abstractmethod
    def run(self, out: Out) -> int:
        """Do it, print to `out`, and return the exit code. Raises HooklineError for what the user can fix."""
        raise NotImplementedError
