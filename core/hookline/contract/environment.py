"""An environment plays a text episode turn by turn, with its own tools and rewards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hookline.batch.stages import Record
from hookline.contract.component import Component, ConfigT

if TYPE_CHECKING:
    import torch

__all__ = ["Environment", "Turn"]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What an environment returns: the text that the policy reads next, the rewards of its last reply, and whether the
    episode is over.

    Set one of `messages`, `text` and `token_ids`; with `token_ids=()` the policy reads nothing.
    """

    messages: Sequence[Mapping[str, Any]] = ()
    """Chat messages, `{"role": …, "content": …}`, in order."""
    text: str = ""
    """Plain text, for policies without a chat template."""
    token_ids: Sequence[int] | None = None
    """Token ids, for environments that return tokens."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """The rewards of the reply before this turn, by name."""
    terminated: bool = False
    """True if the episode ended by itself: no more reward could follow."""
    truncated: bool = False
    """True if the episode was cut off, e.g. by a limit of turns: more reward could have followed."""

    def __post_init__(self) -> None:
        if bool(self.messages) + bool(self.text) + (self.token_ids is not None) > 1:
            raise ValueError("a turn takes only one of messages, text and token_ids")

    @property
    def over(self) -> bool:
        """Whether the episode is over; `step` is then not called again."""
        return self.terminated or self.truncated

    @property
    def reward(self) -> float:
        """The sum of the named rewards."""
        return float(sum(self.rewards.values()))


class Environment(Component[ConfigT]):
    """Plays one text episode at a time: kind `environment`, named in the config of a rollout.

    A rollout makes one environment per sample (`self.parts["environment"].another()`), plays it and closes it. If an
    environment raises an OSError (e.g. a TimeoutError) or a ServiceError, its row counts as not judged (column `ok_B`)
    and the other rows continue. Any other exception is treated as a bug and ends the run.
    """

    @abstractmethod
    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        """Begin an episode on a dataset row, and return what the policy reads first.

        Called once per episode, before any `step`. It may be called again for another episode, also if the last one did
        not end. Take all randomness of the episode from `rng`. Raise DataError for a row that the environment cannot
        play.
        """
        raise NotImplementedError

    @abstractmethod
    async def step(self, reply: str) -> Turn:
        """Answer the policy's reply; `rewards` of the returned turn are the rewards of this reply.

        reply: the text of the reply, without its ending token. Not called after a turn that is `over`.
        """
        raise NotImplementedError
