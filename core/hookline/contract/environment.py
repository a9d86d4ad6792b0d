"""An environment plays a text episode turn by turn, with its own tools and rewards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

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
    """Plain text; for a policy with a chat template it is a user's message."""
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
    environment raises an exception, takes too long or returns something that is not a turn, its episode counts as not
    judged (column `ok_B`), the rollout says why, and the other episodes continue. Raise a DataError or an ExperimentError to
    end the run instead.

    Many environments are played at the same time on one event loop: an environment that computes or waits in plain Python
    should do it in a thread (`asyncio.to_thread`).
    """

    seeded: ClassVar[bool] = True
    """Whether an episode is a function of the generator that `reset` receives and of the replies. If it is not, as with a
    service, the rollout journals whole episodes, so that a resumed run does not play them again."""
    tools: Sequence[Mapping[str, Any]] = ()
    """The tools that a policy may call, as JSON schemas; they are known after `reset`, and the chat template shows them."""

    @abstractmethod
    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        """Begin an episode on a dataset row, and return what the policy reads first.

        Called once per episode, before any `step`. It may be called again for another episode, also if the last one did
        not end. Take all randomness of the episode from `rng`; the episodes of a group have equal generators, so that they
        begin in the same way. Raise DataError for a row that the environment cannot play.
        """
        raise NotImplementedError

    @abstractmethod
    async def step(self, reply: str) -> Turn:
        """Answer the policy's reply; `rewards` of the returned turn are the rewards of this reply.

        reply: the text of the reply, without its ending token; with `tools`, special tokens within it are kept, since calls
        may be written with them (`ctx.read_turn` finds the calls). Not called after a turn that is `over`.
        """
        raise NotImplementedError
