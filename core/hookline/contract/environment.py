"""An environment: a text episode played turn by turn, with tools and rewards of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT

__all__ = ["Environment", "Turn"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What an environment returns: what the policy reads next, what its last reply earned, and whether the episode is over.

    Give one of `messages`, `text` and `token_ids`; `token_ids=()` shows nothing at all.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    """Chat messages, `{"role": …, "content": …}`, in order."""
    text: str = ""
    """Plain text, for policies without a chat template."""
    token_ids: Sequence[int] | None = None
    """Token ids, for environments that return tokens."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """What the reply before this turn earned, by name."""
    terminated: bool = False
    """The episode came to its own end: nothing more can be earned."""
    truncated: bool = False
    """The episode was cut off, e.g. by a limit of turns; more could have been earned."""

    def __post_init__(self) -> None:
        if bool(self.messages) + bool(self.text) + (self.token_ids is not None) > 1:
            raise ValueError("a turn takes only one of messages, text and token_ids")

    @property
    def over(self) -> bool:
        """Whether the episode is over; `step` is not called any more."""
        return self.terminated or self.truncated

    @property
    def reward(self) -> float:
        """The sum of the named rewards."""
        return float(sum(self.rewards.values()))


class Environment(Component[ConfigT]):
    """Plays one text episode at a time: kind `environment`, named in the config of a rollout.

    A rollout makes one environment per sample (`self.parts["environment"].another()`), plays it and closes it. One that
    fails, with an OSError (a TimeoutError is one) or a ServiceError, makes its row "not judged" (column `ok_B`); the others
    go on. Any other exception is a mistake in its code and ends the run.
    """

    @abstractmethod
    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        """Begin an episode on a dataset row, and return what the policy reads first.

        Called once per episode, before any `step`; again for another episode, whatever became of the last. `rng` holds all
        randomness of the episode: draw from it and from nothing else. Raises DataError for a row that it cannot play.
        """
        raise NotImplementedError

    @abstractmethod
    async def step(self, reply: str) -> Turn:
        """Answer the policy's reply, as text without the token that ended it; `rewards` say what the reply earned.

        Not called after a turn that is `over`.
        """
        raise NotImplementedError
