"""Ranks and devices: the rank of this process, the number of processes, and the device of its networks.

All communication between processes belongs to this folder; no other module may import torch.distributed. With one
process each method is the identity. Hooks are written for several: statistics of a batch go through `sum`, `max` and
`any`, unconditionally and in the same order on all ranks, and access to the outside goes through `main`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from hookline.errors import HooklineError, Stopped
from hookline.world.link import Link
from hookline.world.place import Place
from hookline.world.signals import interrupted_by

__all__ = ["TIMEOUT", "World", "together"]

T = TypeVar("T")
TIMEOUT = 1800.0
"""Seconds that ranks wait for one another."""


class World:
    """Rank `rank` of `size`, with its networks on `device`.

    Every exchange has a name, and the hook that makes it. If ranks meet in different ones, each rank raises PluginError;
    a rank that was lost, or does not come, is named by the `Link`.
    """

    def __init__(self, device: torch.device | None = None, link: Link | None = None) -> None:
        """link: the connection to the other processes; None for a single process."""
        self.device = device or torch.device("cpu")
        self._link = link
        self.rank, self.size = (link.rank, link.size) if link else (0, 1)
        self.local = link.local if link else 0
        """The rank among the processes of this machine."""

    def on(self, device: torch.device) -> World:
        """The same processes, with networks on another device."""
        return World(device, self._link)

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes files and speaks to trackers and to the terminal."""
        return self.rank == 0

    def follow(self, doing: Callable[[], str]) -> Callable[[], None] | None:
        """doing: says what the main thread is doing, e.g. a component's hook, for errors about ranks that do not come.

        Returns a function to call when that changes; None for a single process.
        """
        if self._link is None:
            return None
        self._link.watch.doing = doing
        return self._link.watch.tell

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """A block in which the ranks take steps, and wait for one another no longer than the run's timeout."""
        if self._link:
            self._link.stepping = True
        try:
            yield
        finally:
            if self._link:
                self._link.stepping = False

    def patient(self) -> Any:
        """A block in which this rank waits for somebody outside the run; the others then wait for it without limit."""
        return self._link.watch.patient() if self._link else nullcontext()

    # -- exchanges: every rank calls them in the same order

    def gather(self, value: T, name: str = "gather") -> list[T]:
        """The values of all ranks, by rank, on every rank."""
        if self._link is None:
            return [value]
        found: list[T] = self._link.exchange(value, f"{name} of {self._link.watch.doing()}")
        return found

    def sum(self, value: float, name: str = "sum") -> float:
        """The sum over all ranks."""
        return value if self._link is None else sum(self.gather(value, name))

    def max(self, value: float, name: str = "max") -> float:
        """The largest value of any rank."""
        return value if self._link is None else max(self.gather(value, name))

    def mean(self, x: Tensor, name: str = "mean") -> float:
        """The mean over all entries of all ranks; 0 when there are none."""
        parts = self.gather((float(x.double().sum()), x.numel()), name)
        return sum(total for total, _ in parts) / max(1, sum(count for _, count in parts))

    def any(self, flag: bool, name: str = "any") -> bool:
        """Whether `flag` is true on any rank."""
        return flag if self._link is None else any(self.gather(flag, name))

    def cat(self, x: Tensor, name: str = "cat") -> Tensor:
        """The tensors of all ranks joined along their first dimension, in the order of ranks."""
        if self._link is None:
            return x
        parts = self.gather(x.detach().cpu().numpy(), name)
        return torch.from_numpy(np.concatenate(parts)).to(x.device)

    def main(self, ask: Callable[[], T], name: str = "main") -> T:
        """Call `ask` on rank 0 only, and return its answer on every rank. An error of `ask` ends every rank."""
        if self._link is None:
            return ask()
        return self.gather(ask() if self.leads else None, name)[0]  # type: ignore[return-value]

    def before(self, count: int, name: str = "before") -> tuple[int, int]:
        """(the sum of `count` over lower ranks, its sum over all): where this rank's items lie among all items."""
        if self._link is None:
            return 0, count
        counts = self.gather(count, name)
        return sum(counts[: self.rank]), sum(counts)

    def order(self, keys: Sequence[int], name: str = "order") -> tuple[list[int], int]:
        """(the places of this rank's items among the items of all ranks, sorted by key; the number of all items)."""
        every = self.gather(list(keys), name)
        placed = sorted((key, rank, i) for rank, some in enumerate(every) for i, key in enumerate(some))
        own = {i: place for place, (_, rank, i) in enumerate(placed) if rank == self.rank}
        return [own[i] for i in range(len(keys))], len(placed)

    def add_up(self, tensors: Sequence[Tensor], name: str = "the sum of gradients") -> None:
        """Replace each tensor by its sum over all ranks, in place, directly after another exchange. The ranks pass
        tensors of the same shapes and types."""
        if self._link is not None and tensors:
            self._link.reduce(tensors, name)

    # -- shares

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """The items that belong to this rank, e.g. the prompts of a step: neighbours, each item on exactly one rank."""
        if self._link is None:
            return items
        return items[len(items) * self.rank // self.size : len(items) * (self.rank + 1) // self.size]


@contextmanager
def together(timeout: float = TIMEOUT) -> Iterator[Link | None]:
    """Within the block, this process is connected to the others of its run; None if it is the only one.

    The process of rank 0 tells the user how a run ended; errors of other ranks have `elsewhere` set.
    """
    place = Place.here()
    if place.size == 1:
        yield None
        return
    try:
        link = Link(place, timeout)
    except HooklineError as err:
        err.elsewhere = place.rank > 0 and place.local > 0  # each machine tells
        raise
    try:
        yield link
        link.close()
    except Stopped as err:
        err.elsewhere = link.rank > 0
        link.close()
        raise
    except KeyboardInterrupt:
        stopped = Stopped(
            "stopped at once, without a save", "run the same command to continue", 128 + interrupted_by[0]
        )
        link.fail(stopped)
        if link.rank == 0:
            raise
        stopped.elsewhere = True
        raise stopped from None
    except BaseException as err:
        link.fail(err, known=isinstance(err, HooklineError) and err.everywhere)
        if isinstance(err, HooklineError):
            err.elsewhere = err.elsewhere or link.rank != err.teller
        raise
