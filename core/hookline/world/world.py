"""Ranks and devices: the rank of this process, the number of processes, and the device of its networks.

All communication between processes belongs here; no other module may import torch.distributed. Today a run is one
process, so each of these methods is the identity. Hooks are written for several processes: statistics of a batch go
through `sum`, `max` and `any`, unconditionally and in the same order on all ranks, and access to the outside goes
through `main`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

__all__ = ["World"]

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Rank `rank` of `size`, with its networks on `device`."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if (self.rank, self.size) != (0, 1):
            raise ValueError(f"rank {self.rank} of {self.size}: a run is one process")

    def sum(self, value: float) -> float:
        """The sum over all ranks."""
        return value

    def max(self, value: float) -> float:
        """The largest value of any rank."""
        return value

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return flag

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on every rank."""
        return value

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """The items that belong to this rank, e.g. whole groups of prompts; each item belongs to exactly one rank."""
        return items

    def main(self, ask: Callable[[], T]) -> T:
        """Call `ask` on rank 0 only, and return its answer on every rank."""
        return ask()
