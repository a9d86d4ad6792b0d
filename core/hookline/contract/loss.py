"""Token statistics, losses and micro-batches, with means that are correct over a whole optimiser step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import Tensor

from hookline.batch.stages import Batch
from hookline.errors import PluginError, a, nearest

__all__ = ["Loss", "MicroBatch", "Stats", "Support"]

B = TypeVar("B", bound=Batch)
Support = Literal["kept", "whole"]
"""Among which tokens a figure is taken where top-k or top-p left some out: those that were kept, or the whole vocabulary."""


class Stats(dict[str, Tensor]):
    """Figures per token, [B, T] float32, 0 where the mask is false: `stats["logprobs"]`, or `stats.logprobs_BT`."""

    def __getattr__(self, name: str) -> Tensor:
        if name.endswith("_BT") and name[:-3] in self:
            return self[name[:-3]]
        raise AttributeError(f"no statistic '{name}'; these were requested: {', '.join(self)}")


@dataclass(frozen=True)
class Part:
    """One mean in a loss: what was counted, and the values that were averaged."""

    kind: str
    """`tokens`, `rows`, `groups`, or the column that weighs the values."""
    values: Tensor
    """The values, of any shape."""
    weighed: Tensor
    """The values as they enter the sum, with their weights or mask."""
    scale: float = 1.0
    """What the mean is multiplied by."""


@dataclass
class Loss:
    """A correctly normalised scalar. Losses can be added and multiplied by numbers, but not combined with tensors."""

    value: Tensor
    """The scalar [], with its gradient."""
    parts: tuple[Part, ...] = ()
    """The means of which it is the sum: they name the row of a value that is not finite, and give each row's share."""

    def __add__(self, other: Loss) -> Loss:
        if not isinstance(other, Loss):
            raise PluginError(
                f"a loss was added to {a(type(other).__name__)}", "use mb.token_mean, mb.row_mean or mb.mean_over"
            )
        return Loss(self.value + other.value, self.parts + other.parts)

    def __radd__(self, other: Any) -> Loss:
        if isinstance(other, int) and other == 0:  # `sum` of losses begins with 0
            return self
        return self.__add__(other)

    def __mul__(self, factor: float) -> Loss:
        if not isinstance(factor, int | float):
            raise PluginError(
                f"a loss was multiplied by {a(type(factor).__name__)}, which may differ between parts of a batch",
                "multiply by a plain number, or apply the weights inside the mean",
            )
        return Loss(self.value * factor, tuple(replace(part, scale=part.scale * factor) for part in self.parts))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Loss:
        return self * (1.0 / divisor)

    def __neg__(self) -> Loss:
        return self * -1.0

    def __sub__(self, other: Loss) -> Loss:
        return self + -other

    def __rsub__(self, other: Any) -> Loss:
        return (-self).__add__(other)

    def __rtruediv__(self, other: object) -> Loss:
        raise PluginError(f"{a(type(other).__name__)} was divided by a loss", "divide inside the mean")

    def __pow__(self, power: object) -> Loss:
        raise PluginError("a loss was raised to a power", "apply the power inside the mean: mb.token_mean(x_BT**2)")

    @classmethod
    def __torch_function__(cls, function: Any, *_: object) -> Any:
        """Called by torch for any of its functions and operators that is given a loss, e.g. `tensor + loss`."""
        name = str(getattr(function, "__name__", function))
        raise PluginError(
            f"torch's {name} was given a loss, whose value is for a part of a batch only",
            "compute with tensors inside mb.token_mean, mb.row_mean or mb.mean_over",
        )


@dataclass
class MicroBatch(Generic[B]):
    """Some rows of an optimiser step, with means that are correct over the whole optimiser step."""

    batch: B
    """The rows, on the device of the role that learns; columns such as `mb.batch.advantage_BT` are [B, T]."""
    _read: Callable[[str, Batch, Sequence[str], Support | None], Stats]
    """Computes figures of a role, by name, for some rows, with gradient."""
    _counts: Callable[[str], float]
    _logged: dict[str, float] = field(default_factory=dict)
    _measured: dict[str, Loss] = field(default_factory=dict)
    """What this micro-batch logged, with the values of its rows."""

    def __getitem__(self, column: str) -> Tensor:
        """An extra column by name, [B, …] or [B, T, …]: `mb["return_BT"]`. Raises PluginError if there is none."""
        try:
            return self.batch.extra[column]
        except KeyError:
            known = self.batch.extra
            raise PluginError(
                f"no column '{column}'{nearest(column, known)}", f"columns: {', '.join(known) or 'none'}"
            ) from None

    def stats(
        self, model: str = "policy", want: Sequence[str] = ("logprobs",), support: Support | None = None
    ) -> Stats:
        """Figures per token with gradient, float32 [B, T]: token statistics, and heads by name, from one forward pass.

        model: the role. want: as in `ctx.stats`; only these figures are computed. support: as in `ctx.stats`. The
        default for the policy is `kept` only if the rows have advantages; for other rows that were drawn with top-k or
        top-p it must be stated, because a loss on them may be a likelihood.
        """
        return self._read(model, self.batch, want, support)

    def token_mean(self, x_BT: Tensor) -> Loss:
        """Mean of values [B, T] over all chosen tokens of the optimiser step: Σ mask · x / Σ mask."""
        self._check("token_mean", x_BT, self.batch.mask_BT.shape)
        return self._mean("tokens", torch.where(self.batch.mask_BT, x_BT, 0.0), x_BT)

    def row_mean(self, x_B: Tensor) -> Loss:
        """Mean of values [B] over all rows of the optimiser step."""
        self._check("row_mean", x_B, (len(self.batch),))
        return self._mean("rows", x_B, x_B)

    def mean_over(self, name: str, x: Tensor) -> Loss:
        """Mean weighted by a column, Σ w·x / Σ w over the optimiser step; `x` has the shape of the column.

        name: an extra column, e.g. a 0/1 column that marks the tokens to count; or `groups`, for one value per group.
        """
        if name == "groups":
            return self._mean("groups", x, x)
        weight = self[name].to(x.dtype)
        self._check("mean_over", x, weight.shape)
        return self._mean(name, torch.where(weight != 0, weight * x, 0.0), x)

    def _check(self, mean: str, x: Tensor, shape: Sequence[int]) -> None:
        if tuple(x.shape) != tuple(shape):
            raise PluginError(
                f"mb.{mean} was given {list(x.shape)}, it takes {list(shape)}",
                "pass one value for each item that is averaged",
            )

    def _mean(self, kind: str, x: Tensor, raw: Tensor) -> Loss:
        return Loss(x.sum() / max(self._counts(kind), 1e-12), (Part(kind, raw, x),))

    def log(self, name: str, value: Loss) -> None:
        """Log a declared figure. Like a loss, it is summed over micro-batches and averaged over optimiser steps."""
        if not isinstance(value, Loss):
            raise PluginError(
                f"mb.log('{name}') was given {a(type(value).__name__)}", "give it a mean, e.g. mb.token_mean(x)"
            )
        self._logged[name] = self._logged.get(name, 0.0) + float(value.value.detach())
        self._measured[name] = value
