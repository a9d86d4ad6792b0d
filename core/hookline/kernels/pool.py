"""Memory for gradients that is used again: on a CPU, fresh pages cost more than the arithmetic that fills them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class Pool:
    """One tensor per shape and dtype, handed out again once nobody else holds its memory."""

    def __init__(self) -> None:
        self.tensors: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def take(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        kept = self.tensors.get((shape, dtype))
        if kept is None or not _nobody_else_holds(kept):
            kept = self.tensors[shape, dtype] = torch.empty(shape, dtype=dtype)
        return kept.view(shape)


def _nobody_else_holds(tensor: Tensor) -> bool:
    storage = tensor.untyped_storage()
    count: Callable[[int], int] = torch._C._storage_Use_Count
    return count(storage._cdata) == 2  # the pool's tensor and `storage` itself


pool = Pool()
