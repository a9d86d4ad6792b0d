"""A family describes how networks of one kind turn rows into hidden states, and how to decode from them.

Roles, statistics, heads and engines use a family, so they do not handle attention masks, shifted positions or caches.
Letters in shapes: B rows, N scored tokens (those where `mask_BT` is true, row by row), H the width of a hidden state,
V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from hookline.batch.stages import Batch
from hookline.contract.component import Component, ConfigT
from hookline.errors import PluginError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["SIDES", "Decoding", "Family", "Side"]

Side = Literal["before", "after", "row"]
"""Which hidden state a head reads: the one before a token, the one after it, or one per row."""


class Decoding:
    """The state of decoding: one unfinished text per row. Each family has its own class with the data that it needs."""

    logits_BV: Tensor
    """The network's logits of the next token of each row, float32 [B, V]."""
    hidden_BH: Tensor | None = None
    """The hidden state that predicts the next token, [B, H], which heads read; None if there is none."""
    movable: bool = True
    """False if `rows` is not supported; finished rows then stay in the batch."""

    replaceable: bool = False
    """True if `replace` is supported: places of finished rows are then given to prompts that wait."""

    def rows(self, index_N: Tensor) -> Self:
        """A new state with these rows, int64 [N]: repeated for a group, dropped or reordered. `self` is unchanged."""
        raise NotImplementedError

    def replace(self, index_N: Tensor, other: Self) -> None:
        """Give the places `index_N`, int64 [N], to the N rows of another state of the same network, in place."""
        raise NotImplementedError

    def reserve(self, positions: int) -> None:
        """From now on compute as if every text had this many tokens; for states that are `replaceable`."""
        raise NotImplementedError


class Family(Component[ConfigT]):
    """How networks of one kind compute: kind `model`, named by `model: {family: NAME}`; the default is `causal`.

    A family keeps no state: every method takes the network, without any adapter around it. The caller handles autocast,
    switches adapters off, and handles recomputation.
    """

    sides: ClassVar[frozenset[str]] = frozenset()
    """What the family provides: `before` (for each scored token, the state that predicts it without having read it),
    `after` (the state that has read it), `row` (one state per row), `decodes` (it has `prefill` and `step`), `packs` (it
    has `packed_states`), `scores` (it has `load_scores` and `export_scores`). Components list the sides that they require
    in `needs`."""

    # -- networks

    def empty(self, folder: str | Path) -> Any:
        """Make the network that the config in a folder describes, without reading weights."""
        raise NotImplementedError

    def load(self, folder: str | Path) -> Any:
        """Load the network of a model folder. Raises ExperimentError if weights are missing or damaged."""
        raise NotImplementedError

    def save_config(self, net: Any, folder: Path) -> None:
        """Write the config that `empty` reads."""
        raise NotImplementedError

    def export(self, net: Any, folder: Path) -> None:
        """Write the network in the format that other programs load."""
        raise NotImplementedError

    def load_scores(self, folder: str | Path) -> tuple[Any, nn.Linear]:
        """Load the network of a reward model's folder, and its score layer, which reads the state `after` the last token.

        Returns the network without an output layer, and the layer [k, H] of its k scores; for `scores`. `empty` must make the
        same network from the config that `save_config` writes. Raises ExperimentError for a folder whose scores are computed
        in another way; one short text is scored by the folder's own class and compared.
        """
        raise NotImplementedError

    def export_scores(
        self,
        net: Any,
        weight: Tensor,
        pad: int | None,
        folder: Path,
        names: Sequence[str] = (),
        bias: Sequence[float] = (),
    ) -> None:
        """Write the network with linear scores of the last token in the format that other programs load; for `scores`.

        weight: the score layer, [k, H]. pad: the id of a token that only pads, if there is one. names: of the k scores, if
        they are several. bias: of each score, or none; `load_scores` reads it again where the format has no place for it.
        """
        raise NotImplementedError

    def context(self, net: Any) -> int:
        """The maximum number of tokens of a row, prompt and response together."""
        raise NotImplementedError

    def width(self, net: Any) -> int:
        """H, the width of a hidden state, which is the input size of heads."""
        raise NotImplementedError

    def vocabulary(self, net: Any) -> int:
        """The number of token ids that the network accepts."""
        raise NotImplementedError

    def output(self, net: Any) -> tuple[Tensor, Tensor | None] | None:
        """Weight [V, H] and bias [V] of the output layer; None for a network without one, which has no log-probs."""
        return None

    def is_product(self, net: Any) -> bool:
        """False if the logits are known to differ from output layer × `before` state, e.g. because they are capped.

        If this returns True, the core verifies it once on a few tokens before relying on it.
        """
        return True

    # -- rows

    def states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """Hidden states of the requested sides, from one forward pass: `before` and `after` [N, H], `row` [B, H].

        sides: some of `before`, `after`, `row`; this family provides all of them.
        """
        raise NotImplementedError

    def packed_states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """`states`, [N, H] and [B, H], computed on rows laid end to end, of which each reads itself only; for `packs`.

        The core compares the two before it relies on this method, and uses `states` where a network's results differ.
        """
        raise NotImplementedError

    def logits(self, net: Any, batch: Batch) -> Tensor:
        """The network's own logits of the scored tokens, [N, V]; only for families that have `before`."""
        raise NotImplementedError

    # -- decoding, for families that have `decodes`

    def prefill(self, net: Any, prompts: Sequence[Sequence[int]], *, filler: int, fused: bool) -> Decoding:
        """Read prompts of at least one token each; the returned state has the logits of each prompt's next token.

        filler: a token id for padding, which must not change any result. fused: compute logits as output layer × hidden
        state, so that heads can read the state; otherwise return the network's own logits.
        """
        raise NotImplementedError

    def step(self, net: Any, state: Decoding, ids_B: Tensor) -> Tensor:
        """Append one token per row, ids int64 [B], to `state` in place; returns its new `logits_BV`, [B, V]."""
        raise NotImplementedError

    def require(self, sides: Collection[str], who: str) -> None:
        """Raise PluginError if this family does not provide a side that `who` requires."""
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
    "packs": "rows laid end to end",
    "scores": "folders with a score of each row",
}
"""The words that messages use for each side."""
