"""Training steps: a loss over rows changes the weights, independently of how the batch is split."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from hookline import rng
from hookline.batch.lent import checksum
from hookline.batch.stages import Advantaged, Batch, Term
from hookline.contract.fields import UpdateConfig
from hookline.contract.loss import Loss, MicroBatch, Stats, Support
from hookline.errors import NumbersError, PluginError
from hookline.models.role import Role
from hookline.training.optim import Optimiser, hidden_matrices, learning_rate
from hookline.training.shares import Shares
from hookline.training.statistics import forward, split_by_tokens, truncated
from hookline.world.world import World

__all__ = ["Trainer"]

B = TypeVar("B", bound=Batch)
KINDS = ("tokens", "rows", "groups")
"""What every batch has, to average over."""
Joined = tuple[Batch, Callable[[MicroBatch[Any]], Loss]]
"""Rows and their loss."""


class TrainingContext(Protocol):
    """What a trainer needs from a phase."""

    @property
    def world(self) -> World:
        """The processes over which counts are summed, and the device of losses."""

    @property
    def step(self) -> int:
        """Finished steps of the phase."""

    def key(self, purpose: str, *ids: object) -> tuple[object, ...]:
        """The key of a random number: what the number is for."""

    def log(self, name: str, value: float, count: float = 1.0) -> None:
        """Add to a figure of this step."""


class Trainer:
    """Owns the optimiser of a phase and takes its steps."""

    def __init__(
        self,
        ctx: TrainingContext,
        roles: Callable[[str], Role],
        config: UpdateConfig,
        trained: Iterable[Role],
        steps: int,
    ) -> None:
        """roles: from a name to the role whose statistics a loss asks for."""
        self.ctx = ctx
        self.config = config
        self.roles = roles
        self.trained = list(trained)
        self.device = ctx.world.device
        self.steps = steps
        self.progress = (0, steps)
        """Progress and length of the phase in optimiser steps, if every step takes as many as the present one."""
        named = {f"{role.name}/{name}": p for role in self.trained for name, p in role.trainable().items()}
        matrices = set().union(*(hidden_matrices(role.net, _output(role), f"{role.name}/") for role in self.trained))
        rates = {
            f"{role.name}/own.{name}": role.rates.get(name, config.lr_of(role.name))
            for role in self.trained
            for name in role.own
        }
        self.optimiser = Optimiser(config, named, matrices, rates)
        self.parameters = named
        self.taken = 0
        self.learned = False
        """Whether an optimiser step that followed a gradient has changed a weight."""

    def train(
        self,
        batch: B,
        loss: Callable[[MicroBatch[B]], Loss],
        unit: Literal["row", "group"] = "row",
        after: Callable[[], None] | None = None,
        beside: Joined | None = None,
    ) -> None:
        if not self.ctx.world.any(len(batch) > 0 and bool(batch.mask_BT.any()), "ctx.train"):
            return
        done = 0
        for epoch in range(self.config.epochs):
            parts = self._minibatches(batch, unit, epoch)
            others = self._minibatches(beside[0], "row", epoch, len(parts)) if beside else []
            many = self.config.epochs * max(len(parts), len(others))
            for part, other in itertools.zip_longest(parts, others):
                joined = [(beside[0].rows(other), beside[1])] if beside and other is not None else []
                self.progress = (self.ctx.step * many + done, self.steps * many)
                self._step(batch.rows(part or []), loss, unit, *joined)
                done += 1
                if after:
                    after()

    @torch.no_grad()
    def measure(self, batch: B, loss: Callable[[MicroBatch[B]], Loss], unit: Literal["row", "group"]) -> dict[str, Term]:
        """The loss over some rows, and every figure that it logs, as a value and a weight per row."""
        known = self._counts(batch)

        def count(kind: str) -> float:
            if kind not in known:
                known[kind] = _count(batch, kind)
            return known[kind]

        shares = Shares(batch, count)
        packing = max((role.packing for role in self.trained), default=0)
        for rows in split_by_tokens(batch, self.config.micro_tokens, _units(batch, unit), packing):
            mb = MicroBatch(batch.rows(rows).to(self.device), self._read, count)
            answer = loss(mb)
            for name, value in {"loss": answer, **mb._measured}.items():
                shares.add(name, rows, value)
        return shares.terms(self.ctx.world)

    def _minibatches(self, batch: Batch, unit: str, epoch: int, most: int | None = None) -> list[list[int]]:
        """The rows of this rank in each optimiser step; the units of all ranks are shuffled as one."""
        units = _units(batch, unit)
        first = [int(batch.sample_B[rows[0]]) for rows in units]
        places, total = self.ctx.world.order(first, "the minibatches")
        own = dict(zip(places, units))
        key = self.ctx.key("minibatches", epoch, *(("beside",) if most else ()))
        order = torch.randperm(total, generator=rng.generator(*key)).tolist()
        many = max(1, min(most or self.config.minibatches, total))
        cuts = [round(i * total / many) for i in range(many + 1)]
        return [[row for u in order[a:b] for row in own.get(u, ())] for a, b in itertools.pairwise(cuts)]

    def _step(self, mini: B, loss: Callable[[MicroBatch[B]], Loss], unit: str, *beside: Joined) -> None:
        self.optimiser.zero()
        logged: dict[str, float] = {}
        total = self._gradient(mini, loss, unit, logged)
        total += sum(self._gradient(*joined, "row", logged) for joined in beside)
        total, logged = self._add_up(total, logged)
        norm = self._clip()
        began = time.perf_counter()
        before = [checksum(p) for p in self.parameters.values()] if not self.learned and norm > 0 else None
        rate = self.optimiser.step(learning_rate(self.config, self.taken, *self.progress))
        self.ctx.log("optimiser_seconds", time.perf_counter() - began)
        self.optimiser.zero()
        if before is not None:
            self.learned = before != [checksum(p) for p in self.parameters.values()]
        self.taken += 1
        for role in self.trained:
            role.version += 1
        log = self.ctx.log
        once = float(self.ctx.world.leads)
        for name, figure in (("loss", total), ("grad_norm", norm), ("learning_rate", rate), ("optimiser_steps", once)):
            log(name, figure)
        for name, figure in logged.items():
            log(name, figure)

    def _gradient(self, mini: B, loss: Callable[[MicroBatch[B]], Loss], unit: str, logged: dict[str, float]) -> float:
        """Add the gradient of a loss over some rows, part by part; returns the loss."""
        known = self._counts(mini)

        def count(kind: str) -> float:
            if kind not in known:
                known[kind] = _count(mini, kind)
            return known[kind]

        total = 0.0
        packing = max((role.packing for role in self.trained), default=0)
        for part in split_by_tokens(mini, self.config.micro_tokens, _units(mini, unit), packing):
            mb = MicroBatch(mini.rows(part).to(self.device), self._read, count, logged)
            answer = loss(mb)
            if not isinstance(answer, Loss):
                raise PluginError(
                    f"the loss function returned a {type(answer).__name__}, not a hookline.Loss",
                    "build the loss with mb.token_mean, mb.row_mean or mb.mean_over",
                )
            value = float(answer.value.detach())
            if not math.isfinite(value):
                raise NumbersError(
                    f"the loss is {value}{_culprit(answer, mb.batch)}",
                    "the weights are as before this step; lower lr, or check that row",
                )
            total += value
            if not answer.value.requires_grad:
                raise PluginError(
                    "the loss carries no gradient, so nothing would be learned", "build the loss from mb.stats(...)"
                )
            answer.value.backward()  # type: ignore[no-untyped-call]
        return total

    def _counts(self, mini: Batch) -> dict[str, float]:
        """What all ranks have in this optimiser step, by kind; empty if this is the only process, which counts on demand."""
        world = self.ctx.world
        if world.size == 1:
            return {}
        columns = [name for name, column in mini.extra.items() if not column.is_complex()]
        parts = world.gather({kind: _count(mini, kind) for kind in (*KINDS, *columns)}, "the counts of a step")
        return {kind: sum(part.get(kind, 0.0) for part in parts) for part in parts for kind in part}

    def _add_up(self, total: float, logged: dict[str, float]) -> tuple[float, dict[str, float]]:
        """Sum gradients, loss and figures over all ranks."""
        world = self.ctx.world
        if world.size == 1:
            return total, logged
        mine = [name for name, p in self.parameters.items() if p.grad is not None]
        parts = world.gather((mine, total, logged), "the loss of a step")
        somewhere = set().union(*(names for names, _, _ in parts))
        for name, p in self.parameters.items():
            if name in somewhere and p.grad is None:
                p.grad = torch.zeros_like(p)
        world.add_up([p.grad for name, p in self.parameters.items() if name in somewhere and p.grad is not None])
        names = dict.fromkeys(name for _, _, figures in parts for name in figures)
        return sum(t for _, t, _ in parts), {n: sum(figures.get(n, 0.0) for _, _, figures in parts) for n in names}

    def _read(self, model: str, batch: Batch, want: Sequence[str], support: Support | None) -> Stats:
        role = self.roles(model)
        if support is None and model == "policy" and not isinstance(batch, Advantaged) and truncated(batch, want):
            raise PluginError(
                f"mb.stats was asked for {', '.join(want)} of rows drawn with top-k or top-p, but not among which tokens",
                "state support='whole' for a likelihood, or 'kept' for a ratio to the behaviour or a policy gradient",
            )
        support = support or ("kept" if model == "policy" else "whole")
        return Stats(forward(role, batch.to(role.device), want, support))

    def _clip(self) -> float:
        grads = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        if not grads:
            return 0.0
        norms = torch._foreach_norm(list(grads.values()))
        norm = float(torch.linalg.vector_norm(torch.stack([n.float() for n in norms])))
        if not math.isfinite(norm):
            bad = next((name for name, n in zip(grads, norms) if not bool(torch.isfinite(n))), next(iter(grads)))
            raise NumbersError(
                f"the gradient of {bad} is not finite",
                "the weights are as before this step; lower lr, or compute in float32",
            )
        if norm > self.config.grad_clip:
            torch._foreach_mul_(list(grads.values()), self.config.grad_clip / (norm + 1e-6))
        return norm

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "learned": self.learned, "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.taken = int(saved["taken"])
        self.learned = bool(saved.get("learned", True))  # what an earlier release saved does not say
        self.optimiser.load_state_dict(saved["optimiser"])


def _output(role: Role) -> Tensor | None:
    """The weight of a role's output layer, or None."""
    layer = role.family.output(role.base)
    return layer[0] if layer else None


def _units(batch: Batch, unit: str) -> list[list[int]]:
    if unit == "row":
        return [[row] for row in range(len(batch))]
    groups: dict[int, list[int]] = {}
    for row, group in enumerate(batch.group_B.tolist()):
        groups.setdefault(group, []).append(row)
    return list(groups.values())


def _count(batch: Batch, kind: str) -> float:
    if kind == "tokens":
        return float(batch.mask_BT.sum())
    if kind == "rows":
        return float(len(batch))
    if kind == "groups":
        return float(len(set(batch.group_B.tolist())))
    return float(batch.extra[kind].double().sum())


def _culprit(answer: Loss, batch: Batch) -> str:
    for part in answer.parts:
        kind, x = part.kind, part.values
        bad = ~torch.isfinite(x.detach())
        if kind == "tokens":
            bad = bad & batch.mask_BT
        if bool(bad.any()) and x.dim() >= 1 and x.shape[0] == len(batch):
            row = int(bad.reshape(len(batch), -1).any(1).nonzero()[0])
            return f": first in sample {int(batch.sample_B[row])} ('{batch.prompt_text(row)[:40]}')"
    return ""
