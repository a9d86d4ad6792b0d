"""Construct a component from its config alone, and refuse a constructor that opens anything."""

from __future__ import annotations

import inspect
import linecache
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pydantic import ValidationError

from hookline.contract.component import Component
from hookline.contract.fields import Config
from hookline.errors import HooklineError, PluginError, cause

__all__ = ["configure", "construct", "source_of"]

_OPENS = {
    "open": "a file",
    "os.mkdir": "a folder",
    "socket.__new__": "a socket",
    "socket.connect": "a connection",
    "subprocess.Popen": "a process",
    "os.system": "a process",
    "os.posix_spawn": "a process",
    "os.fork": "a process",
    "_thread.start_new_thread": "a thread",
    "_thread.start_joinable_thread": "a thread",
}
"""Python's audit event → what it opens."""


class _Opened(Exception):
    """Raised instead of opening what the constructor asked for."""


class _Watch(threading.local):
    found: list[str] | None = None
    """What the constructor that runs in this thread tried to open; None if no constructor runs."""


_watch = _Watch()


def source_of(cls: type) -> str:
    """file:line of a class, or its module and name. Takes far longer than a constructor, since `inspect` parses the file."""
    try:
        return f"{inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError):
        return f"{cls.__module__}:{cls.__qualname__}"


def configure(
    cls: type[Component], options: Mapping[str, Any], who: str, folder: str = "", kept: str = "", ended: bool = False
) -> Config:
    """The validated config of a class. Raises pydantic's ValidationError for wrong options, and PluginError naming `who`
    for a Config whose own code fails. folder: where relative paths begin. kept, ended: as in `storage.paths.kept_or_beside`."""
    try:
        return cls.Config.model_validate(options, context={"folder": folder, "kept": kept, "ended": ended})
    except (ValidationError, HooklineError, KeyboardInterrupt):
        raise
    except BaseException as err:  # SystemExit too
        raise PluginError(f"{who} failed in its Config: {cause(err)}", f"its source: {source_of(cls)}") from err


def construct(cls: type[Component], config: Config, who: str) -> Component:
    """A component of a class. Raises PluginError naming `who` when the constructor fails or opens something."""
    try:
        with _watched() as found:
            component = cls(config)
    except _Opened:
        raise _refusal(who, found) from None
    except HooklineError as err:
        err.message = err.message if err.message.startswith(who) else f"{who}: {err.message}"
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as err:  # SystemExit too: a component does not end the process
        raise PluginError(f"{who} failed in its constructor: {cause(err)}", f"its source: {source_of(cls)}") from err
    if found:
        raise _refusal(who, found)
    component.config = config
    return component


def _refusal(who: str, found: list[str]) -> PluginError:
    return PluginError(f"{who} opens {found[0]} in its constructor", "open it in setup(ctx)")


@contextmanager
def _watched() -> Iterator[list[str]]:
    _install()
    threads = set(threading.enumerate())
    outer, _watch.found = _watch.found, []
    try:
        yield _watch.found
        if set(threading.enumerate()) - threads:  # before Python 3.12 the start of a thread is not an audit event
            _watch.found.append("a thread")
    finally:
        _watch.found = outer


_installed = False


def _install() -> None:
    global _installed
    if not _installed:
        _installed = True
        sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch.found is None or event not in _OPENS or _reads_source():
        return
    named = f" ({arguments[0]})" if event in ("open", "os.mkdir") and arguments else ""
    _watch.found.append(_OPENS[event] + named)
    raise _Opened


def _reads_source() -> bool:
    """Whether the event comes from an import within the constructor, or from a traceback's lines: both read code."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not construct.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_code.co_filename == linecache.__file__:
            return True
        frame = frame.f_back
    return False
