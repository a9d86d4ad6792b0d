"""Decoding with a place for each row in one cache, which has room to grow."""

from __future__ import annotations

import copy
from typing import Any, Self

import torch
from torch import Tensor

from hookline.models.reading import CausalDecoding

__all__ = ["Slots"]

ROOM = 32
"""A cache grows in units of this many columns."""


class Slots(CausalDecoding):
    """Row b's tokens are in columns 0, 1, … of place b; a mask hides the columns after them.

    Nothing is copied when a token is added; a row's result does not depend on how long other prompts are; and the place
    of a finished row can be given to another prompt.
    """

    replaceable = True
    reserved = 0
    """Columns that are always shown; 0: those that the longest row needs."""

    @staticmethod
    def fits(net: Any) -> bool:
        """Whether every layer attends to all earlier tokens, by a mask that the network takes from its caller."""
        from transformers import DynamicCache
        from transformers.cache_utils import DynamicLayer

        config = net.config.get_text_config(decoder=True)
        if getattr(config, "_attn_implementation", None) != "sdpa":
            return False
        layers = DynamicCache(config=config).layers
        return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)

    def begin(self, net: Any, ids_BP: Tensor) -> None:
        from transformers.cache_utils import Cache

        config = net.config.get_text_config(decoder=True)
        self.at = _Places(self.length_B)
        layer = _layer_type()
        self.cache = Cache(layers=[layer(self.at) for _ in range(config.num_hidden_layers)])
        row_B, last_B = torch.arange(len(ids_BP), device=ids_BP.device), self.length_B - 1
        position_BP = torch.arange(self.width, device=ids_BP.device).expand_as(ids_BP)
        self.read(  # a token reads only what is before it, so padding after a prompt needs no mask
            net, lambda out: out[row_B, last_B], input_ids=ids_BP, position_ids=position_BP, use_cache=True,
            past_key_values=self.cache,
        )  # fmt: skip
        self.longest = self.width
        self.at.begun = True
        self.mask_BS = self._mask(self.length_B)
        self.last = int(getattr(config, "max_position_embeddings", 0) or 1 << 30) - 1

    def widest(self) -> int:
        """The columns that the longest row needs: fewer than there were if that row has left."""
        return int(self.length_B.clamp(max=self.last + 1).max())

    def _mask(self, length_B: Tensor) -> Tensor:
        """What is added to attention scores: 0 in the columns of a row's tokens, the least number in all others."""
        keys = self.cache.layers[0].keys
        free_BS = torch.arange(keys.shape[2], device=keys.device) >= length_B[:, None]
        return torch.zeros(free_BS.shape, dtype=keys.dtype, device=keys.device).masked_fill_(
            free_BS, torch.finfo(keys.dtype).min
        )

    def append(self, net: Any, ids_B: Tensor) -> None:
        at = self.at
        self.longest += 1
        at.columns = self.reserved or -(-self.longest // ROOM) * ROOM
        if at.columns > self.mask_BS.shape[1]:
            for layer in self.cache.layers:
                layer.grow(max(at.columns, self.mask_BS.shape[1] * 3 // 2))
            self.mask_BS = self._mask(self.length_B)
        at.position_B = self.length_B.clamp(max=self.last)  # rows that ended earlier may go on until they are replaced
        self.mask_BS[at.row_B, at.position_B] = 0
        self.read(
            net, lambda out: out[:, -1], input_ids=ids_B[:, None], position_ids=at.position_B[:, None], use_cache=True,
            past_key_values=self.cache, attention_mask=self.mask_BS[:, None, None, : at.columns],
        )  # fmt: skip
        self.length_B = self.length_B + 1

    def reserve(self, positions: int) -> None:
        self.reserved, self.last = -(-positions // ROOM) * ROOM, min(self.last, positions - 1)
        for layer in self.cache.layers:
            layer.grow(self.reserved)
        self.mask_BS = self._mask(self.length_B)

    def rows(self, index_N: Tensor) -> Self:
        made = super().rows(index_N)
        made.at = _Places(made.length_B)
        made.at.begun = True
        made.cache = copy.copy(self.cache)
        made.cache.layers = [layer.rows(made.at, index_N) for layer in self.cache.layers]
        made.mask_BS = self.mask_BS[index_N]
        made.longest = made.widest()
        return made

    def replace(self, index_N: Tensor, other: Self) -> None:
        super().replace(index_N, other)
        self.longest = self.widest()
        room = other.mask_BS.shape[1]
        for mine, theirs in zip(self.cache.layers, other.cache.layers):
            if mine.keys.shape[2] < room:
                mine.grow(room)
            mine.keys[index_N, :, :room], mine.values[index_N, :, :room] = theirs.keys, theirs.values
        self.mask_BS = self._mask(self.length_B)


class _Places:
    """Where the layers of a cache write next, and how many columns they show."""

    def __init__(self, length_B: Tensor) -> None:
        self.row_B = torch.arange(len(length_B), device=length_B.device)
        self.position_B = length_B
        self.columns = 0
        self.begun = False


def _layer_type() -> Any:
    """The layer of a cache with places; made on demand, because transformers is slow to import."""
    global _LAYER
    if _LAYER is None:
        from transformers.cache_utils import DynamicLayer

        class Layer(DynamicLayer):  # type: ignore[misc]
            """Keys and values [B, heads, columns, D], with room."""

            def __init__(self, at: _Places) -> None:
                super().__init__()
                self.at = at

            def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
                if not self.at.begun:
                    self.lazy_initialization(keys, values)
                    self.keys, self.values = _roomy(keys), _roomy(values)
                    return keys, values
                at = self.at
                self.keys[at.row_B, :, at.position_B] = keys[:, :, 0]
                self.values[at.row_B, :, at.position_B] = values[:, :, 0]
                return self.keys[:, :, : at.columns], self.values[:, :, : at.columns]

            def grow(self, columns: int) -> None:
                self.keys, self.values = _roomy(self.keys, columns), _roomy(self.values, columns)

            def rows(self, at: _Places, index_N: Tensor) -> Layer:
                made = copy.copy(self)
                made.at, made.keys, made.values = at, self.keys[index_N], self.values[index_N]
                return made

        _LAYER = Layer
    return _LAYER


_LAYER: Any = None


def _roomy(states: Tensor, columns: int = 0) -> Tensor:
    """The same states with free columns, which are 0: what is masked must be finite."""
    B, heads, L, D = states.shape
    made = states.new_empty(B, heads, max(columns, -(-(L + 1) // ROOM) * ROOM), D)
    made[:, :, :L], made[:, :, L:] = states, 0
    return made
