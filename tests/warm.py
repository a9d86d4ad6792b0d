"""Processes for tests, without the seconds that a new Python takes to import torch: `warm.run` and `warm.start`.

A test that needs a process asks the fixture `warm` for it, with the arguments that it would give to Python:

    done = warm.run("-m", "hookline", "run", "tiny.yaml", cwd=tmp_path)       # as subprocess.run
    child = warm.start("-c", code, cwd=tmp_path, env={**os.environ, "A": "1"})  # as subprocess.Popen

One server (warm_server.py) for each pytest process has imported Hookline and forks a child for each request. A child has
a process id, signals, an environment, a working directory and standard streams of its own, and ends as any Python does.
What a module reads from the environment when it is imported is what the server had, so tests of the start itself (how
long it takes, what is imported, an installation, HOOKLINE_KERNELS, another checkout) use subprocess.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class Child:
    """A forked process, with the names of subprocess.Popen; its streams are pipes, of text unless `text` is false."""

    def __init__(self, requests: socket.socket, request: dict[str, Any], stderr: int | None, text: bool) -> None:
        self.args = request["arguments"]
        self.returncode: int | None = None
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        ours_err, theirs_err = os.pipe() if stderr == subprocess.PIPE else (None, os.dup(theirs_out if stderr else 2))
        self._status, told = os.pipe()
        with tempfile.TemporaryFile("w+") as file:
            json.dump(request, file)
            file.flush()
            file.seek(0)
            handed = [file.fileno(), theirs_in, theirs_out, theirs_err, told]
            socket.send_fds(requests, [b"!"], [*handed, *request["pass_fds"]])
        for number in handed[1:]:
            os.close(number)
        kind, encoding = ("", "utf-8") if text else ("b", None)
        self.stdin: IO[Any] = os.fdopen(ours_in, f"w{kind}", encoding=encoding)
        self.stdout: IO[Any] = os.fdopen(ours_out, f"r{kind}", encoding=encoding)
        self.stderr: IO[Any] | None = None if ours_err is None else os.fdopen(ours_err, f"r{kind}", encoding=encoding)
        self._told = b""
        self.pid = self._line(None)

    def _line(self, timeout: float | None) -> int:
        """The next number that the server tells about this child."""
        until = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._told:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not select.select([self._status], [], [], left)[0]:
                raise subprocess.TimeoutExpired(str(self.args), timeout or 0.0)
            more = os.read(self._status, 64)
            if not more:
                raise RuntimeError("the warm server of the tests has ended; see what it wrote above")
            self._told += more
        line, _, self._told = self._told.partition(b"\n")
        return int(line)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._line(timeout)
            os.close(self._status)
        return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0.0)
        return None

    def communicate(self, input: str | None = None, timeout: float | None = None) -> tuple[str, str]:
        """Give the child its input, read what it says until it ends."""
        said = {"stdout": "", "stderr": ""}

        def read(name: str, stream: IO[Any]) -> None:
            said[name] = stream.read()

        readers = [
            threading.Thread(target=read, args=(name, stream), daemon=True)
            for name, stream in (("stdout", self.stdout), ("stderr", self.stderr))
            if stream is not None
        ]
        for reader in readers:
            reader.start()
        with contextlib.suppress(BrokenPipeError):
            if not self.stdin.closed:
                self.stdin.write(input or "")
                self.stdin.close()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        self.close()
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Warm:
    """The fixture `warm`: a server that is started at the first request and ends with the tests.

    With a `python` and an `env`, one of another environment, which sees the Hookline that is installed there.
    """

    def __init__(self, python: str | Path = sys.executable, env: Mapping[str, str] | None = None) -> None:
        self._python, self._env = python, env
        self._requests: socket.socket | None = None
        self._server: subprocess.Popen[bytes] | None = None

    def start(
        self,
        *arguments: str | Path,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        stderr: int | None = subprocess.PIPE,
        text: bool = True,
        pass_fds: Sequence[int] = (),
        start_new_session: bool = False,
    ) -> Child:
        """As `subprocess.Popen([sys.executable, *arguments], …)`; `stderr` is PIPE, STDOUT or None."""
        if self._requests is None:
            self._begin()
        assert self._requests is not None
        if not arguments or (str(arguments[0]).startswith("-") and arguments[0] not in ("-c", "-m")):
            raise ValueError(
                f"a warm process starts with -c, -m or a file, not {arguments[:1]}; use subprocess for others"
            )
        request = {
            "arguments": [str(part) for part in arguments],
            "cwd": str(cwd or os.getcwd()),
            "pass_fds": list(pass_fds),
            "session": start_new_session,
            "env": dict(env if env is not None else os.environ if self._env is None else self._env),
        }
        return Child(self._requests, request, stderr, text)

    def run(
        self,
        *arguments: str | Path,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run([sys.executable, *arguments], capture_output=True, text=True, …)`."""
        child = self.start(*arguments, cwd=cwd, env=env)
        out, err = child.communicate(input)
        done = subprocess.CompletedProcess([str(part) for part in arguments], child.wait(), out, err)
        if check:
            done.check_returncode()
        return done

    def _begin(self) -> None:
        self._requests, theirs = socket.socketpair()
        self._server = subprocess.Popen(
            [self._python, Path(__file__).with_name("warm_server.py")],
            stdin=theirs,
            env={
                **(os.environ if self._env is None else self._env),
                "OMP_NUM_THREADS": "1",
                "TRANSFORMERS_VERBOSITY": "error",
            },
            start_new_session=True,  # Ctrl-C reaches pytest, which then ends the server
        )
        theirs.close()

    def close(self) -> None:
        if self._requests is not None and self._server is not None:
            self._requests.close()
            self._server.wait(timeout=60)
