"""What offers of kind `model` derive from: architectures, heads and adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hookline.contract.component import Component, ConfigT

if TYPE_CHECKING:
    from torch import nn

    from hookline.contract.context import Tokenizer

__all__ = ["Adapter", "Architecture", "Head"]


class Architecture(Component[ConfigT]):
    """A model built from nothing: kind `model`, named by `model: {build: NAME}`.

    A Config field called `context` is its most positions: what needs more is then refused before the run starts.
    """

    def build(self, tokenizer: Tokenizer) -> Any:
        """A transformers causal language model with random weights; the core seeds torch before it calls.

        tokenizer: `vocabulary` is its number of tokens, `special` holds `bos_token_id`, `eos_token_id`, …
        """
        raise NotImplementedError


class Head(Component[ConfigT]):
    """Numbers read off a trunk: kind `model`, named by `model: {head: NAME}`."""

    reads: ClassVar[Literal["before", "after"]] = "before"
    """Whether the number for a token comes from the state before it (values) or after it (rewards)."""

    def build(self, hidden_size: int) -> nn.Module:
        """A module from hidden states [..., hidden_size] to [...] or [..., k]."""
        raise NotImplementedError


class Adapter(Component[ConfigT]):
    """A small trainable change of a frozen model: kind `model`, named by `model: {adapter: NAME}`."""

    def attach(self, net: Any) -> Any:
        """Wrap a transformers model; what it returns can switch itself off with `disable_adapter()`."""
        raise NotImplementedError
