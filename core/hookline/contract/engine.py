"""An engine draws answers from a model, in this process or elsewhere."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hookline.batch.stages import Behaviour, KeptIds, Sampling
from hookline.contract.component import Component, ConfigT

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ABILITIES", "Completion", "Completions", "Engine", "Request"]

ABILITIES = {
    "combine": "an engine that draws from figures of several roles together",
    "kept-ids": "an engine that reports which tokens top-k/top-p kept",
    "penalties": "an engine that draws with penalties and a minimum length",
    "stop-strings": "an engine that ends answers at strings",
    "score": "an engine that gives log-probs of given tokens",
    "exact": "an engine whose samples do not depend on what is drawn beside them, to the last bit",
}
"""The abilities that an engine may list in `gives` and a rollout in `needs`, with the words that messages use for
them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """One sample to draw."""

    role: str
    """The role that answers, e.g. `policy`."""
    prompt: Sequence[int]
    """Token ids, at least one."""
    sample: int
    """The sample id, which with `seed` determines all randomness of the sample."""
    seed: int
    """The seed of the samples of a phase or of an evaluation."""
    sampling: Sampling
    """How tokens are drawn, and which strings end an answer."""
    max_new_tokens: int
    """The maximum number of tokens of an answer, including the ending token."""
    ends: tuple[int, ...]
    """The ids of the tokens that end an answer, at least one; the one that was drawn is included as the last token."""
    greedy: bool = False
    """Always take the likeliest token; the log-probs are still those under `sampling`."""
    beside: tuple[str, ...] = ()
    """Additional roles whose next-token predictions are passed to `combine`."""
    combine: Callable[[Mapping[str, Any]], Tensor] | None = None
    """From the `NextToken` of each role, by name, to the logits [B, V] to sample; for engines that give `combine`."""

    @property
    def eos(self) -> int:
        """The first of `ends`, which ends a text."""
        return self.ends[0]


@dataclass(frozen=True, kw_only=True, eq=False)
class Completion:
    """One answer of T tokens, T ≥ 1, and how it was drawn. Tensors are on the CPU."""

    token_ids: Tensor
    """[T] int64, including the ending token."""
    finish_reason: str
    """`stop` if the model ended the answer, `length` if it reached max_new_tokens."""
    logprobs: Tensor | None
    """[T] float32, the log-prob of each token under the request's sampling. None if the engine does not know them: the
    core then computes them with the role's current weights. If they are given, the core recomputes a few rows of each
    role's first batch in a phase and of one in 32 after it, and ends the run if they differ: mean exp|Δ| may be 1.0005, or 1.05 in
    bfloat16."""
    versions: Tensor
    """[T] int64, the version of the weights that drew each token."""
    kept_ids: KeptIds | None = None
    """Per token, the ids that top-k/top-p kept; required from engines that give `kept-ids`, if sampling truncates."""


@dataclass(frozen=True, eq=False)
class Completions:
    """The result of `ctx.draw`: a right-padded batch of answers, and how they were drawn."""

    token_ids_BT: Tensor
    """The drawn token ids, int64 [B, T], right-padded; ending tokens are included."""
    length_B: Tensor
    """The number of tokens of each answer, at least 1, int64 [B]."""
    finish_reason: tuple[str, ...]
    """Per row, `stop` or `length`."""
    behaviour: Behaviour
    """The log-probs [B, T] of the tokens, the versions of the weights, and the sampling that drew them."""


class Engine(Component[ConfigT]):
    """Draws answers from a model: kind `engine`, named by `engine:` in a phase. Each phase has one engine.

    `gives` lists its abilities: `combine`, `kept-ids`, `penalties`, `stop-strings`, `score`, `exact`. A rollout lists those
    that it requires in `needs`; a missing one is refused before any weight loads. `setup(ctx)` may keep `ctx.role_named`, which returns a
    role with its weights (`tensors()`), their `version` and their `device`.
    """

    @abstractmethod
    async def draw(self, request: Request) -> Completion:
        """Draw one sample. Many calls wait concurrently; an engine should batch the waiting requests."""
        raise NotImplementedError

    async def score(self, role: str, token_ids: Sequence[int]) -> Tensor:
        """Log-probs under a role of all tokens except the first, each given the tokens before it, in nats, float32 [len
        − 1].

        Called only for engines that give `score`.
        """
        raise NotImplementedError

    def sync(self, role: str, version: int) -> None:
        """Load a role's current weights, whose version is `version`; later draws must use them.

        Called before the first draw, and before the next draw after the weights have changed.
        """
