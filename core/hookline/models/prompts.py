"""Prompts that several rows begin with, read once for all of them.

Rows of a group have the same prompt. Where a network attends to all earlier tokens, what it computes for a prompt does not
depend on the response, so the prompt's keys and values serve every row that begins with it, in training too: their gradients
add up over the rows. Padding between short and long prompts is not computed either.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from hookline.batch.stages import Batch
from hookline.models.reading import trunk
from hookline.models.slots import Slots

__all__ = ["Prompts"]

States = Callable[[Batch], Tensor]

GAIN = 0.95
"""The share of the plain cost below which prompts are read once."""


class Prompts:
    """The different prompts of a batch, and which row begins with which.

    Letters: U different prompts, P tokens of the longest; T response tokens whose states are needed.
    """

    def __init__(self, batch: Batch, sides: Collection[str]) -> None:
        rows = zip(batch.prompt_ids_BP.tolist(), batch.prompt_length_B.tolist())
        places: dict[tuple[int, ...], int] = {}
        of_row = [places.setdefault(tuple(ids[:length]), len(places)) for ids, length in rows]
        self.count, self.longest = len(places), max(map(len, places), default=0)
        device = batch.prompt_ids_BP.device
        self.of_B = torch.tensor(of_row, dtype=torch.long, device=device)
        self.first_U = torch.tensor([of_row.index(place) for place in range(self.count)], dtype=torch.long, device=device)
        """The first row of each prompt."""
        self.needed = max(0, int(batch.length_B.max()) - int(set(sides) == {"before"})) if len(batch) else 0
        """Response tokens to read: the state before a token is that of its left neighbour."""

    def cost(self, width: int) -> float:
        """What reading takes, in products of one query with one key; a token's products with a layer's weights take 6 widths."""
        B, P, T = len(self.of_B), self.longest, self.needed
        return self.count * P * (6 * width + P / 2) + B * T * (6 * width + P + T)

    def pays(self, net: Any, tokens: int, keys: float, states: States) -> bool:
        """Whether to read the prompts once rather than `tokens` tokens that attend to `keys` keys each, and the network can.

        states: computes the states `after` of a batch in the plain way; a network is tried against it once.
        """
        if self.count == len(self.of_B):
            return False
        width = getattr(_config(net), "hidden_size", 0)
        if self.cost(width) >= GAIN * tokens * (6 * width + keys):
            return False
        recomputed = any(getattr(module, "gradient_checkpointing", False) for module in net.modules())
        return not recomputed and _able(net, states)  # recomputation keeps no keys that rows could share

    def states(self, net: Any, batch: Batch, sides: Collection[str]) -> Mapping[str, Tensor]:
        """As `Family.states`, for the sides `before` and `after`."""
        from transformers.cache_utils import Cache

        length_U = batch.prompt_length_B[self.first_U]
        ids_UP = batch.prompt_ids_BP[self.first_U, : self.longest]  # padded with 0, which no token reads
        device, of_B = ids_UP.device, self.of_B
        at_P, at_T = torch.arange(self.longest, device=device), torch.arange(self.needed, device=device)
        layer = _layer_type()
        cache = Cache(layers=[layer(of_B) for _ in range(_config(net).num_hidden_layers)])
        read_UPH = trunk(
            net, input_ids=ids_UP, position_ids=at_P.expand_as(ids_UP), use_cache=True, past_key_values=cache
        ).last_hidden_state
        hidden_BLH = read_UPH[torch.arange(self.count, device=device), length_U - 1][of_B][:, None]
        if self.needed:
            length_B = length_U[of_B]
            ids_BT = batch.token_ids_BT[:, : self.needed]
            prompt_BP = at_P < length_B[:, None]
            earlier_TT = at_T <= at_T[:, None]
            B, T = ids_BT.shape
            mask_BTS = torch.cat([prompt_BP[:, None].expand(B, T, -1), earlier_TT.expand(B, T, T)], 2)
            response_BTH = trunk(
                net, input_ids=ids_BT, position_ids=length_B[:, None] + at_T, attention_mask=mask_BTS[:, None], use_cache=True,
                past_key_values=cache,
            ).last_hidden_state  # fmt: skip
            hidden_BLH = torch.cat([hidden_BLH, response_BTH], 1)
        rows_N, at_N = batch.mask_BT.nonzero(as_tuple=True)
        return {side: hidden_BLH[rows_N, at_N + int(side == "after")] for side in sides}


def _layer_type() -> Any:
    """The layer of a cache that a prompt is read into; made on demand, because transformers is slow to import."""
    global _LAYER
    if _LAYER is None:
        from transformers.cache_utils import DynamicLayer

        class Layer(DynamicLayer):  # type: ignore[misc]
            """Keys and values of the prompts, [U, heads, P, D]; then also of the responses, [B, heads, P + T, D]."""

            def __init__(self, of_B: Tensor) -> None:
                super().__init__()
                self.of_B = of_B

            def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
                if not self.is_initialized:
                    self.lazy_initialization(keys, values)
                    self.keys, self.values = keys, values
                else:
                    self.keys = torch.cat([self.keys[self.of_B], keys], 2)
                    self.values = torch.cat([self.values[self.of_B], values], 2)
                return self.keys, self.values

        _LAYER = Layer
    return _LAYER


_LAYER: Any = None


def _config(net: Any) -> Any:
    return net.config.get_text_config(decoder=True)


TRIED = 9
"""Tokens of the rows on which a network is tried."""
_ABLE: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""For networks that were tried: whether prompts can be read once."""


def _able(net: Any, states: States) -> bool:
    """Whether a network computes the same states when prompts are read once, tried on a few tokens."""
    if net not in _ABLE:
        room = int(getattr(_config(net), "max_position_embeddings", 0) or 1 << 30)
        _ABLE[net] = room >= TRIED and Slots.fits(net) and _agrees(net, states)
    return _ABLE[net]


@torch.no_grad()
def _agrees(net: Any, states: States) -> bool:
    vocabulary = _config(net).vocab_size
    row = [(vocabulary // 2 + at) % vocabulary for at in range(TRIED)]  # the first ids are often padding, which some networks count
    rows = [(row[:5], row[5:]), (row[:5], row[1:3]), (row[1:3], row[6:]), (row[1:3], row[4:8])]
    batch = Batch.of_ids(*zip(*rows)).to(next(net.parameters()).device)
    expected_NH = states(batch).float()
    try:
        found_NH = Prompts(batch, {"after"}).states(net, batch, {"after"})["after"].float()
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False
    exact = all(p.dtype == torch.float32 for p in net.parameters()) and not torch.is_autocast_enabled(expected_NH.device.type)
    return bool((found_NH - expected_NH).abs().max() <= (1e-4 if exact else 5e-2) * expected_NH.abs().max())
