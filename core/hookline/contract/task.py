"""A source of rows that needs no file, and what exact answers ask of it."""

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
    """The splits that `rows` knows; `train` is meant where a data name says none."""

    @abstractmethod
    def rows(self, split: str) -> Sequence[Record]:
        """The rows of a split, equal at each call: `text`, or `prompt` and `completion`, and whatever rewards want."""
        raise NotImplementedError

    def process(self) -> Process | None:
        """Small tasks: the whole decision process behind the rows, for tabular learners and exact answers."""
        return None

    def reward(self, record: Record, response: str) -> float:
        """What an answer to a row is worth; the reward `task` asks it. Tasks with a process play the answer's words."""
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
        """The best any policy can do: points (KL to the reference, value of `figure`), KL ascending, value rising.

        Tasks whose optimum under a KL budget is known exactly give it for the figures they know, by the reward's
        instance name (`keyword-coverage`, not `eval/keyword-coverage`); the KL is the mean per answer, in nats.
        `hookline compare` draws it: a policy measured above it, beyond the interval, is a bug. None: not known.
        """
        return None

    def preference(self, record: Record, response: str, other: str) -> float:
        """P(`response` is preferred to `other`), over the task's population of judges; Bradley–Terry of the rewards
        unless said otherwise. P of the same two the other way round is 1 minus this."""
        return 1 / (1 + math.exp(self.reward(record, other) - self.reward(record, response)))
