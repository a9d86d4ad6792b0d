"""A task is a source of rows that needs no file, and may offer exact answers."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT
from hookline.contract.process import Process
from hookline.errors import DataError, PluginError

__all__ = ["Task"]


class Task(Component[ConfigT]):
    """A source of rows that needs no file: kind `task`, named by `builtin:NAME/SPLIT` or `task:NAME/SPLIT`."""

    splits: ClassVar[Sequence[str]] = ("train", "heldout")
    """The splits that `rows` accepts; a data name without a split means `train`."""

    @abstractmethod
    def rows(self, split: str) -> Sequence[Record]:
        """The rows of a split, equal at each call: `text`, or `prompt` and `completion`, and fields for rewards."""
        raise NotImplementedError

    def process(self) -> Process | None:
        """Small tasks only: the complete decision process behind the rows, for tabular learners and exact answers."""
        return None

    def reward(self, record: Record, response: str) -> float:
        """The reward of an answer, used by the reward `task`. By default, the process plays the answer's words."""
        process = self.process()
        if process is None:
            raise PluginError(f"task '{self.instance or type(self).__name__}' cannot judge answers", "name a reward")
        start = next((state for _, state in process.starts() if process.prompt(state) == record["prompt"]), None)
        if start is None:
            raise DataError(
                f"task '{self.instance or type(self).__name__}' has no prompt '{str(record['prompt'])[:40]}', "
                "so it cannot judge answers to it",
                "name one task for the prompts and the reward",
            )
        return process.play(start, response.split())[0]

    def frontier(self, figure: str) -> Sequence[tuple[float, float]] | None:
        """The best that any policy can reach: points (KL to the reference, value of `figure`), both ascending.

        Override this in tasks whose optimum under a KL budget is known exactly; return None for other figures. figure:
        the reward's instance name (`keyword-coverage`, not `eval/keyword-coverage`). The KL is the mean per answer, in
        nats. `hookline compare` draws the frontier: a policy measured above it, beyond the interval, indicates a bug.
        """
        return None

    def preference(self, record: Record, response: str, other: str) -> float:
        """P(`response` is preferred to `other`), over the task's population of judges; by default, Bradley–Terry of the
        rewards. The probability with the two answers swapped must be 1 minus this."""
        return 1 / (1 + math.exp(self.reward(record, other) - self.reward(record, response)))
