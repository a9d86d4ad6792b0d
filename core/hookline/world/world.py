"""Ranks and devices: which of how many processes this is, and where its networks lie.

The one place where processes meet; nothing else imports torch.distributed. Today there is one process, for which each of
these is the identity. Hooks are written as if there were many: a batch's statistics go through `sum`, `max` and `any`,
unconditionally and in the same order everywhere, and what touches the outside goes through `main`.
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
        """Whether it is true on some rank."""
        return flag

    def broadcast(self, value: T) -> T:
        """The value of rank 0, on every rank."""
        return value

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """The items that are this rank's, e.g. whole groups of prompts; together the ranks have each once."""
        return items

    def main(self, ask: Callable[[], T]) -> T:
        """Call it on rank 0 alone; its answer on every rank."""
        return ask()
