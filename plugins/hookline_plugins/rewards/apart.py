"""A function of the user's in a process of its own, which is killed when a call takes too long.

The process is a fresh interpreter (no fork, and the user's main script is not imported again). It gets the path of the file and the
name of the function, then one call after the other as pickled arguments; what it prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hookline import PluginError
from hookline_plugins.rewards.calling import Late, call
from hookline_plugins.rewards.verdicts import Verdict, Wrong
from hookline_plugins.user_code import frames, load, said

START = 300.0
"""Seconds that the process may take to import the user's file."""
HEAD = struct.Struct(">Q")


class Ended(Exception):
    """The process ended during a call: how."""


class Apart:
    """One process for one function; it is started with the first call, and again after it was killed."""

    def __init__(self, path: str, name: str, memory: float | None = None) -> None:
        """memory: the limit in GiB."""
        self.path, self.name, self.memory = path, name, memory
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, keywords: Mapping[str, Any], logs: Sequence[str], count: int, seed: int | None, timeout: float | None) -> Verdict:
        """As `calling.call`. Raises Late after the timeout, and Ended when the process dies; the next call starts a new one."""
        if self._process is None:
            self._start()
        try:
            message = pickle.dumps((dict(keywords), tuple(logs), count, seed))
        except Exception as err:
            raise PluginError(f"the rows cannot be sent to a process: {err}", "leave out process: true") from None
        verdict: Verdict = self._answer(message, timeout)
        return verdict

    def close(self) -> None:
        """Kill the process; may be called twice."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _start(self) -> None:
        paths = [os.path.abspath(one) for one in sys.path]
        begin = f"import sys; sys.path[:] = {paths!r}; from hookline_plugins.rewards.apart import serve; serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", begin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        try:
            self._answer(pickle.dumps((self.path, self.name, self.memory)), START)
        except (Late, Ended) as err:
            why = f"it took over {START:g} s" if isinstance(err, Late) else str(err)
            raise PluginError(f"the process of {self.name} could not start: {why}", f"try: python {self.path}") from None

    def _answer(self, message: bytes, timeout: float | None) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            _write(process.stdin.fileno(), message)
            kind, answer = pickle.loads(self._read(timeout))
        except (OSError, EOFError):
            raise self._ended() from None
        except BaseException:  # Late, or the run is interrupted: no answer may be left in the pipe
            self.close()
            raise
        if kind == "raised":
            text, shown = answer
            error = PluginError(text, "fix the function")
            error.frames = shown
            raise error
        if kind == "wrong":
            raise answer
        return answer

    def _read(self, timeout: float | None) -> bytes:
        until = None if timeout is None else time.monotonic() + timeout
        (size,) = HEAD.unpack(self._exactly(HEAD.size, until))
        return self._exactly(size, until)

    def _exactly(self, size: int, until: float | None) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        handle, found = self._process.stdout.fileno(), bytearray()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while len(found) < size:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not poll.poll(None if left is None else left * 1000):
                raise Late
            block = os.read(handle, min(size - len(found), 1 << 20))
            if not block:
                raise EOFError
            found += block
        return bytes(found)

    def _ended(self) -> Ended:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        code = self._process.poll()
        self.close()
        how = "it closed its output" if code is None else f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        return Ended(f"its process ended ({how})")


def _write(handle: int, message: bytes) -> None:
    view = memoryview(HEAD.pack(len(message)) + message)
    while view:
        view = view[os.write(handle, view) :]


# -- inside the process


def serve() -> None:
    """Answer calls until the run closes the pipe, or is gone."""
    out = os.dup(1)
    os.dup2(2, 1)  # what the function prints must not be read as an answer
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _end_with_parent()
    path, name, memory = _receive(source)
    try:
        if memory is not None:
            import resource

            limit = int(memory * (1 << 30))
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        function = load(path, name)
    except BaseException as err:
        _write(out, pickle.dumps(("raised", (getattr(err, "message", None) or said(err, path), frames(err)))))
        return
    _write(out, pickle.dumps(("value", None)))
    while True:
        try:
            keywords, logs, count, seed = _receive(source)
        except EOFError:
            return
        try:
            answer: tuple[str, Any] = ("value", call(function, keywords, logs, count, seed))
        except Wrong as err:
            answer = ("wrong", err)
        except BaseException as err:
            answer = ("raised", (said(err, path), frames(err)))
        _write(out, pickle.dumps(answer))


def _receive(source: Any) -> Any:
    head = source.read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    (size,) = HEAD.unpack(head)
    return pickle.loads(source.read(size))


def _end_with_parent() -> None:
    """End when the run is gone, also in the middle of a call."""
    import threading

    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
