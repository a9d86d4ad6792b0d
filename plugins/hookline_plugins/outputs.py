"""The outputs of a head that has several, by their names, and the axes of ratings, which are about outputs of their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from hookline import read_last

__all__ = ["OVERALL", "are_numbers", "axes_of", "each_output", "expected", "mark_column"]

OVERALL = "overall"
"""The output and the axis that are about the whole answer."""
MARK = "mark:"


def mark_column(axis: str) -> str:
    """The column with the marks of an axis of ratings."""
    return f"{MARK}{axis}_B"


def axes_of(columns: Iterable[str]) -> tuple[str, ...]:
    """The axes of ratings whose marks are among these columns, in alphabetical order."""
    return tuple(sorted(name.removeprefix(MARK).removesuffix("_B") for name in columns if name.startswith(MARK)))


def each_output(value: Tensor, mask_BT: Tensor) -> Tensor:
    """The outputs of a head at the last token of each row: [B, T] or [B, T, K] → [B, K]."""
    outputs = value.unbind(-1) if value.dim() == 3 else (value,)
    return torch.stack([read_last(output, mask_BT) for output in outputs], 1)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all outputs are named by finite numbers, as classes are that stand for marks."""
    try:
        return all(math.isfinite(float(name)) for name in names)
    except ValueError:
        return False


def expected(logits_BK: Tensor, names: Sequence[str]) -> Tensor:
    """The expected number of classes that are named by numbers, [B]."""
    return logits_BK.softmax(1) @ logits_BK.new_tensor([float(name) for name in names])
