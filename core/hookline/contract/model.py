"""The base classes of kind `model`: architectures, heads and adapters; families are in `contract.family`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hookline.contract.component import Component, ConfigT
from hookline.contract.family import Side

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Adapter", "Architecture", "Head", "Vocabulary"]


class Vocabulary(Protocol):
    """The properties of a tokenizer that are needed to build a network."""

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""

    @property
    def special(self) -> Mapping[str, int]:
        """`bos_token_id`, `eos_token_id` and `pad_token_id`, as transformers' configs name them."""


class Architecture(Component[ConfigT]):
    """Builds a model with random weights: kind `model`, named by `model: {build: NAME}`.

    A Config field called `context` is the maximum number of positions; a phase that needs more is refused before the
    run starts.
    """

    @abstractmethod
    def build(self, tokenizer: Vocabulary) -> Any:
        """Return a network with random weights, on the CPU; the core seeds torch before the call.

        The network must be of the family that the experiment names; the default is a transformers causal language
        model. tokenizer: the run's `hookline.Tokenizer`, or a substitute with only a vocabulary size when only shapes
        are needed.
        """
        raise NotImplementedError


class Head(Component[ConfigT]):
    """Computes numbers from the hidden states of a trunk: kind `model`, named by `model: {head: NAME}`."""

    reads: ClassVar[Side] = "before"
    """Which state gives the number for a token: the state before the token (`before`, e.g. values) or after it
    (`after`, e.g. rewards); `row` gives one number per row, on its last chosen token. The family must have it."""

    @abstractmethod
    def build(self, hidden_size: int) -> nn.Module:
        """Return a module that maps hidden states [..., hidden_size] to [...] or [..., k]."""
        raise NotImplementedError


class Adapter(Component[ConfigT]):
    """Adds a small trainable part to a frozen model: kind `model`, named by `model: {adapter: NAME}`."""

    @abstractmethod
    def attach(self, net: Any) -> Any:
        """Wrap a transformers model; `disable_adapter()` of the returned model must switch the adapter off."""
        raise NotImplementedError

    @property
    def folder(self) -> str | None:
        """The folder whose weights `attach` gives the adapter; the run goes on only with the same files. None: fresh weights, with
        which the network computes what it computed before, so that a phase's reference is the same network with the adapter off."""
        return None
