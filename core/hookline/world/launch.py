"""Starts a command several times on this machine, as the ranks of one run, and ends when they have ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from hookline.world.link import LAUNCHER
from hookline.world.place import Place

__all__ = ["launch"]

KILLED, FAILED = 1.8, 15.0
"""Seconds that the other ranks have to end after one was killed, or ended with an error that it told them."""


def launch(command: Sequence[str], processes: int) -> int:
    """Run `command` as `processes` ranks, and return the exit code of the run. SIGINT and SIGTERM are passed on.

    If this process is killed, the ranks finish their step, save and end.
    """
    port = _free_port()
    reads, writes = os.pipe()
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    ranks: list[subprocess.Popen[bytes]] = []

    asked: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        asked.append(number)
        for rank in ranks:
            with contextlib.suppress(OSError):
                rank.send_signal(number)

    old = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for rank in range(processes):
            place = Place(rank, processes, rank, "127.0.0.1", port).environment()
            environment = {"OMP_NUM_THREADS": threads, **os.environ, **place, LAUNCHER: str(reads)}
            # a session of its own, so that a terminal's Ctrl-C reaches each rank once, from here
            ranks.append(subprocess.Popen(command, env=environment, pass_fds=[reads], start_new_session=True))
        return _wait(ranks, asked)
    finally:
        for process in ranks:
            process.kill()
        for number, handler in old.items():
            signal.signal(number, handler)
        os.close(reads)
        os.close(writes)


def _wait(ranks: Sequence[subprocess.Popen[bytes]], asked: Sequence[int]) -> int:
    """Wait for all ranks, and end those that do not follow one that failed. asked: the signals that were passed on."""
    ended_by = float("inf")
    while any(rank.poll() is None for rank in ranks):
        codes = [rank.returncode for rank in ranks if rank.returncode]
        if codes:
            ended_by = min(ended_by, time.monotonic() + (KILLED if min(codes) < 0 else FAILED))
        if time.monotonic() > ended_by:
            break
        time.sleep(0.05)
    for rank in ranks:
        if rank.poll() is None:
            rank.kill()
            rank.wait()
    codes = [rank.returncode for rank in ranks]
    told = [code for code in codes if code > 0]
    if asked and not told and -asked[0] in codes:  # before the run had begun, so nothing is lost
        print("interrupted before the run began", file=sys.stderr)
        return 128 + asked[0]
    if min(codes) < 0 and not told:
        number = next(i for i, code in enumerate(codes) if code < 0)
        name = signal.Signals(-codes[number]).name
        print(f"ServiceError: rank {number} was ended by {name} → run the same command again", file=sys.stderr)
        return 7
    own = [code for code in told if not asked or code not in (7, 128 + asked[0])]  # what the signal itself does not explain
    return own[0] if own else 128 + asked[0] if told else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
