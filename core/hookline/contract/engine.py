"""An engine: what draws answers from a model, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hookline.batch.stages import Sampling
from hookline.contract.component import Component, ConfigT

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Completion", "Engine", "Request"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One sample to draw."""

    role: str
    prompt: Sequence[int]
    """Token ids, at least one."""
    sample: int
    """Its sample id; with `seed`, all of its randomness."""
    seed: int
    sampling: Sampling
    max_new_tokens: int
    greedy: bool = False
    """Take the likeliest token each time; its log-probs are those of sampling all the same."""
    beside: Sequence[str] = ()
    """Further roles whose next-token figures `combine` is given."""
    combine: Any = None
    """From figures of the roles, by name, to the logits [B, V] that are drawn from; engines that give `combine` take it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion:
    """One answer, and how it was drawn."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]
    """Of each token, under the request's sampling."""
    kept_ids: Sequence[Sequence[int]] | None
    """Per token, the ids that top-k/top-p kept; None where nothing was cut."""
    versions: Sequence[int]
    """Which weights drew each token."""
    finish_reason: str
    """`stop` or `length`."""


class Engine(Component[ConfigT]):
    """Draws answers from a model: kind `engine`, named by `engine:` in a phase, which has one.

    `gives` says what it can: `combine`, `kept-ids`, `score`, `exact`; a rollout `needs` these by name, and what is missing
    is refused before a weight loads.
    """

    async def draw(self, request: Request) -> Completion:
        """Draw one sample. Many wait at once: an engine batches what waits."""
        raise NotImplementedError

    async def score(self, role: str, token_ids: Sequence[int]) -> Tensor:
        """Log-probs of tokens given those before them, where the engine gives `score`."""
        raise NotImplementedError

    def sync(self, role: str, version: int) -> None:
        """The weights of a role changed; what is drawn from here on comes from `version`."""
