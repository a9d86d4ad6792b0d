"""Reused memory: on a CPU, fresh pages cost more than the arithmetic that fills them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch import Tensor

SMALL = 1 << 20
"""Size in bytes below which the allocator itself returns warm pages, faster than a pool."""


class Pool:
    """At most `keep` buffers, each as large as the request that made it; a buffer that is no longer in use is reused."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.buffers: list[Tensor] = []
        self.lock = threading.Lock()

    def take(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor on the CPU."""
        size = shape.numel() * dtype.itemsize
        if size <= SMALL:
            return torch.empty(shape, dtype=dtype)
        with self.lock:
            free = [buffer for buffer in self.buffers if _nobody_else_holds(buffer)]
            fitting = min((b for b in free if len(b) >= size), key=len, default=None)
            if fitting is None:
                # Make room by dropping the smallest free buffer; a buffer in use lives as long as its users.
                if len(self.buffers) >= self.keep:
                    smallest = min(free or self.buffers, key=len)
                    self.buffers = [b for b in self.buffers if b is not smallest]
                fitting = torch.empty(size, dtype=torch.uint8)
                self.buffers.append(fitting)
            return fitting[:size].view(dtype).view(shape)


def _nobody_else_holds(tensor: Tensor) -> bool:
    storage = tensor.untyped_storage()
    count: Callable[[int], int] = torch._C._storage_Use_Count
    return count(storage._cdata) == 2  # the pool's tensor and `storage` itself


gradients = Pool(keep=2)
advantages = Pool(keep=1)
