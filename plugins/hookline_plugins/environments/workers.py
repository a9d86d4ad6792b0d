"""Processes in which tools are called, shared by the episodes of a run: each call has a time limit, and one that is late is killed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hookline import PluginError, ServiceError

__all__ = ["Limits", "Raised", "Workers", "shared"]

START = 120.0
"""Seconds that a process may take to import the user's file."""
WORKER = Path(__file__).with_name("worker.py")


class Raised(Exception):
    """A tool raised an exception: which, in a sentence."""


@dataclass(frozen=True)
class Limits:
    """What a call may use."""

    seconds: float
    memory: float
    """GiB of addresses; 0: no limit."""
    output: int
    """Characters of a result."""
    processes: bool
    """Whether a tool may start processes."""


class Worker:
    """One process for one file."""

    def __init__(self, path: str, limits: Limits) -> None:
        self.limits = limits
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        about = {"path": path, "paths": [os.path.abspath(one) for one in sys.path], "memory": limits.memory}
        answer = self.answer(
            {**about, "output": limits.output, "processes": limits.processes}, START, "the file of tools"
        )
        if "error" in answer:
            self.kill()
            raise PluginError(f"{path} could not be imported: {answer['error']}", "fix the file")

    def answer(self, asked: Mapping[str, Any], seconds: float, who: str) -> dict[str, Any]:
        """One line to the process, and one back. Raises ServiceError if there is none within the time; the process is then killed."""
        assert self.process.stdin is not None
        try:
            view = memoryview(json.dumps(asked).encode() + b"\n")
            while view:
                view = view[os.write(self.process.stdin.fileno(), view) :]
            found: dict[str, Any] = json.loads(self._line(time.monotonic() + seconds))
            return found
        except TimeoutError:
            self.kill()
            raise ServiceError(
                f"{who} did not answer within {seconds:g} s", "raise `seconds`, or fix the tool"
            ) from None
        except (OSError, EOFError, ValueError):
            code = self.kill()
            how = f"exit code {code}" if code is not None and code >= 0 else f"signal {-(code or -signal.SIGKILL)}"
            raise ServiceError(f"{who} ended its process ({how})", "fix the tool, or raise `memory`") from None

    def _line(self, until: float) -> bytes:
        assert self.process.stdout is not None
        handle, found = self.process.stdout.fileno(), bytearray()
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        while not found.endswith(b"\n"):
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                raise TimeoutError
            block = os.read(handle, 1 << 16)
            if not block:
                raise EOFError
            found += block
        return bytes(found)

    def kill(self) -> int | None:
        """Kill the process and what it has started; may be called twice. Returns the code with which it had ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2 if self.process.poll() is None else 0)
        code = self.process.poll()
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code


@dataclass
class Workers:
    """The processes of one file. A call takes one that is free, and waits while `most` are busy."""

    path: str
    limits: Limits
    most: int
    users: int = 0
    """Components that have asked for them and are not closed."""
    _free: list[Worker] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = threading.BoundedSemaphore(self.most)

    def call(self, name: str, arguments: Mapping[str, Any], seed: int, raw: bool = False) -> Any:
        """What a function returns: as text, or with `raw` as JSON. Raises Raised for its exceptions, ServiceError for a call
        that is late or ends the process."""
        with self._places:
            with self._lock:
                worker = self._free.pop() if self._free else None
            worker = worker or Worker(self.path, self.limits)
            asked = {"name": name, "arguments": dict(arguments), "seed": seed, "raw": raw}
            answer = worker.answer(asked, self.limits.seconds, f"tool '{name}'")
            with self._lock:
                self._free.append(worker)
        if "error" in answer:
            raise Raised(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """One component less; the last one ends the processes."""
        self.users -= 1
        if self.users > 0:
            return
        with self._lock:
            free, self._free = self._free, []
            _SHARED.pop((self.path, self.limits, self.most), None)
        for worker in free:
            worker.kill()


_SHARED: dict[tuple[str, Limits, int], Workers] = {}


def shared(path: str, limits: Limits, most: int) -> Workers:
    """The processes of a file, the same for all that ask with the same limits."""
    found = _SHARED.setdefault((path, limits, most), Workers(path, limits, most))
    found.users += 1
    return found
