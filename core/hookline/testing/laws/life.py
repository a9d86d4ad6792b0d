"""Laws about a component's life: it is constructed to be asked, opened in setup, closed in the end."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hookline.testing.harness import Subject, waited
from hookline.testing.suite import LOOP, Broken, law

OPENS = {
    "open": "opens a file",
    "socket.connect": "connects a socket",
    "socket.bind": "binds a socket",
    "sqlite3.connect": "opens a database",
    "subprocess.Popen": "starts a process",
    "os.fork": "starts a process",
    "_thread.start_new_thread": "starts a thread",
}
"""Audit event of Python → what a constructor then does."""
CODE = {".py", ".pyc", ".so"}
_listeners: list[list[str]] = []
_listening = False


@law(*LOOP, "tracker", "task", alone=True)
def opens_nothing(subject: Subject) -> str | None:
    """Its constructor opens no file, socket, process or thread: it is also constructed to be asked what it needs."""
    options = subject.harness().options if subject.kind in LOOP else subject.options
    config = subject.cls.Config.model_validate(options)
    with _events() as found:
        subject.cls(config)
    if found:
        raise Broken(f"its constructor {found[0]}; do that in setup(ctx)")
    return None


@law(*LOOP)
def closes(subject: Subject) -> str | None:
    """It can be closed after a step, and closed once more."""
    harness = subject.new()
    try:
        harness.step()
        for time in ("closed", "closed a second time"):
            try:
                answer = harness.component.close()
                if inspect.isawaitable(answer):
                    harness.runner.run(waited(answer))
            except Exception as err:
                raise Broken(f"when it is {time} it raises {type(err).__name__}: {err}") from err
    finally:
        harness.close()
    return None


@contextlib.contextmanager
def _events() -> Iterator[list[str]]:
    """What is opened meanwhile, in words; reading code in order to import it does not count."""
    global _listening

    def hear(event: str, about: tuple[Any, ...]) -> None:
        if _listeners and event in OPENS:
            file = event == "open" and isinstance(about[0], str | bytes)
            name = str(about[0]) if file else ""
            if event != "open" or (file and Path(name).suffix not in CODE and "__pycache__" not in name):
                for heard in _listeners:
                    heard.append(f"{OPENS[event]}{f' ({name})' if name else ''}")

    if not _listening:  # an audit hook stays for good, so there is one, and it listens only when asked to
        sys.addaudithook(hear)
        _listening = True
    found: list[str] = []
    _listeners.append(found)
    try:
        yield found
    finally:
        _listeners.remove(found)
