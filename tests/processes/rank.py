"""One of several processes that meet, then do what the first argument says: a program for the fixture `warm`."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from hookline.errors import DataError, HooklineError, told
from hookline.world.world import World, together

TIMEOUT = 2.0


def stay() -> None:
    """Do not come to the next exchange, and say how long it took until somebody ended that."""
    began = time.monotonic()
    try:
        time.sleep(30)
    finally:
        print(f"ended after {time.monotonic() - began:.2f} s", flush=True)


def main(what: str) -> None:
    with together(TIMEOUT) as link:
        world = World(link=link)
        world.follow(lambda: "hookline_reward of judge")
        first = world.rank == 0
        if link:
            link.stepping = True
        if what == "values":
            tensors = [torch.full((3,), float(world.rank + 1)), torch.ones(2, dtype=torch.bfloat16)]
            world.sum(1.0)
            world.add_up(tensors)
            print(
                [
                    world.sum(1.5 + world.rank), world.max(world.rank), world.any(world.rank == 1),
                    world.cat(torch.arange(2) + 10 * world.rank).tolist(), world.gather("ab"[world.rank]),
                    world.main(lambda: f"from {world.rank}"), world.before(3 + world.rank),
                    world.order([5, 1] if first else [3]), list(world.shard(range(5))), list(world.shard(range(1))),
                    [tensor.tolist() for tensor in tensors],
                ]
            )  # fmt: skip
        elif what == "apart":
            (world.sum if first else world.max)(1.0)
        elif what == "alone":
            if first:
                world.sum(1.0)  # the other one's next exchange looks the same, and the last one does not
        elif what in ("killed", "stubborn") and not first:
            time.sleep(0.5)  # so that it was seen there
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "killed":
            stay()
        elif what == "stubborn":
            while True:
                try:
                    time.sleep(0.1)
                except Exception:
                    continue
        elif what == "raises":
            if not first:
                raise DataError("row 7 has no 'prompt'", "write one")
            stay()
        elif what.startswith("hangs"):
            if world.rank == int(what[-1]):
                stay()
        elif what.startswith("stops"):
            if world.rank == int(what[-1]):
                os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "patient" and not first:
            with world.patient():  # e.g. for a person's answer
                time.sleep(2 * TIMEOUT)
        world.sum(1.0)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except HooklineError as err:
        code = told(err)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
