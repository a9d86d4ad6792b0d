"""Scopes: how rows are chosen, samples numbered and figures logged in training and in an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter

import torch
from torch import Tensor

from hookline import rng
from hookline.runs.figures import MetricLog
from hookline.world.world import World

__all__ = ["Evaluation", "Scope", "Training"]


class Scope(ABC):
    """A phase, and the steps done in it. Everything that a component keys, takes or logs depends on its scope."""

    evaluating: bool

    def __init__(self, seed: int, phase: str, world: World) -> None:
        self.seed = seed
        self.phase = phase
        self.world = world
        self.step = 0
        """In training, the steps done; in an evaluation, the batches drawn."""
        self.samples = 0
        """Sample ids handed out. Training counts them over the whole run."""
        self.asked: Counter[str] = Counter()
        """How many times each component called `ctx.each` in this step."""

    @property
    @abstractmethod
    def place(self) -> tuple[str, ...]:
        """The first parts of every key of random numbers."""

    @property
    @abstractmethod
    def journaled(self) -> tuple[str, str]:
        """The first parts of every key of the journal: the phase, and its evaluation, if any."""

    @abstractmethod
    def take(self, instance: str, total: int, n: int) -> list[int]:
        """Which of the `n` rows, out of `total`, that belong to this step are this rank's."""

    @abstractmethod
    def log(self, name: str, value: float, count: float, who: str) -> None:
        """Add to a figure of the step."""

    def key(self, instance: str, purpose: str, *ids: object) -> tuple[object, ...]:
        """The key of a random number: what the number is for."""
        return (self.seed, *self.place, self.step, instance, purpose, *ids)

    @property
    def drawing(self) -> int:
        """The seed of drawn answers; together with a sample's id it determines that sample's random numbers."""
        return rng.key(self.seed, *self.place, "draw")

    def sample_ids(self, n: int) -> Tensor:
        """The next `n` sample ids of this rank, int64 [n]; those of lower ranks come before them."""
        before, all_of_them = self.world.before(n, "sample_ids")
        first = self.samples + before
        self.samples += all_of_them
        return torch.arange(first, first + n)


class Training(Scope):
    """The steps of a phase: each epoch takes the rows in a new order, and figures go into the step's row."""

    evaluating = False

    def __init__(self, seed: int, phase: str, metrics: MetricLog, world: World) -> None:
        super().__init__(seed, phase, world)
        self.metrics = metrics
        self._orders: dict[tuple[str, int, int], list[int]] = {}

    @property
    def place(self) -> tuple[str, ...]:
        return (self.phase,)

    @property
    def journaled(self) -> tuple[str, str]:
        return self.phase, ""

    def take(self, instance: str, total: int, n: int) -> list[int]:
        start, found = self.step * n, []
        for position in range(start, start + n):
            epoch, at = divmod(position, total)
            where = (instance, total, epoch)
            if where not in self._orders:
                self._orders = {k: v for k, v in self._orders.items() if k[2] == epoch - 1}
                generator = rng.generator(self.seed, self.phase, instance, "order", epoch)
                self._orders[where] = torch.randperm(total, generator=generator).tolist()
            found.append(self._orders[where][at])
        return list(self.world.shard(found))

    def log(self, name: str, value: float, count: float, who: str) -> None:
        self.metrics.add(name, value, count, who)


class Evaluation(Scope):
    """One evaluation of a phase: the same rows in file order each time; components' own figures are not logged."""

    evaluating = True

    def __init__(self, of: Training, name: str) -> None:
        super().__init__(of.seed, of.phase, of.world)
        self.name = name
        self.after = of.step
        """The steps of the phase after which the evaluation is made."""

    @property
    def place(self) -> tuple[str, ...]:
        return "evaluation", self.name

    @property
    def journaled(self) -> tuple[str, str]:
        return self.phase, f"{self.name}@{self.after}"

    def take(self, instance: str, total: int, n: int) -> list[int]:
        start = self.step * n
        return list(self.world.shard(range(start, max(start, min(start + n, total)))))

    def log(self, name: str, value: float, count: float, who: str) -> None:
        """Do nothing: an evaluation's figures come from its rewards alone."""
