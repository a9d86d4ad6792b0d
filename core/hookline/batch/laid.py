"""Rows laid end to end in packed rows, so that little is computed on padding.

Letters in names: B rows, R packed rows, W tokens of a packed row.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Laid", "Places", "lay"]


@dataclass
class Places:
    """Packed rows of one width, filled by best fit: a row goes where the least space would be left.

    Rows that come longest first fill them well (best-fit decreasing).
    """

    width: int
    """Tokens of a packed row."""
    free: list[tuple[int, int]] = field(default_factory=list)
    """(free tokens, packed row), sorted."""

    @property
    def tokens(self) -> int:
        """Tokens of all packed rows, unused ones included."""
        return len(self.free) * self.width

    def with_rows(self, lengths: Iterable[int]) -> Places:
        """A copy with more rows placed."""
        made = Places(self.width, list(self.free))
        for length in lengths:
            made.place(length)
        return made

    def place(self, length: int) -> tuple[int, int]:
        """The packed row and the column where a row of at most `width` tokens begins."""
        at = bisect.bisect_left(self.free, (length, -1))
        space, row = self.free.pop(at) if at < len(self.free) else (self.width, len(self.free))
        bisect.insort(self.free, (space - length, row))
        return row, self.width - space


@dataclass(frozen=True)
class Laid:
    """Where the tokens of rows are in packed rows."""

    first_B: Tensor
    """The flat index, packed row · W + column, of each row's first token, int64 [B]."""
    position_RW: Tensor
    """The position of each token within its own row, int64 [R, W]; unused tokens at the end are a row of their own."""

    def spread(self, ids_BL: Tensor, length_B: Tensor) -> Tensor:
        """Right-padded ids [B, L] in packed rows, [R, W]; unused tokens are 0."""
        at_L = torch.arange(ids_BL.shape[1], device=ids_BL.device)
        row_N, at_N = (at_L < length_B[:, None]).nonzero(as_tuple=True)
        out_RW = torch.zeros_like(self.position_RW)
        out_RW.view(-1)[self.first_B[row_N] + at_N] = ids_BL[row_N, at_N]
        return out_RW


def lay(length_B: Tensor) -> Laid:
    """Lay rows of these lengths, of at least one token each, into packed rows as long as the longest row.

    Longer packed rows would hold less unused space, but a dense attention computes every pair of tokens of a packed row.
    """
    lengths: Sequence[int] = length_B.tolist()
    places = Places(max(lengths, default=1))
    first = [0] * len(lengths)
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        packed, column = places.place(lengths[row])
        first[row] = packed * places.width + column
    device, width = length_B.device, places.width
    used_R = length_B.new_tensor([width - space for space, _ in sorted(places.free, key=lambda at: at[1])])
    position_RW = torch.arange(width, device=device) - used_R[:, None]
    first_B = length_B.new_tensor(first)
    row_N, at_N = (torch.arange(width, device=device) < length_B[:, None]).nonzero(as_tuple=True)
    position_RW.view(-1)[first_B[row_N] + at_N] = at_N
    return Laid(first_B, position_RW)
