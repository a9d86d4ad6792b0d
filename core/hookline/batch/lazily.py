"""torch for modules that a process without models imports, too: the page of `hookline collect` then begins without it.

    if TYPE_CHECKING:
        import torch
    else:
        from hookline.batch.lazily import torch
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["torch"]


class Lazily(ModuleType):
    """A module that is imported when the first of its names is used."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)  # the next time without a search
        return value


torch = Lazily("torch")
"""torch, imported at its first use."""
