"""An engine: what draws answers from a model, in this process or elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hookline.batch.stages import Behaviour, KeptIds, Sampling
from hookline.contract.component import Component, ConfigT

__all__ = ["ABILITIES", "Completion", "Completions", "Engine", "Request"]

ABILITIES = {
    "combine": "an engine that draws from figures of several roles together",
    "kept-ids": "an engine that reports which tokens top-k/top-p kept",
    "score": "an engine that gives log-probs of given tokens",
    "exact": "an engine whose samples do not depend on what is drawn beside them, to the last bit",
}
"""What an engine may `give` and a rollout `need`, as sentences name it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One sample to draw."""

    role: str
    """The role that answers, e.g. `policy`."""
    prompt: Sequence[int]
    """Token ids, at least one."""
    sample: int
    """Its sample id; with `seed`, all of its randomness."""
    seed: int
    """The seed of what a phase, or an evaluation, draws."""
    sampling: Sampling
    """Temperature, top-k and top-p."""
    max_new_tokens: int
    """The most tokens that an answer may have, the ending one included."""
    eos: int
    """The token that ends an answer, and is its last."""
    greedy: bool = False
    """Take the likeliest token each time; its log-probs are those of sampling all the same."""
    beside: tuple[str, ...] = ()
    """Further roles whose next-token figures `combine` is given."""
    combine: Callable[[Mapping[str, Any]], Tensor] | None = None
    """From `NextToken` of the roles, by name, to the logits [B, V] that are drawn from; for engines that give `combine`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion:
    """One answer of T tokens, T ≥ 1, and how it was drawn. Tensors lie on the CPU."""

    token_ids: Tensor
    """[T] int64; the ending token included."""
    finish_reason: str
    """`stop`: the model ended it; `length`: max_new_tokens did."""
    logprobs: Tensor | None
    """[T] float32, of each token under the request's sampling. None where the engine does not know them: the core then
    computes them with the role's weights as they are. Where they are given, a few rows of each role's first batch in a
    phase are computed again, and another answer ends the run: mean exp|Δ| may be 1.0005, or 1.05 in bfloat16."""
    versions: Tensor
    """[T] int64: which weights drew each token."""
    kept_ids: KeptIds | None = None
    """Per token, the ids that top-k/top-p kept; engines that give `kept-ids` fill it in where sampling truncates."""


@dataclass(frozen=True, eq=False)
class Completions:
    """Answers side by side, right-padded, and how they were drawn: what `ctx.draw` gives."""

    token_ids_BT: Tensor
    """The drawn token ids, int64 [B, T], right-padded; an ending token is included."""
    length_B: Tensor
    """Tokens of each answer, at least 1, int64 [B]."""
    finish_reason: tuple[str, ...]
    """Per row, `stop` or `length`."""
    behaviour: Behaviour
    """The log-probs [B, T] of the tokens, the versions of the weights, and the sampling that drew them."""


class Engine(Component[ConfigT]):
    """Draws answers from a model: kind `engine`, named by `engine:` in a phase, which has one.

    `gives` says what it can: `combine`, `kept-ids`, `score`, `exact`; a rollout `needs` these by name, and what is missing
    is refused before a weight loads. `setup(ctx)` may keep `ctx.role_named`, which gives a role's weights (`tensors()`),
    their `version` and their `device`.
    """

    @abstractmethod
    async def draw(self, request: Request) -> Completion:
        """Draw one sample. Many wait at once: an engine batches what waits."""
        raise NotImplementedError

    async def score(self, role: str, token_ids: Sequence[int]) -> Tensor:
        """Log-probs under a role of all tokens but the first, each given those before it, in nats, float32 [len − 1].

        Only asked of an engine that gives `score`.
        """
        raise NotImplementedError

    def sync(self, role: str, version: int) -> None:
        """A role's weights are another `version` than at the last call; what is drawn from here on comes from them.

        Called before the first draw, and before each one that follows a change.
        """
