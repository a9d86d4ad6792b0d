"""Columns of a batch: the suffix of a name gives the shape; helpers put and read values at a row's last chosen
token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    from hookline.batch.lazily import torch

__all__ = ["check_column", "pad_columns", "pad_rows", "put_last", "read_last", "sum_shared"]

SUFFIXES = ("_BT", "_BP", "_B")


def check_column(name: str, column: Tensor, shape_BT: Sequence[int], shape_BP: Sequence[int]) -> None:
    """Raise ValueError if a column's shape does not match the suffix of its name, which decides how the column is
    sliced."""
    suffix = next((s for s in SUFFIXES if name.endswith(s)), None)
    if suffix is None:
        raise ValueError(f"column '{name}' must end in _B, _BP or _BT: the suffix decides how it is sliced")
    want = {"_BT": tuple(shape_BT), "_BP": tuple(shape_BP), "_B": (shape_BT[0],)}[suffix]
    if tuple(column.shape[: len(want)]) != want:
        raise ValueError(f"column '{name}' is {list(column.shape)} but the batch has {suffix[1:]} = {list(want)}")


def read_last(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The value at each row's last token where the mask is true: [B, T] → [B]; 0 for rows without such a token."""
    B, T = mask_BT.shape
    if not T:
        return value_BT.new_zeros(B)
    last_B = (mask_BT * torch.arange(1, T + 1, device=mask_BT.device)).argmax(1)
    return torch.where(mask_BT.any(1), value_BT.gather(1, last_B[:, None])[:, 0], 0.0)


def sum_shared(x_B: Tensor, number_B: Tensor) -> Tensor:
    """For each row, the sum over all rows with the same number: [B], [B] → [B]; `x_B` itself if all numbers differ."""
    numbers, where_B = torch.unique(number_B, return_inverse=True)
    if len(numbers) == len(number_B):
        return x_B
    total_N = x_B.new_zeros(len(numbers), dtype=torch.float64).index_add(0, where_B, x_B.double())
    return total_N[where_B].to(x_B.dtype)


def put_last(value_B: Tensor, mask_BT: Tensor) -> Tensor:
    """Put each row's value on its last token where the mask is true: [B], [B, T] → [B, T]. Other entries are 0."""
    T = mask_BT.shape[1]
    positions_T = torch.arange(T, device=mask_BT.device)
    last_B = torch.where(mask_BT, positions_T, -1).amax(1) if T else value_B.new_full((len(value_B),), -1)
    return torch.where(positions_T == last_B[:, None], value_B[:, None], 0)


def pad_columns(value: Tensor, width: int) -> Tensor:
    """[B, N, …] → [B, width, …], zeros on the right."""
    missing = width - value.shape[1]
    if not missing:
        return value
    return torch.cat([value, value.new_zeros(len(value), missing, *value.shape[2:])], 1)


def pad_rows(rows: Iterable[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Lists of ids → a tensor [B, N], N ≥ 1, right-padded with 0, and the lengths of the lists [B]; both int64."""
    lists = [list(row) for row in rows]
    width = max([1, *(len(row) for row in lists)])
    ids = torch.tensor([row + [0] * (width - len(row)) for row in lists], dtype=torch.long, device=device)
    return ids.view(len(lists), width), torch.tensor([len(row) for row in lists], dtype=torch.long, device=device)
