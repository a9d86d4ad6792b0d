"""The processes of a sweep: one for each run, forked from a warm parent."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hookline.config.data import DataSpec
from hookline.data.sources import Catalogue
from hookline.errors import HooklineError, shorten, told
from hookline.world.signals import interrupted_by

UNFINISHED = 5
"""The exit code of a run whose process ended with 0 before all phases had ended."""


def work(
    requests: list[dict[str, Any]],
    jobs: int,
    lock: int,
    stopping: Any,
    progress: Any,
    codes: dict[str, int],
    ended: Callable[[str], bool],
) -> None:
    """Give every request to a worker; when asked to stop, let running ones save, and begin no others.

    ended: whether a run's directory shows that the run has ended; an exit code of 0 alone is not believed.
    """
    workers = [Worker(lock, jobs > 1) for _ in range(jobs)]
    queue, told = list(requests), False
    try:
        with selectors.DefaultSelector() as ready:
            for worker in workers:
                ready.register(worker.process.stdout, selectors.EVENT_READ, worker)  # type: ignore[arg-type]
            while (queue and not stopping.code) or any(worker.request for worker in workers):
                for worker in workers:
                    if worker.request is None and queue and not stopping.code:
                        request = queue.pop(0)
                        worker.begin(request)
                        progress.started(request["name"])
                if stopping.code and not told:
                    told = True
                    for worker in workers:
                        worker.tell(stopping.code - 128)
                for key, _ in ready.select(timeout=0.2):
                    worker = key.data
                    for code in worker.hear():
                        name = worker.request["name"]
                        code = code if code or ended(name) else UNFINISHED
                        codes[name] = code
                        worker.request = None
                        progress.ended(name, code, bool(stopping.code))
                    if worker.dead:
                        ready.unregister(key.fileobj)
                        workers.remove(worker)
                        if queue:
                            workers.append(Worker(lock, jobs > 1))
                            ready.register(workers[-1].process.stdout, selectors.EVENT_READ, workers[-1])  # type: ignore[arg-type]
                progress.update()
    except BaseException:
        for worker in workers:
            worker.tell(signal.SIGINT)
            worker.tell(signal.SIGINT)
        raise
    finally:
        for worker in workers:
            worker.close()


class Worker:
    """A process that has imported everything a run needs and forks a new child for each run, with a clean state."""

    def __init__(self, lock: int, shares: bool) -> None:
        start = "import sys; sys.path[:] = sys.argv[1:]; from hookline.study.workers import nursery; nursery()"
        environment = {**os.environ, **({"OMP_WAIT_POLICY": "passive"} if shares else {})}
        self.process = subprocess.Popen(
            [sys.executable, "-c", start, *(path or os.getcwd() for path in sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches this process, which then tells the runs
            pass_fds=(lock,),
            env=environment,
        )
        self.request: dict[str, Any] | None = None
        self.child = 0
        self.dead = False
        self._heard = b""
        self._to_tell: list[int] = []

    def begin(self, request: dict[str, Any]) -> None:
        self.request, self.child = request, 0
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead, which `hear` will notice
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()

    def hear(self) -> list[int]:
        """The exit code of the worker's run, once the run has ended."""
        assert self.process.stdout
        raw = os.read(self.process.stdout.fileno(), 1 << 16)
        if not raw:
            self.dead = True
            code = self.process.wait()
            return [code or 1] if self.request else []
        self._heard += raw
        *lines, self._heard = self._heard.split(b"\n")
        codes = []
        for line in lines:
            said = json.loads(line)
            if "pid" in said:
                self.child = said["pid"]
                for number in self._to_tell:
                    self.tell(number)
            else:
                self.child = 0
                codes.append(int(said["code"]))
        return codes

    def tell(self, number: int) -> None:
        """Send the run's process a signal; if the process has not started yet, it gets the signal at its start."""
        if self.child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.child, number)
        elif self.request:
            self._to_tell.append(number)

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        if self.process.poll() is None:
            if self.child:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.child, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def nursery() -> None:
    """The worker's side: one JSON request a line, a forked child for each, its process id and exit code as answers."""
    for module in ("transformers.modeling_utils", "hookline.loop.loop"):  # warm: a child then begins in milliseconds
        importlib.import_module(module)

    def answer(**said: int) -> None:
        os.write(1, json.dumps(said).encode() + b"\n")

    for line in sys.stdin:
        request = json.loads(line)
        named = {key: DataSpec.model_validate(spec) for key, spec in request["experiment"].get("data", {}).items()}
        catalogue = Catalogue((), named, request["experiment"].get("folder", ""))
        for name in request["data"]:
            with contextlib.suppress(
                Exception
            ):  # only to read the data once for all runs; the run itself reports errors
                catalogue.first(name)
                catalogue.rows(name)
        process = os.fork()
        if process == 0:
            sys.exit(_child(request))
        with contextlib.suppress(BrokenPipeError):
            answer(pid=process)
            _, status = os.waitpid(process, 0)
            answer(code=os.waitstatus_to_exitcode(status))


def _child(request: dict[str, Any]) -> int:
    """Make one run like `hookline run`, with its output in its log. Returns the exit code."""
    from hookline.loop import api

    def stop_with_the_sweep() -> None:
        if not os.read(0, 1):  # its end of the pipe is closed: the sweep was killed
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        threading.Thread(target=stop_with_the_sweep, daemon=True).start()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(log, 1)
        os.dup2(log, 2)
        api.run(request["experiment"], out=request["out"], plugins=request["plugins"], group=request["group"])
    except HooklineError as err:
        return told(err)
    except KeyboardInterrupt:
        return 128 + interrupted_by[0]
    return 0


def why(log: Path, code: int) -> str:
    """Why a run failed: its last error message, or the signal that ended it."""
    if code < 0:
        number = -code
        known = signal.Signals(number).name if number in signal.valid_signals() else str(number)
        return f"killed by signal {known}" + (" (out of memory?)" if number == signal.SIGKILL else "")
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt|Stopped)\b", line)]
    if not named and code == UNFINISHED:
        return f"its process ended before its phases did; see {log}"
    return f"exit code {code}: {shorten(named[-1], 300) if named else f'see {log}'}"
