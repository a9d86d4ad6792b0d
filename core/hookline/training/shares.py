"""What each row contributes to a loss and to the figures that it logs, for evaluations: a value and a weight per row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hookline.batch.stages import Batch, Term
from hookline.contract.loss import Loss
from hookline.world.world import World

__all__ = ["Shares"]


class Shares:
    """Sums over the parts of losses, row by row.

    A figure that is one mean, or a sum of means over the same weights, is the weighted mean of its rows. Where means over
    different weights are added (a mean over comparisons and one over rows), a row's value is its share of the figure times
    the number of rows, so that the mean over rows is the figure.
    """

    def __init__(self, batch: Batch, count: Callable[[str], float]) -> None:
        """count: the total weight of a kind of mean, over all ranks."""
        self.batch, self.count = batch, count
        self._sums: dict[str, dict[str, Tensor]] = {}

    def add(self, name: str, rows: Sequence[int], value: Loss) -> None:
        """Add what some rows contribute to a figure."""
        for part in value.parts:
            share = part.scale * part.weighed.detach().double().cpu()
            if part.kind == "groups":
                share = _on_first_rows(share, self.batch.group_B[list(rows)])
            sums = self._sums.setdefault(name, {})
            sums.setdefault(part.kind, torch.zeros(len(self.batch), dtype=torch.float64))
            sums[part.kind][list(rows)] += share.reshape(len(rows), -1).sum(1)

    def terms(self, world: World) -> dict[str, Term]:
        """A term for each figure, the same ones on every rank."""
        kinds: dict[str, list[str]] = {}
        for part in world.gather({name: list(sums) for name, sums in self._sums.items()}, "the figures of an evaluation"):
            for name, found in part.items():
                kinds[name] = list(dict.fromkeys([*kinds.get(name, ()), *found]))
        B = len(self.batch)
        every = world.sum(B, "the rows of an evaluation")
        terms = {}
        for name, of in kinds.items():
            sums = self._sums.get(name, {})
            nothing_B = torch.zeros(B, dtype=torch.float64)
            if len(of) == 1:
                weight_B, sum_B = self._weights(of[0]), sums.get(of[0], nothing_B)
                ok_B = weight_B > 0
                terms[name] = Term((sum_B / weight_B.where(ok_B, torch.ones_like(weight_B))).float(), ok_B, weight_B)
            else:
                total_B = sum((sums.get(kind, nothing_B) / max(self.count(kind), 1e-12) for kind in of), nothing_B)
                terms[name] = Term((total_B * every).float(), torch.ones(B, dtype=torch.bool))
        return terms

    def _weights(self, kind: str) -> Tensor:
        """The weight of each row in a kind of mean, float64 [B]."""
        batch = self.batch
        if kind == "tokens":
            return batch.mask_BT.sum(1).double()
        if kind == "rows":
            return torch.ones(len(batch), dtype=torch.float64)
        if kind == "groups":
            return _on_first_rows(torch.ones(len(set(batch.group_B.tolist())), dtype=torch.float64), batch.group_B)
        return batch.extra[kind].double().reshape(len(batch), -1).sum(1)


def _on_first_rows(value_G: Tensor, group_B: Tensor) -> Tensor:
    """The values of groups, in the order in which the groups appear, on the first row of each."""
    first: dict[int, int] = {}
    for row, group in enumerate(group_B.tolist()):
        first.setdefault(group, row)
    return torch.zeros(len(group_B), dtype=torch.float64).index_put((torch.tensor([*first.values()]),), value_G)
