"""The program behind tests/warm.py: a Python that has imported Hookline once and forks a child for each request.

Its standard input is a socket. Each byte on it is one request and carries open files: the request itself as JSON, the
child's standard input, output and error, a pipe on which the child's process id and its exit status are written, and those
that the child is to have under the numbers that the request names.
It has one thread, since a fork copies the calling thread only; when the socket is closed it kills its children and ends.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from types import ModuleType
from typing import Any, NoReturn

HEAVY = (
    "torch",
    "transformers.models.gpt2.modeling_gpt2",
    "tokenizers",
    "safetensors.torch",
    "yaml",
    "hookline.loop.api",
)


def import_once() -> None:
    import torch

    torch.set_num_threads(1)
    for name in HEAVY:
        importlib.import_module(name)
    import hookline
    import hookline_plugins

    for package in (hookline, hookline_plugins):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            last = found.name.rpartition(".")[2]
            if not found.name.startswith(("hookline.templates", "hookline_plugins.trackers")) and last != "__main__":
                with contextlib.suppress(ImportError):  # an optional dependency is missing
                    importlib.import_module(found.name)
    gc.collect()
    gc.freeze()  # a child's garbage collector leaves the shared memory alone


def serve(requests: socket.socket) -> None:
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    ends: dict[int, int] = {}  # process id → the pipe on which its end is told
    with selectors.DefaultSelector() as ready:
        ready.register(requests, selectors.EVENT_READ)
        ready.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj == awake:
                    os.read(awake, 4096)
                    continue
                byte, files, *_ = socket.recv_fds(requests, 1, 16)
                if not byte:
                    for child in ends:
                        os.kill(child, signal.SIGKILL)
                    return
                child = os.fork()
                if child == 0:
                    try:
                        signal.set_wakeup_fd(-1)
                        for other in (awake, wake, *ends.values(), files[4]):
                            os.close(other)
                        ready.close()
                        requests.close()
                        end(work(files[0], files[1:4], files[5:]))
                    finally:  # a child never goes on as the server
                        traceback.print_exc()
                        os._exit(1)
                ends[child] = files[4]
                os.write(files[4], b"%d\n" % child)
                for file in (*files[:4], *files[5:]):
                    os.close(file)
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    told = ends.pop(ended[0])
                    with contextlib.suppress(BrokenPipeError):
                        os.write(told, b"%d\n" % os.waitstatus_to_exitcode(ended[1]))
                    os.close(told)


def work(request: int, standard: list[int], passed: list[int]) -> int | str | None:
    """Be the Python that was asked for, in the child. Returns what Python is to exit with."""
    with open(request) as said:
        asked: dict[str, Any] = json.load(said)
    if asked["session"]:
        os.setsid()
    high = [fcntl.fcntl(file, fcntl.F_DUPFD, 200) for file in passed]  # out of the way of the numbers asked for
    for file in passed:
        os.close(file)
    for target, file in [*enumerate(standard), *zip(asked["pass_fds"], high)]:
        os.dup2(file, target)
        os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    how, *rest = asked["arguments"]
    first = os.path.dirname(os.path.abspath(how)) if not how.startswith("-") else ""
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [first, *paths, *(path for path in sys.path[1:] if path not in paths)]
    importlib.invalidate_caches()
    try:
        if how == "-c":
            sys.argv = ["-c", *rest[1:]]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), main.__dict__)
        elif how == "-m":
            sys.argv = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [how, *rest]
            runpy.run_path(how, run_name="__main__")
    except SystemExit as ended:
        return ended.code
    except BaseException as err:
        sys.excepthook(type(err), err, err.__traceback__ and err.__traceback__.tb_next)
        return -signal.SIGINT if isinstance(err, KeyboardInterrupt) else 1
    return 0


def end(code: int | str | None) -> NoReturn:
    """As Python ends, except that modules are not taken down one by one, which would copy the memory they share."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    code = code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads it, or it was closed
            code = code or 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    import_once()
    serve(socket.socket(fileno=os.dup(0)))
