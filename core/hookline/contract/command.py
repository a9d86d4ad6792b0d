"""A command: a verb of the command line, offered like any other component.

    class Hello(hookline.Command):
        \"\"\"Say hello.\"\"\"

        class Config(hookline.Config):
            names: Annotated[tuple[str, ...], hookline.Argument("NAME…")]
            \"\"\"The people to greet.\"\"\"
            shout: bool = False
            \"\"\"Print in capitals.\"\"\"

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
    """Marks a config field as a positional argument: `runs: Annotated[tuple[str, ...], Argument("RUN…")]`.

    Only the last one may be a tuple. metavar: what `--help` calls the argument; default: the field's name in capitals.
    """

    def __init__(self, metavar: str = "") -> None:
        self.metavar = metavar
        """What `--help` calls the argument; empty: the field's name in capitals."""


class Out(Protocol):
    """Where a command prints: text and tables for people, or one JSON value under `--json`."""

    @property
    def json(self) -> bool:
        """Whether `--json` was given. `text` and `table` then print nothing, so few commands need to check this."""

    def text(self, text: str) -> None:
        """Print a text, followed by a newline."""

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        """Print rows under column headings; numbers are right-aligned; cells that are None or missing are blank.

        columns: the keys to print, in order; default: the keys of all rows, in the order in which they first appear.
        """

    def value(self, value: Any) -> None:
        """Print the JSON value under `--json`; without `--json` this prints nothing. Call it at most once."""


class Command(Component[ConfigT]):
    """A verb of the command line: kind `command`. Its docstring is the help text; each field of its Config is an
    option.

    A field `keep_best` becomes the option `--keep-best`, and the field's docstring becomes the option's help. A `bool`
    is a flag (`--x/--no-x` if its default is not False), a `Literal` is a choice, a list or tuple is an option that may
    be repeated, and a field marked `Argument` is positional. pydantic converts the text of the command line to the
    types of the fields. For invalid values, one sentence per option is printed and the exit code is 2; `run` is then
    not called.
    """

    has_json: ClassVar[bool] = True
    """Whether the command has the option `--json`. If True, `run` must call `out.value` exactly once."""

    @abstractmethod
    def run(self, out: Out) -> int:
        """Run the command, print to `out`, return the exit code. Raise HooklineError for errors that users can fix."""
        raise NotImplementedError
