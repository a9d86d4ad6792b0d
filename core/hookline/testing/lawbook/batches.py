"""Changes of a batch that keep its meaning, and the distance between two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hookline.batch.stages import Batch, Behaviour, KeptIds

__all__ = ["apart", "groups_of", "order_of", "trailing", "widened"]


S = TypeVar("S", bound=Batch)
CLEAN = {"mask_BT", "reward_BT", "advantage_BT", "logprobs_BT", "version_BT"}
"""Columns that are 0 outside the mask by contract; other columns may hold anything there."""
JUNK = 7.5


def widened(batch: S, vocabulary: int, by: int = 3) -> S:
    """Add padding to the right of every prompt and answer, and fill all padding with junk: other ids, other numbers."""
    P, T = batch.prompt_ids_BP.shape[1] + by, batch.token_ids_BT.shape[1] + by
    pad_BP = torch.arange(P) >= batch.prompt_length_B[:, None]
    pad_BT = torch.arange(T) >= batch.length_B[:, None]

    def one(name: str, value: Any) -> Any:
        if isinstance(value, Tensor) and name.endswith(("_BT", "_BP")):
            pad = pad_BT if name.endswith("_BT") else pad_BP
            value = stretched(value, pad.shape[1])
            if name in CLEAN:
                return value
            return torch.where(pad.reshape(*pad.shape, *[1] * (value.dim() - 2)), junk(value, vocabulary), value)
        if isinstance(value, Behaviour):
            return replace(
                value,
                logprobs_BT=one("logprobs_BT", value.logprobs_BT),
                version_BT=one("version_BT", value.version_BT),
                support=wider_support(value.support, len(batch), T),
            )
        if isinstance(value, Mapping):
            return {key: one(key, column) for key, column in value.items()}
        return value

    return replace(batch, **{f.name: one(f.name, getattr(batch, f.name)) for f in fields(batch)})


def trailing(batch: S, vocabulary: int, count: int = 2) -> S:
    """Add a few tokens behind every answer that the policy did not choose, such as tool output; `length_B` counts them."""
    wide = widened(batch, vocabulary, count)
    return replace(wide, length_B=batch.length_B + count)


def stretched(value: Tensor, width: int) -> Tensor:
    missing = width - value.shape[1]
    return torch.cat([value, value.new_zeros(len(value), missing, *value.shape[2:])], 1)


def junk(value: Tensor, vocabulary: int) -> Tensor:
    if value.dtype == torch.bool:
        return torch.ones_like(value)
    if value.is_floating_point():
        return torch.full_like(value, JUNK)
    return (torch.arange(value.numel()).view_as(value) * 5 + 3) % vocabulary


def wider_support(support: KeptIds | None, B: int, T: int) -> KeptIds | None:
    if support is None:
        return None
    count_BT = stretched((support.offsets[1:] - support.offsets[:-1]).view(B, -1), T).reshape(-1)
    return KeptIds(support.ids, torch.cat([count_BT.new_zeros(1), count_BT.cumsum(0)]))


def order_of(batch: Batch, within_groups: bool = True) -> Tensor:
    """One fixed shuffle of a batch's rows.

    Rows of a group keep their order among themselves if `within_groups` is false, or if a column refers to this order, such
    as P(row ≻ k-th row of its group), [B, K].
    """
    B = len(batch)
    order = torch.randperm(B, generator=torch.Generator().manual_seed(3))
    if bool((order == torch.arange(B)).all()):
        order = order.roll(1)
    if within_groups and not any(name.endswith("_B") and column.dim() > 1 for name, column in batch.extra.items()):
        return order
    kept = order.clone()
    for group in groups_of(batch):
        places = batch.group_B[order] == group
        kept[places] = order[places].sort().values
    return kept


def groups_of(batch: Batch) -> list[int]:
    """The groups of a batch, each once, in order."""
    return list(dict.fromkeys(batch.group_B.tolist()))


def apart(one: Tensor | Sequence[float], other: Tensor | Sequence[float]) -> float:
    """The largest difference of two answers, in units of the largest entry; infinite if their shapes differ."""
    a, b = torch.as_tensor(one).double(), torch.as_tensor(other).double()
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    both = torch.isnan(a) & torch.isnan(b)
    difference = torch.where(both, 0.0, a - b).abs().max()
    scale = torch.nan_to_num(torch.maximum(a.abs().max(), b.abs().max()))
    return float(difference / scale) if float(scale) > 0 else float(difference)
