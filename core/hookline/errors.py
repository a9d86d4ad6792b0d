"""What a user reads when something is wrong: one sentence, the cause and the mend, and an exit code per class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "ExperimentError",
    "HooklineError",
    "NumbersError",
    "PluginError",
    "ServiceError",
    "Stopped",
    "nearest",
]


class HooklineError(Exception):
    """Base of everything that is the user's to mend. Caught in one place, the command line; anything else is our bug."""

    exit_code = 2

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = _line(message)
        self.mend = _line(mend)

    def __str__(self) -> str:
        return f"{self.message} → {self.mend}" if self.mend else self.message


def _line(text: str) -> str:
    """What a message repeats of a user's file or a library's words stands on one line, nothing in it unprintable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


class ExperimentError(HooklineError):
    """Wrong usage, or an experiment file that cannot work. Holds every problem that was found, not only the first."""

    exit_code = 2

    def __init__(self, message: str, mend: str = "", problems: Iterable[str] = ()) -> None:
        self.problems = tuple(problems)
        shown = self.problems[:20]
        lines = [_line(message), *(f"  {_line(problem)}" for problem in shown)]
        if len(self.problems) > len(shown):
            lines.append(f"  and {len(self.problems) - len(shown)} more")
        super().__init__(message, mend)
        self.message = "\n".join(lines)


class DataError(HooklineError):
    """A file of texts, prompts or preferences that cannot be used."""

    exit_code = 3


class CheckpointError(HooklineError):
    """A checkpoint or run directory that is damaged, taken, or belongs to another experiment."""

    exit_code = 4


class PluginError(HooklineError):
    """A plugin that cannot be found, imported or trusted with what it returned."""

    exit_code = 5


class NumbersError(HooklineError):
    """A value that is not finite, or a run with nothing left to learn from."""

    exit_code = 6


class ServiceError(HooklineError):
    """A service or engine outside this process that does not answer."""

    exit_code = 7


class Stopped(HooklineError):
    """The run was asked to stop, finished its step and saved."""

    def __init__(self, message: str, mend: str, exit_code: int) -> None:
        super().__init__(message, mend)
        self.exit_code = exit_code


def nearest(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'gamma'?"`, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""
