"""Who of the ranks is alive, and where: a thread of each rank, connected to rank 0's, apart from all exchanges.

An exchange fails at once when a process has died, but a rank inside a hook would notice only at its next exchange. This
thread ends it within two seconds: first with an exception in the main thread, then by force.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hookline import errors
from hookline.errors import HooklineError, ServiceError, frames_of

__all__ = ["AGAIN", "Watch", "line", "reason"]

AGAIN = "run the same command again; it goes on from the newest save"
BEAT = 0.2
"""Seconds between two looks."""
SILENT = 10.0
"""Seconds after which a rank that says nothing no longer counts as waiting."""
FORCE = 1.5
"""Seconds after which a rank that does not end by itself is ended."""
SIGNAL = signal.SIGUSR1
"""Interrupts the main thread."""
_exit = os._exit
"""Ends the process; `exits.guarded` replaces the name in `os` for components."""


class Watch:
    """Knows where each rank was seen last, and ends this process when another one has failed or died."""

    def __init__(self, rank: int, peers: Mapping[int, socket.socket], launcher: int | None = None) -> None:
        """peers: by rank, the connections of rank 0 to all others, or of another rank to rank 0. launcher: a pipe that
        closes when the process that started this one has ended; this rank is then asked to stop."""
        self.rank = rank
        self.doing: Callable[[], str] = lambda: "the core"
        """What the main thread is doing now, e.g. the hook of a component."""
        self._peers, self._launcher = dict(peers), launcher
        self._place = (0, "the start", False)
        """This rank's exchanges so far, the last one's name, and whether it waits for somebody outside the run."""
        self._seen: dict[int, tuple[int, str, bool]] = {}
        self._spoke: dict[int, float] = {}
        """When each rank last said something."""
        self._cause: HooklineError | None = None
        self._left: set[int] = set()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._old: Any = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(SIGNAL, self._interrupt)
        self._thread = threading.Thread(target=self._look, name="hookline watch", daemon=True)
        self._thread.start()

    # -- what the main thread tells and asks

    def at(self, count: int, what: str) -> None:
        """Note where this rank is: in its `count`-th exchange."""
        self._place = (count, what, False)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within the block, this rank waits for somebody outside the run, for as long as it takes."""
        count, what, _ = self._place
        self._place = (count, what, True)
        self.tell()
        try:
            yield
        finally:
            self._place = (count, what, False)
            self.tell()

    def waits(self, ranks: Iterable[int]) -> bool:
        """Whether one of these ranks waits for somebody outside the run, and has just said so."""
        lately = time.monotonic() - SILENT
        return any(self._seen.get(rank, (0, "", False))[2] and self._spoke[rank] > lately for rank in ranks)

    def where(self, rank: int) -> str:
        """Where a rank was seen last."""
        return self._seen.get(rank, (0, "the start", False))[1]

    def cause(self, wait: float = 0.0) -> HooklineError | None:
        """Why another rank ended, once that is known; None if nothing is known after `wait` seconds."""
        until = time.monotonic() + wait
        while self._cause is None and time.monotonic() < until:
            time.sleep(0.02)
        return self._cause

    def fail(self, err: HooklineError | None) -> None:
        """End the watch, since this rank fails. err: why, for the other ranks; None if they know."""
        known = self._closed.is_set() or self._cause is not None
        self._closed.set()
        if err and not known:
            self._send(failed=reason(err) | {"rank": self.rank})

    def close(self) -> None:
        """End the watch; the other ranks take it for a proper end."""
        self._closed.set()
        self._thread.join()
        self._send(bye=self.rank)
        for peer in self._peers.values():
            peer.close()
        if self._old is not None:
            signal.signal(SIGNAL, self._old)

    # -- the thread

    def _look(self) -> None:
        told: Any = None
        rest: dict[int, bytes] = dict.fromkeys(self._peers, b"")
        with selectors.DefaultSelector() as selector:
            for rank, peer in self._peers.items():
                selector.register(peer, selectors.EVENT_READ, rank)
            if self._launcher is not None:
                selector.register(self._launcher, selectors.EVENT_READ, None)
            while not self._closed.is_set() and self._cause is None:
                now = (*self._place, self.doing(), time.monotonic() // 1)
                if told != now:  # at least once a second
                    told = now
                    self.tell()
                for key, _ in selector.select(BEAT):
                    if key.data is None:
                        selector.unregister(key.fileobj)
                        os.kill(os.getpid(), signal.SIGTERM)
                    elif not self._hear(key.data, rest):
                        selector.unregister(key.fileobj)
        if self._cause is not None and not self._closed.wait(FORCE):
            self._force(self._cause)

    def _hear(self, rank: int, rest: dict[int, bytes]) -> bool:
        """Read what a rank has sent; False if its connection has ended."""
        try:
            data = self._peers[rank].recv(65536)
        except OSError:
            data = b""
        if not data:
            if rank not in self._left and not self._closed.is_set():
                died = ServiceError(f"rank {rank} died, last seen in {self.where(rank)}", AGAIN)
                died.teller = 0 if rank else 1
                self._end(reason(died) | {"rank": 0})
            return False
        *lines, rest[rank] = (rest[rank] + data).split(b"\n")
        for message in map(json.loads, lines):
            if "at" in message:
                self._seen[rank], self._spoke[rank] = tuple(message["at"]), time.monotonic()
            elif "bye" in message:
                self._left.add(message["bye"])
            elif "failed" in message:
                self._end(message["failed"])
        return True

    def tell(self) -> None:
        """Tell the others where this rank is."""
        count, what, patient = self._place
        others = self.rank == 0 and self.waits(self._seen)  # the other ranks see only rank 0
        doing = self.doing()
        place = what if doing == "the core" else doing
        self._send(at=[count, place, patient or others])

    def _end(self, why: dict[str, Any]) -> None:
        """Another rank has ended: keep its reason, pass it on, interrupt the main thread."""
        if self._cause is not None:
            return
        if self.rank == 0:
            self._send(failed=why)
        kind = getattr(errors, why["kind"], HooklineError)
        cause: HooklineError = HooklineError.__new__(kind)
        said = f"rank {why['rank']}: {why['message']}" if why["rank"] and not why["teller"] else why["message"]
        HooklineError.__init__(cause, said, why["hint"])
        cause.exit_code, cause.frames = why["code"], why["frames"]
        cause.blamed = True  # type: ignore[attr-defined]  # on no component that it interrupts
        cause.elsewhere = self.rank != why["teller"]
        self._cause = cause
        if self._old is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, SIGNAL)

    def _force(self, cause: HooklineError) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        if not cause.elsewhere:
            os.write(2, f"{type(cause).__name__}: {cause}\n".encode())
        _exit(cause.exit_code)

    def _interrupt(self, number: int, frame: Any) -> None:
        if self._cause is not None and not self._closed.is_set():
            raise self._cause

    def _send(self, **message: Any) -> None:
        with self._lock:
            for rank, peer in self._peers.items():
                if rank not in self._left:
                    with contextlib.suppress(OSError):
                        peer.sendall(line(message))


def reason(err: HooklineError) -> dict[str, Any]:
    """An error as JSON."""
    return {
        "kind": type(err).__name__,
        "message": err.message,
        "hint": err.hint,
        "code": err.exit_code,
        "frames": frames_of(err),
        "teller": err.teller,
    }


def line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
