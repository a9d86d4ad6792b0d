"""What every way to read a causal network token by token has in common."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hookline.contract.family import Decoding

__all__ = ["CausalDecoding", "Head", "trunk"]

Head = tuple[Tensor, Tensor | None] | None
"""Weight [V, H] and bias [V] of an output layer whose product with the hidden state is the logits; None: the network's own
logits are read."""


def trunk(net: Any, **inputs: Any) -> Any:
    """A transformers network without its output layer; `.last_hidden_state` is [B, L, H]."""
    found = getattr(net, net.base_model_prefix, None)
    if found is None:  # the prefix of some text models names a part of a larger model
        words = net.get_input_embeddings()
        found = next(part for part in net.children() if any(module is words for module in part.modules()))
    return found(**inputs)


class CausalDecoding(Decoding):
    """Unfinished texts of a causal network."""

    def __init__(self, net: Any, prompts: Sequence[Sequence[int]], filler: int, head: Head) -> None:
        """Read the prompts. filler: an id for padding."""
        self.head = head
        device = next(net.parameters()).device
        self.width = max(len(prompt) for prompt in prompts)
        self.length_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
        """The tokens of each row that the state has read."""
        rows = [self.laid(list(prompt), [filler] * (self.width - len(prompt))) for prompt in prompts]
        self.begin(net, torch.tensor(rows, dtype=torch.long, device=device))

    def laid(self, prompt: list[int], padding: list[int]) -> list[int]:
        """A prompt as a row as long as the longest."""
        return prompt + padding

    def begin(self, net: Any, ids_BP: Tensor) -> None:
        """Read the prompts, [B, P]."""
        raise NotImplementedError

    def append(self, net: Any, ids_B: Tensor) -> None:
        """Read one more token of each row."""
        raise NotImplementedError

    def rows(self, index_N: Tensor) -> Self:
        made = copy.copy(self)
        made.length_B, made.logits_BV = self.length_B[index_N], self.logits_BV[index_N]
        made.hidden_BH = None if self.hidden_BH is None else self.hidden_BH[index_N]
        return made

    def replace(self, index_N: Tensor, other: Self) -> None:
        self.length_B[index_N], self.logits_BV[index_N] = other.length_B, other.logits_BV
        if self.hidden_BH is not None and other.hidden_BH is not None:
            self.hidden_BH[index_N] = other.hidden_BH

    def read(self, net: Any, last: Callable[[Tensor], Tensor], **inputs: Any) -> Any:
        """Run the network and keep what it says of each row's next token. last: from [B, L, …], what belongs to it."""
        if self.head is None:
            out = net(**inputs)
            self.logits_BV = last(out.logits).float()
            return out
        out = trunk(net, **inputs)
        self.hidden_BH = hidden_BH = last(out.last_hidden_state)
        weight, bias = self.head
        self.logits_BV = torch.nn.functional.linear(hidden_BH.to(weight.dtype), weight, bias).float()
        return out
