"""A family: how networks of one kind turn rows into hidden states, and how one decodes from them.

Roles, statistics, heads and engines ask a family, and know nothing of attention masks, shifted positions or caches.
Letters in shapes: B rows, N scored tokens (those where `mask_BT` is true, row by row), H the width of a hidden state,
V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from hookline.batch.stages import Batch
from hookline.contract.component import Component, ConfigT
from hookline.errors import PluginError

__all__ = ["SIDES", "Decoding", "Family", "Side"]

Side = Literal["before", "after", "row"]
"""Which hidden state a head reads: the one before a token, the one after it, or one per row."""


class Decoding:
    """The state of decoding: one unfinished text per row. A family has its own class, with what it needs to continue."""

    logits_BV: Tensor
    """The network's logits of the next token of each row, float32 [B, V]."""
    hidden_BH: Tensor | None = None
    """The state that predicts the next token, [B, H], which heads read; None where the family shows none."""
    movable: bool = True
    """False where `rows` cannot be answered; finished rows then stay in the batch."""

    def rows(self, index_N: Tensor) -> Self:
        """The same texts, chosen by row number, int64 [N]: repeated for a group, dropped or reordered. This object stays as it is."""
        raise NotImplementedError


class Family(Component[ConfigT]):
    """How networks of one kind compute: kind `model`, named by `model: {family: NAME}`; `causal` unless said otherwise.

    It keeps no state: every method takes the network, below any adapter. Autocast, adapters switched off and
    recomputation are the caller's task.
    """

    sides: ClassVar[frozenset[str]] = frozenset()
    """What it has: `before` (for each scored token, a state that does not know it and predicts it), `after` (one that
    knows it), `row` (one state per row), `decodes` (it answers `prefill` and `step`). Components `need` these by name."""

    # -- networks

    def empty(self, folder: str | Path) -> Any:
        """A network as the config in a folder describes it, its weights not read."""
        raise NotImplementedError

    def load(self, folder: str | Path) -> Any:
        """The network in a model folder. Raises ExperimentError where weights are missing or damaged."""
        raise NotImplementedError

    def save_config(self, net: Any, folder: Path) -> None:
        """Write what `empty` reads."""
        raise NotImplementedError

    def export(self, net: Any, folder: Path) -> None:
        """Write the network as other programs load it."""
        raise NotImplementedError

    def context(self, net: Any) -> int:
        """Most tokens of a row, prompt and response together."""
        raise NotImplementedError

    def width(self, net: Any) -> int:
        """H, what heads are built for."""
        raise NotImplementedError

    def vocabulary(self, net: Any) -> int:
        """How many token ids the network takes."""
        raise NotImplementedError

    def output(self, net: Any) -> tuple[Tensor, Tensor | None] | None:
        """Weight [V, H] and bias [V] of the output layer; None for a network without one, which has no log-probs."""
        return None

    def is_product(self, net: Any) -> bool:
        """False where it is known that the logits are more than output layer × `before` state, e.g. capped ones.

        Where it is True, that is tried once on a few tokens before it is relied on.
        """
        return True

    # -- rows

    def states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """Hidden states of the sides asked for, from one pass: `before` and `after` [N, H], `row` [B, H].

        sides: some of `before`, `after`, `row`, all of which this family has.
        """
        raise NotImplementedError

    def logits(self, net: Any, batch: Batch) -> Tensor:
        """The network's own logits of the scored tokens, [N, V]; families that have `before` answer."""
        raise NotImplementedError

    # -- decoding, for families that have `decodes`

    def prefill(self, net: Any, prompts: Sequence[Sequence[int]], *, filler: int, fused: bool) -> Decoding:
        """Read prompts of at least one token each; the answer knows the logits of each one's next token.

        filler: a token id to pad with, which changes no figure. fused: take logits as output layer × hidden state, so
        that heads can read the state; else the network's own logits.
        """
        raise NotImplementedError

    def step(self, net: Any, state: Decoding, ids_B: Tensor) -> Tensor:
        """Continue by one token per row, ids int64 [B], in place; returns `state.logits_BV` of the next one, [B, V]."""
        raise NotImplementedError

    def require(self, sides: Collection[str], who: str) -> None:
        """Raise PluginError in one sentence where this family lacks a side that `who` asks for."""
        missing = sorted(set(sides) - self.sides)
        if missing:
            has = ", ".join(sorted(self.sides)) or "nothing of the kind"
            raise PluginError(
                f"{who} needs {SIDES[missing[0]]} ('{missing[0]}'), which models of family '{self.instance}' do not have",
                f"the family has: {has}; choose another component, or another model",
            )


SIDES = {
    "before": "a state that predicts each token",
    "after": "a state after each token",
    "row": "a state of the whole row",
    "decodes": "a model that decodes",
}
"""What each side is, for sentences."""
