"""Several processes of one run, for tests: each started as a launcher such as torchrun would start it."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from warm import Child, Warm

__all__ = ["finished", "give", "start"]


def start(
    warm: Warm,
    commands: Sequence[Sequence[str | Path]],
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
) -> list[Child]:
    """One process for each command, as the ranks of one run; they meet at a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        warm.start(*command, cwd=cwd, env=environment(rank, len(commands), port, env))
        for rank, command in enumerate(commands)
    ]


def environment(rank: int, size: int, port: int, env: Mapping[str, str] | None = None) -> dict[str, str]:
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    named = {name: str(value) for name, value in place.items()}
    return {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **named, **(env or {})}


def give(ranks: Sequence[Child], inputs: Sequence[str]) -> None:
    """Give each rank its standard input."""
    for rank, text in zip(ranks, inputs):
        rank.stdin.write(text)
        rank.stdin.close()


def finished(ranks: Sequence[Child], inputs: Sequence[str] = (), timeout: float = 120.0) -> list[tuple[int, str, str]]:
    """(exit code, standard output, standard error) of every rank; those that do not end are killed."""
    give(ranks, inputs)
    found = []
    try:
        for rank in ranks:
            out, err = rank.communicate("", timeout)
            found.append((rank.wait(), out, err))
    finally:
        for rank in ranks:
            rank.kill()
    return found
