"""A model in a process of its own that writes replies to conversations, for a page that goes on answering meanwhile.

`python -m hookline_plugins.page.writer MODEL OPTIONS` reads requests from its input and writes what happens to its output, each one JSON
object on a line, and ends with its input. Replies to several conversations are written by turns, a token each.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import hookline
from hookline import HooklineError, Producer, ServiceError

__all__ = ["Reply", "Writer"]

_Requests: TypeAlias = "queue.SimpleQueue[Mapping[str, Any] | None]"
SLOWEST = 300.0
"""Seconds after which a reply that is not complete has failed."""
SILENT = 30.0
"""Seconds without a word from a process that should write, after which it is ended."""


@dataclass
class Reply:
    """A reply while it is written, and afterwards."""

    text: str = ""
    """As far as it is written."""
    state: str = "writing"
    """`writing`, `done` or `failed`."""
    why: str = ""
    """Of one that is done, `stop` or `length`. Of one that failed: `full`, no room in the model's context; `long`, not even for
    the message alone; `slow`; `stopped`; or `broken`."""
    by: Producer | None = None
    """What wrote it, of one that is done."""
    begun: float = field(default_factory=time.monotonic)


class Writer:
    """One model that replies. All methods may be called by any thread."""

    def __init__(self, model: str, options: Mapping[str, Any], *, slowest: float = SLOWEST) -> None:
        """options: those of `hookline.Speaker.reply` without the seed, and `device`."""
        self.model, self.options, self.slowest = model, dict(options), slowest
        self.name = ""
        """How the model is called in what is stored; empty: as it calls itself."""
        self._by = Producer()
        self._lock = threading.Lock()
        """Never held while something waits for the process, which may have stopped."""
        self._process: subprocess.Popen[str] | None = None
        self._requests: _Requests = queue.SimpleQueue()
        """What the process is still to be sent."""
        self._ready: queue.Queue[Mapping[str, Any]] = queue.Queue()
        self._writing: dict[int, tuple[subprocess.Popen[str], Reply]] = {}
        self._number = 0
        self._spoke = time.monotonic()

    @property
    def by(self) -> Producer:
        """What wrote the replies; known when it is `ready`."""
        return self._by.model_copy(update={"name": self.name or self._by.name})

    def ready(self) -> Producer:
        """Start the process and wait until the model is there. Raises the error that names what is wrong with the model."""
        with self._lock:
            self._start()
        said = self._ready.get()
        if "by" in said:
            return self.by
        kind = getattr(hookline, str(said.get("error")), ServiceError)
        raise kind(
            said.get("message") or f"the process with {self.model} ended", said.get("hint") or "see what it printed"
        )

    def write(self, messages: Sequence[Mapping[str, Any]], seed: int) -> Reply:
        """Begin a reply. A process that has ended is started again."""
        reply = Reply()
        with self._lock:
            self._number += 1
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._process is not None
            self._writing[self._number] = self._process, reply
            self._requests.put({"write": self._number, "messages": list(messages), "seed": seed})
        return reply

    def look(self, reply: Reply) -> Reply:
        """The reply; one that takes too long has failed then."""
        if reply.state == "writing" and time.monotonic() - reply.begun > self.slowest:
            self.stop(reply, "slow")
            with self._lock:
                if self._process and time.monotonic() - self._spoke > SILENT:
                    self._process.kill()
        return reply

    def stop(self, reply: Reply, why: str = "stopped") -> None:
        """Write a reply no further."""
        with self._lock:
            number = next((number for number, (_, one) in self._writing.items() if one is reply), None)
            if number is not None:
                self._writing.pop(number)
                reply.state, reply.why = "failed", why
                self._requests.put({"stop": number})

    def close(self) -> None:
        """End the process."""
        with self._lock:
            process, self._process = self._process, None
            self._requests.put(None)
        if process:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # -- the process

    def _start(self) -> None:
        command = [sys.executable, "-m", __name__, self.model, json.dumps(self.options)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii", start_new_session=True
        )
        self._requests = queue.SimpleQueue()
        threading.Thread(target=_send, args=(self._process, self._requests), daemon=True).start()
        threading.Thread(target=self._read, args=(self._process, self._requests), daemon=True).start()

    def _read(self, process: subprocess.Popen[str], requests: _Requests) -> None:
        """Take what a process says until it ends."""
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            with self._lock:
                self._spoke = time.monotonic()
                self._take(said)
        process.wait()
        requests.put(None)
        with self._lock:
            for number, (of, reply) in list(self._writing.items()):
                if of is process:
                    reply.state, reply.why = "failed", "broken"
                    del self._writing[number]
        self._ready.put({})

    def _take(self, said: Mapping[str, Any]) -> None:
        if "by" in said or "error" in said:
            if "by" in said:
                self._by = Producer.model_validate(said["by"])
            self._ready.put(said)
            return
        if int(said["reply"]) not in self._writing:  # it was stopped meanwhile
            return
        reply = self._writing[int(said["reply"])][1]
        reply.text += said.get("piece", "")
        if "state" in said:
            reply.state, reply.why, reply.by = said["state"], said["why"], self.by
            self._writing.pop(int(said["reply"]))


def _send(process: subprocess.Popen[str], requests: _Requests) -> None:
    """Send a process its requests, until None, which ends its input. Waits while the process does not read."""
    assert process.stdin is not None
    try:
        while (request := requests.get()) is not None:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
    except OSError:  # it has ended; the reading thread says so to all who wait
        pass
    with suppress(OSError):
        process.stdin.close()


# -- within the process


def main(model: str, options: dict[str, Any]) -> int:
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints is not an answer

    def say(**said: Any) -> None:
        out.write(json.dumps(said) + "\n")
        out.flush()

    try:
        speaker = hookline.speaker(model, options.pop("device", "auto"))
        speaker.check_converses()
        say(by=speaker.by.model_dump(mode="json"))
        os.nice(5)  # people who judge do not wait for those who talk
    except HooklineError as err:
        say(error=type(err).__name__, message=err.message, hint=err.hint)
        return err.exit_code
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    writing: dict[int, Generator[str, None, str]] = {}
    while True:
        while not writing or not requests.empty():
            request = requests.get()
            if not request:
                os._exit(0)  # at once: what torch does at its end takes a second
            if "stop" in request:
                writing.pop(request["stop"], None)
            else:
                writing[request["write"]] = _reply(speaker, request, options)
        for number, reply in list(writing.items()):
            try:
                say(reply=number, piece=next(reply))
                continue
            except StopIteration as end:
                say(reply=number, state="done", why=end.value)
            except _NoRoom as err:
                say(reply=number, state="failed", why=str(err))
            except Exception as err:
                message = err.message if isinstance(err, HooklineError) else f"{type(err).__name__}: {err}"
                print(f"a reply failed: {message}", file=sys.stderr, flush=True)
                say(reply=number, state="failed", why="broken")
            del writing[number]


class _NoRoom(Exception):
    """The model's context has no room for a reply: `full`, or `long` for a message that is too long by itself."""


def _reply(speaker: Any, request: Mapping[str, Any], options: Mapping[str, Any]) -> Generator[str, None, str]:
    """A reply, piece by piece. What is wrong with the conversation is raised by the first piece."""
    messages = request["messages"]
    if refused := speaker.refused(messages, options.get("max_new_tokens")):
        raise _NoRoom(refused)
    said: str = yield from speaker.reply(messages, seed=request["seed"], **options)
    return said


def _listen(requests: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    requests.put({})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], json.loads(sys.argv[2])))
