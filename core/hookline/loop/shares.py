"""What is spread over the processes of a run: the rows of a batch, and the state of components that are `sharded`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from hookline.batch.columns import pad_columns
from hookline.batch.join import concat
from hookline.batch.stages import Batch, Rollout, Term
from hookline.errors import PluginError
from hookline.registry.slot import Slot
from hookline.storage import trees
from hookline.world.world import World

__all__ = ["States", "gathered", "level", "own_share", "refuse_parted", "whole"]

B = TypeVar("B", bound=Batch)


def level(batch: B, world: World) -> B:
    """The batch; on a rank without rows, an empty one with the stage, columns and sampling that the other ranks have."""
    if world.size == 1:
        return batch
    counts = world.gather(len(batch), "the step's rows")
    if not any(counts) or all(counts):
        return batch
    lender = next(rank for rank, count in enumerate(counts) if count)
    lent = world.gather(_packed(batch.rows([0])) if world.rank == lender else None, "the step's columns")[lender]
    return batch if len(batch) else _unpacked(lent, batch.decode).rows([])


def whole(
    rollout: Rollout, ok_B: Tensor, terms: Mapping[str, Term], world: World
) -> tuple[Rollout, Tensor, dict[str, Term]]:
    """The rows of all ranks by sample id, which of them could be judged, and the terms of these."""
    if world.size == 1:
        return rollout, ok_B, dict(terms)
    parts = world.gather((_packed(rollout), ok_B, dict(terms)), "the rows of an evaluation")
    every: Rollout = concat([_unpacked(part, rollout.decode) for part, _, _ in parts if len(part)])
    ok_B = torch.cat([ok for _, ok, _ in parts])
    judged_B = every.sample_B[ok_B].argsort()
    joined = {}
    for name in terms:
        some = [given[name] for _, _, given in parts]
        value = torch.cat([_wide(term.value, every.token_ids_BT.shape[1]) for term in some if len(term.value)])
        ok = None if some[0].ok_B is None else torch.cat([term.ok_B for term in some if term.ok_B is not None])
        weight = None if some[0].weight_B is None else torch.cat([t.weight_B for t in some if t.weight_B is not None])
        ok, weight = (None if column is None else column[judged_B] for column in (ok, weight))
        joined[name] = Term(value[judged_B], ok, weight, some[0].summary)
    order_B = every.sample_B.argsort()
    return every.rows(order_B), ok_B[order_B], joined


def _wide(value: Tensor, T: int) -> Tensor:
    return value if value.dim() == 1 else pad_columns(value, T)


# -- state

States = Mapping[str, tuple[Slot, dict[str, Any]]]


def gathered(states: States, world: World) -> tuple[dict[str, tuple[Slot, dict[str, Any]]], dict[str, Any]]:
    """(the states of components with the groups of all ranks, by id; which groups each rank had, by component and key).

    Raises PluginError for a state that is not the same on every rank and not `sharded`.
    """
    if world.size == 1:
        return dict(states), {}
    hint = "compute it from ctx.sum, ctx.mean, ctx.max or ctx.main, or keep it by group and declare it in `sharded`"
    own = {f"the state of '{slot.instance}'": _unsharded(slot, state) for slot, state in states.values()}
    refuse_parted(own, hint, world)
    joined: dict[str, tuple[Slot, dict[str, Any]]] = {}
    dealt: dict[str, Any] = {}
    for name, (slot, state) in states.items():
        joined[name] = slot, dict(state)
        for key in sorted(slot.component.sharded):
            parts = world.gather(state.get(key, {}), f"the state of {slot.instance}")
            every = {group: value for part in parts for group, value in part.items()}
            joined[name][1][key] = {group: every[group] for group in sorted(every, key=int)}
            dealt.setdefault(name, {})[key] = [list(part) for part in parts]
    return joined, dealt


def own_share(state: dict[str, Any], dealt: Mapping[str, Any], slot: Slot, world: World) -> dict[str, Any]:
    """A state with this rank's groups: those it had, or, if the number of processes has changed, an equal share."""
    if world.size == 1:
        return state
    own = dict(state)
    for key in slot.component.sharded & state.keys():
        held = dealt.get(key, ())
        mine = held[world.rank] if len(held) == world.size else world.shard(sorted(state[key], key=int))
        own[key] = {group: state[key][group] for group in mine}
    return own


def refuse_parted(parts: Mapping[str, Any], hint: str, world: World) -> None:
    """Raises PluginError if one of the parts, by name, is not the same on every rank that has it."""
    first, *others = world.gather({name: trees.digest(part) for name, part in parts.items()}, "comparing states")
    for rank, other in enumerate(others, 1):
        for name, digest in first.items():
            if other.get(name, digest) != digest:
                err = PluginError(f"{name} is not the same on rank 0 and rank {rank}", hint)
                err.everywhere = True
                raise err


def _unsharded(slot: Slot, state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in slot.component.sharded}


# -- messages


def _packed(batch: Batch) -> Any:
    """A batch without the function that belongs to this process."""
    return replace(batch, decode=None)  # type: ignore[arg-type]


def _unpacked(batch: Any, decode: Any) -> Any:
    return replace(batch, decode=decode)
