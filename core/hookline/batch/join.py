"""Joins several batches into one, and finds the comparisons between rows of one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hookline.batch.columns import pad_columns
from hookline.batch.stages import Batch, Behaviour, KeptIds, Scored

__all__ = ["concat", "pairs"]

S = TypeVar("S", bound=Batch)


def pairs(scored: Scored) -> tuple[Tensor, Tensor]:
    """All comparisons in a batch: (better rows, worse rows), two int64 tensors [N] of row numbers.

    Two rows of one group with different rewards are one comparison.

    The reward of a row is that of its whole episode, so rows of one episode are never compared.
    """
    reward_B = scored.episode_reward_B
    better_BB = (scored.group_B[:, None] == scored.group_B) & (reward_B[:, None] > reward_B)
    chosen, rejected = better_BB.nonzero(as_tuple=True)
    return chosen, rejected


def concat(batches: Sequence[S]) -> S:
    """Join batches into one, in order; prompts and responses are padded to the longest.

    Extra columns that only some of the batches have are dropped. Raises ValueError if rows were drawn under different
    sampling, or if some rows were drawn and others were read from data.
    """
    first = batches[0]
    if len(batches) == 1:
        return first

    def join(name: str, values: list[Any]) -> Any:
        head = values[0]
        if len({type(value) for value in values if isinstance(value, Behaviour | None)}) > 1:
            raise ValueError(
                "some rows were sampled and others read from data, so the joined batch has no single behaviour"
            )
        if isinstance(head, Tensor):
            if name.endswith(("_BT", "_BP")):
                width = max(v.shape[1] for v in values)
                values = [pad_columns(v, width) for v in values]
            return torch.cat(values)
        if isinstance(head, tuple):
            return tuple(item for value in values for item in value)
        if isinstance(head, Mapping):
            shared = [key for key in head if all(key in v for v in values)]
            return {key: join(key, [v[key] for v in values]) for key in shared}
        if isinstance(head, Behaviour):
            if any((v.sampling, v.ends) != (head.sampling, head.ends) or (v.support is None) != (head.support is None) for v in values):
                raise ValueError(
                    "rows drawn under different sampling cannot be joined into one batch: ratios would be wrong"
                )
            return replace(
                head,
                logprobs_BT=join("_BT", [v.logprobs_BT for v in values]),
                version_BT=join("_BT", [v.version_BT for v in values]),
                support=_join_support(values) if head.support is not None else None,
            )
        return head

    return replace(first, **{f.name: join(f.name, [getattr(b, f.name) for b in batches]) for f in fields(first)})


def _join_support(values: Sequence[Behaviour]) -> KeptIds:
    width = max(v.logprobs_BT.shape[1] for v in values)
    ids, counts = [], []
    for v in values:
        assert v.support is not None
        rows, T = v.logprobs_BT.shape
        count_BT = (v.support.offsets[1:] - v.support.offsets[:-1]).view(rows, T)
        counts.append(pad_columns(count_BT, width).reshape(-1))
        ids.append(v.support.ids)
    count = torch.cat(counts)
    return KeptIds(torch.cat(ids), torch.cat([count.new_zeros(1), count.cumsum(0)]))
