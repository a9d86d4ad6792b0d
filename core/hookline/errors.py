"""The errors that a user reads: one sentence with the cause and a hint, and an exit code per class."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
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
    "a",
    "alike",
    "cause",
    "frames_of",
    "nearest",
    "renamed",
    "shorten",
    "told",
]


class HooklineError(Exception):
    """Base class of errors that a user can fix. The command line prints them; any other exception is a bug in Hookline."""

    exit_code = 2
    """The exit code of the command line."""
    everywhere = False
    """Whether every process of the run raises this error."""
    frames = ""
    """The frames to show below the error, if it was raised in another process."""
    teller = 0
    """The rank that tells the user, in a run with several processes."""
    elsewhere = False
    """Whether another process of the same run tells the user about this error."""

    def __init__(self, message: str, hint: str = "", *, mend: str | None = None) -> None:
        super().__init__(message)
        if mend is not None:
            renamed("HooklineError(mend=…)", "hint")
            hint = mend
        self.message = _line(message)
        """The cause, in one sentence."""
        self.hint = _line(hint)
        """What the user can do; may be empty."""

    @property
    def mend(self) -> str:
        """The old name of `hint`."""
        renamed("HooklineError.mend", "hint")
        return self.hint

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback, which would be Hookline's own frames."""
        return [f"{type(self).__name__}: {self}", *frames_of(self).splitlines()]

    def __str__(self) -> str:
        return f"{self.message} → {self.hint}" if self.hint else self.message


def _line(text: str) -> str:
    """The text on one line, without unprintable characters: it may quote a user's file or a library's message."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))


class ExperimentError(HooklineError):
    """Wrong usage, or an experiment file that cannot work. Holds every problem that was found, not only the first."""

    exit_code = 2
    """2: usage or experiment file."""

    def __init__(self, message: str, hint: str = "", problems: Iterable[str] = (), *, mend: str | None = None) -> None:
        if mend is not None:
            renamed("HooklineError(mend=…)", "hint")
            hint = mend
        self.problems = tuple(problems)
        """Every problem that was found, one sentence each."""
        shown = self.problems[:20]
        lines = [_line(message), *(f"  {_line(problem)}" for problem in shown)]
        if len(self.problems) > len(shown):
            lines.append(f"  and {len(self.problems) - len(shown)} more")
        super().__init__(message, hint)
        self.message = "\n".join(lines)
        """The cause, and below it a line for each of the first twenty problems."""


class DataError(HooklineError):
    """A file of texts, prompts or preferences that cannot be used."""

    exit_code = 3
    """3: data."""

    @classmethod
    def not_utf8(cls, err: UnicodeDecodeError, where: str, start: int = 0) -> DataError:
        """The error for bytes of a file that are not UTF-8. where: the file or line; start: the offset of what was decoded."""
        byte = start + err.start
        utf16 = byte == 0 and err.object[:2] in (b"\xff\xfe", b"\xfe\xff")
        return cls(
            f"{where} is not UTF-8 at byte {byte} (0x{err.object[err.start]:02x})",
            f"re-encode it: iconv -f {'utf-16' if utf16 else 'latin1'} -t utf-8",
        )


class CheckpointError(HooklineError):
    """A checkpoint or run directory that is damaged, taken, or belongs to another experiment."""

    exit_code = 4
    """4: checkpoint or run directory."""


class PluginError(HooklineError):
    """A plugin that cannot be found or imported, or that fails or returns a wrong value."""

    exit_code = 5
    """5: plugin."""


class NumbersError(HooklineError):
    """A value that is not finite, or a run with nothing left to learn from."""

    exit_code = 6
    """6: numbers."""


class ServiceError(HooklineError):
    """A service or engine outside this process that does not answer."""

    exit_code = 7
    """7: a service or an engine."""


class Stopped(HooklineError):
    """The run was asked to stop, finished its step and saved."""

    def __init__(self, message: str, hint: str, exit_code: int) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


def renamed(old: str, new: str) -> None:
    """Warn, at the caller's caller, that a public name has changed; the old name works for one release."""
    warnings.warn(
        f"{old} is now called {new}; the old name will be removed in the next release", FutureWarning, stacklevel=3
    )


def told(err: HooklineError) -> int:
    """Print an error that a user can fix on standard error, and return the error's exit code."""
    if not err.elsewhere:
        print(f"{type(err).__name__}: {err}\n{frames_of(err)}", file=sys.stderr, end="")
    return err.exit_code


def frames_of(err: BaseException) -> str:
    """The plugin's own stack frames, as they are shown below the message, without Hookline's frames."""
    import importlib
    import traceback

    cause = err.__cause__
    if cause is None or not isinstance(err, PluginError):
        return err.frames if isinstance(err, HooklineError) else ""
    home = os.path.dirname(os.path.abspath(__file__)) + os.sep  # beside it lie hookline_foo's
    ours = (home, os.path.dirname(str(importlib.__file__)), "<frozen")
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if not f.filename.startswith(ours)]
    return "".join(traceback.format_list(frames[-4:]))


def cause(err: BaseException) -> str:
    """An exception as part of a message: `ValueError: text`, or the type alone if the exception has no text."""
    try:
        text = str(err)
    except Exception:  # the exception's own __str__ fails
        return f"{type(err).__name__}, whose text cannot be read"
    return f"{type(err).__name__}: {text}" if text else type(err).__name__


def a(noun: str) -> str:
    """`a dict`, `an object`: a type's name in a sentence."""
    return f"{'an' if noun[:1].lower() in ('a', 'e', 'i', 'o') else 'a'} {noun}"


ALIKE, CLOSE = 0.6, 0.7
"""How alike two words are, from 0 to 1, so that one may be a misspelling of the other: with the same first letter, or not."""


def alike(word: str, words: Iterable[str]) -> list[str]:
    """The known words of which a word may be a misspelling, the likeliest first. Letter case, `-` and `_` do not count."""
    word, known = plain(word), {plain(one): one for one in words}
    close = difflib.get_close_matches(word, known, n=5, cutoff=ALIKE)
    likely = [one for one in close if one[:1] == word[:1] or difflib.SequenceMatcher(None, one, word).ratio() >= CLOSE]
    return [known[one] for one in likely]


def plain(word: str) -> str:
    """A word without what people write in different ways: `Dr-GRPO` and `dr_grpo` are one."""
    return word.lower().replace("-", "_")


def nearest(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'gamma'?"`, or nothing when no known word is close."""
    return next((f"; did you mean '{one}'?" for one in alike(word, words)), "")


def shorten(value: object, most: int = 60) -> str:
    """The user's own value as part of a message: on one line, without unprintable characters, and shortened."""
    text = str(value)
    if not text.isprintable():
        text = repr(text[: most + 1])[1:-1]
    return text if len(text) <= most else f"{text[: most - 1]}…"
