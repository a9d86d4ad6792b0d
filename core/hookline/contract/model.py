"""What offers of kind `model` derive from: architectures, heads and adapters; families are `contract.family`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from torch import nn

from hookline.contract.component import Component, ConfigT
from hookline.contract.family import Side

__all__ = ["Adapter", "Architecture", "Head", "Vocabulary"]


class Vocabulary(Protocol):
    """What a network must know of a tokenizer to be built."""

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""

    @property
    def special(self) -> Mapping[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as transformers' configs name them."""


class Architecture(Component[ConfigT]):
    """A model built from nothing: kind `model`, named by `model: {build: NAME}`.

    A Config field called `context` is its most positions: what needs more is then refused before the run starts.
    """

    @abstractmethod
    def build(self, tokenizer: Vocabulary) -> Any:
        """A network with random weights, on the CPU; the core seeds torch before it calls.

        It is of the family that the experiment names: a transformers causal language model unless said otherwise.
        tokenizer: the run's `hookline.Tokenizer`, or a stand-in with a size alone when only shapes are looked at.
        """
        raise NotImplementedError


class Head(Component[ConfigT]):
    """Numbers read off a trunk: kind `model`, named by `model: {head: NAME}`."""

    reads: ClassVar[Side] = "before"
    """Where the number for a token comes from: the state before it (values) or after it (rewards); `row`: one number
    per row, on its last chosen token. The model's family must have that side."""

    @abstractmethod
    def build(self, hidden_size: int) -> nn.Module:
        """A module from hidden states [..., hidden_size] to [...] or [..., k]."""
        raise NotImplementedError


class Adapter(Component[ConfigT]):
    """A small trainable change of a frozen model: kind `model`, named by `model: {adapter: NAME}`."""

    @abstractmethod
    def attach(self, net: Any) -> Any:
        """Wrap a transformers model; what it returns can switch itself off with `disable_adapter()`."""
        raise NotImplementedError
