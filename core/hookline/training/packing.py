"""Packing: whether the models of a phase compute rows that are laid end to end as they compute each row alone.

A family says how (`packed_states`). Which networks it works for is tried out: not every network that accepts positions
keeps neighbouring rows apart (state-space models, linear attention and convolutions do not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hookline.batch.laid import lay
from hookline.batch.stages import Batch
from hookline.errors import ExperimentError, NumbersError, cause
from hookline.models.role import Role

__all__ = ["compare_once", "pack"]

TRIED = 40
"""Tokens of the longest row on which a network is tried; longer ones are compared in the first batch."""
COMPARED_ROWS = 8


def pack(roles: Iterable[Role], asked: bool | str, notice: Callable[[str], None]) -> None:
    """Let the roles of a phase compute packed rows, all or none of them, because one split into parts serves all.

    asked: the option `packing`. Where a role cannot be packed, `auto` gives a notice and `True` raises ExperimentError.
    The answer depends on the weights with which the phase begins, so that a resumed phase gets the same one.
    """
    found = list(roles) if asked else []
    for role in found:
        if why := _why_not(role):
            said = f"packing: rows of role '{role.name}' ({type(role.base).__name__}) cannot be laid end to end: {why}"
            if asked != "auto":
                raise ExperimentError(said, "write packing: auto, which pads the rows of such models, or leave it out")
            notice(f"{said}; they are padded")
            return
    for role in found:
        # a token's attention over so many more keys costs about a twelfth of its products with a layer's weights
        role.packing = max(1, role.hidden_size // 2)


@torch.no_grad()
def _why_not(role: Role) -> str:
    """Why a role's network cannot compute packed rows; empty if it can."""
    if "packs" not in role.family.sides:
        return f"family '{role.family.instance}' has no packed_states"
    batch = _trial(min(TRIED, role.context), role.vocabulary).to(role.device)
    sides = role.family.sides & {"before", "after", "row"}
    exact = all(p.dtype == torch.float32 for p in role.net.parameters())
    leak, rounding = (1e-5, 1e-4) if exact else (1e-3, 5e-2)  # what is masked counts exactly 0 in any precision
    other = replace(batch, token_ids_BT=batch.token_ids_BT.clone(), prompt_ids_BP=batch.prompt_ids_BP.clone())
    for ids in (other.token_ids_BT, other.prompt_ids_BP):  # rows 1 and 2 have other rows to their right
        ids[1:3] = (ids[1:3] + 1) % role.vocabulary
    changed_B = torch.isin(batch.sample_B, torch.tensor([1, 2], device=role.device))
    try:
        alone = role.family.states(role.base, batch, sides)
        packed = role.family.packed_states(role.base, batch, sides)
        beside = role.family.packed_states(role.base, other, sides)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as err:
        return f"the network does not accept them ({cause(err)[:120]})"
    for side in sides:
        same = ~changed_B if side == "row" else ~changed_B[batch.mask_BT.nonzero()[:, 0]]
        if not _difference(beside[side][same], packed[side][same]) <= leak:
            return "a row's states depend on the rows beside it"
        if not _difference(packed[side], alone[side]) <= rounding:
            return "a row's states are not those of the row alone"
    return ""


def _difference(found_NH: Tensor, expected_NH: Tensor) -> float:
    """The largest difference of a state, as a share of the state's size; NaN if a state has one."""
    apart_N = (found_NH.float() - expected_NH.float()).norm(dim=-1)
    return float((apart_N / expected_NH.float().norm(dim=-1).clamp(min=1e-30)).max())


def compare_once(role: Role, batch: Batch, states: Mapping[str, Tensor]) -> None:
    """Compute a few rows of a role's first packed batch again, without packing: their states must agree.

    The trial's rows are short; here, rows may be longer than a window of attention. Raises NumbersError.
    """
    if not role.packing or role.compared or not states or not bool(batch.mask_BT.any()):
        return
    if len(lay(batch.prompt_length_B + batch.length_B).position_RW) == len(batch):
        return
    chosen = list(range(0, len(batch), -(-len(batch) // COMPARED_ROWS)))
    packing, role.packing = role.packing, 0
    try:
        with torch.no_grad():
            alone = role.states(batch.rows(chosen), list(states))
    finally:
        role.packing = packing
    chosen_B = torch.isin(torch.arange(len(batch)), torch.tensor(chosen)).to(role.device)
    few_N = chosen_B[batch.mask_BT.nonzero()[:, 0]]
    exact = role.autocast is None and all(p.dtype == torch.float32 for p in role.net.parameters())
    for side, expected in alone.items():
        found = states[side][chosen_B if side == "row" else few_N].detach().float()
        gap = float((found - expected.float()).norm() / expected.float().norm().clamp(min=1e-30))
        if not gap <= (1e-3 if exact else 1e-1):  # NaN included
            raise NumbersError(
                f"role '{role.name}' computes other states for packed rows than for the same rows alone: they differ by "
                f"{gap:.2g} of their size in the first batch",
                "train this model without packing",
            )
    role.compared = True


def _trial(longest: int, vocabulary: int) -> Batch:
    """Rows of up to `longest` tokens, of which up to three fit into one packed row; all but the first token scored."""
    half = longest // 2
    lengths = [n for n in (longest, half + 1, half, half - 1, half - 2, 2, 2) if 2 <= n <= longest] or [longest]
    rows = [[(vocabulary // 2 + at + 7 * row) % vocabulary for at in range(n)] for row, n in enumerate(lengths)]
    return Batch.of_ids([ids[:1] for ids in rows], [ids[1:] for ids in rows])
