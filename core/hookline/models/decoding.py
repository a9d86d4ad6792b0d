"""How causal networks of transformers are read token by token: the fastest way that gives what they give for whole texts.

`Slots`: each row has a place in one cache with room to grow. `Padded`: prompts are padded on the left, and the network keeps
its own cache, as for windows and for states that skip padding. `Alone`: the same for each row by itself. `Whole`: every text
is read again from its beginning.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from hookline.models.reading import CausalDecoding, Head
from hookline.models.slots import Slots

__all__ = ["Alone", "Padded", "Whole", "fastest"]


class Padded(CausalDecoding):
    """Prompts padded on the left, and what the network itself keeps of the tokens read so far."""

    memory: Any = None

    def laid(self, prompt: list[int], padding: list[int]) -> list[int]:
        return padding + prompt

    def begin(self, net: Any, ids_BP: Tensor) -> None:
        accepts = inspect.signature(net.forward).parameters
        self.named = next(name for name in MEMORIES if name in accepts)
        self.masked, self.placed = "attention_mask" in accepts, "position_ids" in accepts
        self.pad_B = self.width - self.length_B
        self.seen = 0
        """Columns read so far, padding included."""
        self._read(net, ids_BP)

    def append(self, net: Any, ids_B: Tensor) -> None:
        self.length_B = self.length_B + 1
        self._read(net, ids_B[:, None])

    def _read(self, net: Any, ids_BL: Tensor) -> None:
        self.seen += ids_BL.shape[1]
        position_BS = torch.arange(self.seen, device=ids_BL.device) - self.pad_B[:, None]
        given: dict[str, Any] = {"input_ids": ids_BL, "use_cache": True, self.named: self.memory}
        if self.masked and (self.named == "past_key_values" or self.memory is None):  # states of recurrence end with the last token
            given["attention_mask"] = (position_BS >= 0).long()
        if self.placed or self.named == "past_key_values":
            given["position_ids"] = position_BS.clamp(min=0)[:, -ids_BL.shape[1] :]
        if self.head is None:
            given["logits_to_keep"] = 1
        self.memory = getattr(self.read(net, lambda out: out[:, -1], **given), self.named)

    @property
    def movable(self) -> bool:  # type: ignore[override]
        parts = (self.memory, *getattr(self.memory, "layers", ()))
        return isinstance(self.memory, list) or all(hasattr(part, "reorder_cache") for part in parts)

    def rows(self, index_N: Tensor) -> Self:
        made = super().rows(index_N)
        made.memory, made.pad_B = _rows_of(self.memory, index_N), self.pad_B[index_N]
        return made


MEMORIES = ("past_key_values", "cache_params", "state")
"""What transformers' networks call what they keep of the tokens they have read."""


def _rows_of(memory: Any, index_N: Tensor) -> Any:
    """Rows of what a network keeps, as a new object; the old one is unchanged."""
    if isinstance(memory, list):
        return [part[index_N] for part in memory]
    made = copy.copy(memory)
    made.layers = [copy.copy(layer) for layer in getattr(memory, "layers", ())]
    for part in (made, *made.layers):  # selecting replaces tensors, also those inside lists and dicts
        for name, value in vars(part).items():
            if isinstance(value, list | dict):
                setattr(part, name, copy.copy(value))
    if "batch_select_indices" in vars(type(made)):  # a network's own cache, with more than its layers
        made.batch_select_indices(index_N)
    else:  # of its layers, those with two kinds of state select both only here
        made.reorder_cache(index_N)
    return made


class Alone(CausalDecoding):
    """One state for each row, for networks that keep a state of all they read, padding included, or go on from one row only."""

    def begin(self, net: Any, ids_BP: Tensor) -> None:
        rows = zip(ids_BP.tolist(), self.length_B.tolist())
        self.parts = [Padded(net, [ids[:length]], 0, self.head) for ids, length in rows]
        self._join()

    def append(self, net: Any, ids_B: Tensor) -> None:
        self.length_B = self.length_B + 1
        for part, id_1 in zip(self.parts, ids_B[:, None]):
            part.append(net, id_1)
        self._join()

    def _join(self) -> None:
        self.logits_BV = torch.cat([part.logits_BV for part in self.parts])
        states = [part.hidden_BH for part in self.parts if part.hidden_BH is not None]
        self.hidden_BH = torch.cat(states) if states else None

    @property
    def movable(self) -> bool:  # type: ignore[override]
        return all(part.movable for part in self.parts)

    def rows(self, index_N: Tensor) -> Self:
        made = super().rows(index_N)
        made.parts = [self.parts[row].rows(index_N.new_zeros(1)) for row in index_N.tolist()]
        return made


class Whole(CausalDecoding):
    """All tokens so far; each step reads every row from its beginning, padded on the right, as `Family.states` does."""

    def begin(self, net: Any, ids_BP: Tensor) -> None:
        self.ids_BL = ids_BP
        self._read(net)

    def append(self, net: Any, ids_B: Tensor) -> None:
        self.ids_BL = torch.nn.functional.pad(self.ids_BL, (0, 1))
        self.ids_BL[torch.arange(len(ids_B), device=ids_B.device), self.length_B] = ids_B
        self.length_B = self.length_B + 1
        self._read(net)

    def _read(self, net: Any) -> None:
        row_B, last_B = torch.arange(len(self.ids_BL), device=self.ids_BL.device), self.length_B - 1
        given: dict[str, Any] = {"input_ids": self.ids_BL, "use_cache": False}
        if self.head is None:
            given["attention_mask"] = torch.ones_like(self.ids_BL)
        self.read(net, lambda out: out[row_B, last_B], **given)

    def rows(self, index_N: Tensor) -> Self:
        made = super().rows(index_N)
        made.ids_BL = self.ids_BL[index_N]
        return made


WAYS: tuple[type[CausalDecoding], ...] = (Slots, Padded, Alone, Whole)


@torch.no_grad()
def fastest(net: Any, context: int, vocabulary: int, head: Head) -> type[CausalDecoding]:
    """The first way in which a short row beside two longer ones is read as it is read alone and whole.

    Networks without a cache, and those whose positions or masks do not follow the padding, are read whole.
    """
    long = max(1, min(6, context - 2))
    prompts = [[at % vocabulary for at in range(1 + row, 1 + row + n)] for row, n in enumerate(((long + 1) // 2, long, long))]
    steps = min(2, context - long)
    said = _said(Whole, net, prompts, head, steps)
    exact = all(p.dtype == torch.float32 for p in net.parameters()) and not torch.is_autocast_enabled(said[0].device.type)
    tolerance = 1e-3 if exact else 5e-2
    for way in WAYS[:-1]:
        try:
            if way is Slots and not Slots.fits(net):
                continue
            found = _said(way, net, prompts, head, steps)
        except torch.OutOfMemoryError:
            raise
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, StopIteration, TypeError, ValueError):
            continue
        if all(float((a - b).abs().max()) <= tolerance * float(b.abs().max()) for a, b in zip(found, said)):
            return way
    return Whole


def _said(
    way: type[CausalDecoding], net: Any, prompts: Sequence[Sequence[int]], head: Head, steps: int
) -> list[Tensor]:
    """Logits after the prompts, and after each of a few tokens more."""
    state = way(net, prompts, 0, head)
    said = [state.logits_BV]
    for _ in range(steps):
        state.append(net, torch.zeros(len(prompts), dtype=torch.long, device=state.length_B.device))
        said.append(state.logits_BV)
    return said
