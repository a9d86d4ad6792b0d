"""Laws for commands: options that a command line can set, an exit code, and one JSON value."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from hookline.contract.command import Argument, Command
from hookline.errors import HooklineError
from hookline.testing.lawbook.apart import made
from hookline.testing.subject import Subject
from hookline.testing.suite import Broken, NotApplicable, law

TAKEN = {"help", "json", "plugin"}
"""Options that every command has."""


class Printed:
    """Records what a command prints."""

    def __init__(self, as_json: bool) -> None:
        self.json = as_json
        self.values: list[Any] = []

    def text(self, text: str) -> None:
        pass

    def table(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
        pass

    def value(self, value: Any) -> None:
        self.values.append(value)


@law("command", alone=True)
def arguments(subject: Subject) -> str | None:
    """Only the last positional argument takes several values, and no option has the name of an option of every command."""
    fields = subject.cls.Config.model_fields
    taken = [field.alias or name for name, field in fields.items() if (field.alias or name) in TAKEN]
    if taken:
        raise Broken(f"'{taken[0]}' is an option of every command; rename it")
    positional = [name for name, field in fields.items() if any(isinstance(m, Argument) for m in field.metadata)]
    several = [name for name in positional if get_origin(fields[name].annotation) in (tuple, list)]
    if several and several != positional[-1:]:
        raise Broken(f"'{several[0]}' takes several values and is not the last argument")
    return ", ".join(positional)


@law("command", claimed=True, alone=True)
def runs(subject: Subject) -> str | None:
    """Run with its options, the command returns an exit code, and with --json gives one value that JSON can hold."""
    for as_json in (False, True):
        command, out = made(subject), Printed(as_json)
        assert isinstance(command, Command)
        try:
            with contextlib.chdir(subject.folder):
                code = command.run(out)
        except HooklineError as err:
            raise NotApplicable(f"the command refuses these options: {err}") from None
        if type(code) is not int or not 0 <= code <= 255:
            raise Broken(f"run returned {code!r}; return an exit code, 0 for success")
        if as_json and len(out.values) != 1:
            raise Broken(f"with --json the command gave {len(out.values)} values; call out.value once")
        try:
            json.dumps(out.values)
        except (TypeError, ValueError) as err:
            raise Broken(f"the command's value cannot be written as JSON: {err}") from None
    return None
