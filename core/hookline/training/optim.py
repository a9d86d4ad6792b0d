"""Optimisers whose state is keyed by parameter name, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hookline.contract.fields import UpdateConfig
from hookline.errors import CheckpointError
from hookline.training.muon import Muon

__all__ = ["Optimiser", "hidden_matrices", "learning_rate"]


def learning_rate(config: UpdateConfig, taken: int, at: int, total: int) -> float:
    """Share of the peak for the next optimiser step: linear warm-up, then the schedule.

    taken: optimiser steps so far, which warm-up counts. at, total: the phase's progress and length, which the schedule
    follows, in optimiser steps, if every step of the phase takes as many as this one. If all do, `at` equals `taken`.
    """
    warmup = config.warmup if config.warmup >= 1 else round(config.warmup * total)
    if taken < warmup:
        return (taken + 1) / warmup
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, max(0.0, (at - warmup) / max(1, total - warmup)))
    fall = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.final_lr + (1.0 - config.final_lr) * fall


HALF = (torch.bfloat16, torch.float16)


class RMSprop(torch.optim.RMSprop):
    """torch's, with the decay of weights apart from the gradient, as in AdamW (Loshchilov and Hutter 2019)."""

    def __init__(self, groups: list[dict[str, Any]], **options: Any) -> None:
        super().__init__([{**group, "weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups], **options)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for weight in group["params"]:
                if group["decay"] and weight.grad is not None:
                    weight.mul_(1.0 - group["lr"] * group["decay"])
        return super().step(closure)


class Optimiser:
    """AdamW, RMSprop or plain gradient descent for everything, or Muon for hidden matrices and AdamW for the rest.

    Weights in bfloat16 are trained through a master copy in float32, which the optimiser changes and which is then
    rounded into the weights. Without it a step of less than half of bfloat16's spacing, |w|/512, would be lost.
    """

    def __init__(
        self,
        config: UpdateConfig,
        parameters: Mapping[str, nn.Parameter],
        hidden_matrices: set[str],
        rates: Mapping[str, float] | None = None,
    ) -> None:
        """rates: the peak learning rates of components' own parameters, by name; they are not decayed."""
        self.config = config
        self.weights = dict(parameters)
        self.masters = {name: nn.Parameter(p.detach().float()) for name, p in parameters.items() if p.dtype in HALF}
        """The float32 copies of the weights in half precision."""
        self._written = {name: self.weights[name]._version for name in self.masters}
        """torch's count of writes into each of these weights when it was last equal to its rounded master."""
        parameters = {**parameters, **self.masters}
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.parameters = parameters
        own = {name: lr for name, lr in (rates or {}).items() if name in parameters}
        muon = {name for name in parameters if config.optimizer == "muon" and name in hidden_matrices}
        scale = (config.matrix_lr or config.lr) / config.lr
        adamw_groups: list[dict[str, Any]] = []
        muon_groups: list[dict[str, Any]] = []
        for role in dict.fromkeys(name.partition("/")[0] for name in parameters):
            mine = {name: p for name, p in parameters.items() if name.partition("/")[0] == role}
            lr = config.lr_of(role)
            rest = [p for name, p in mine.items() if name not in muon and name not in own]
            for group, decay in (
                ([p for p in rest if p.dim() >= 2], config.weight_decay),
                ([p for p in rest if p.dim() < 2], 0.0),
            ):
                if group:
                    adamw_groups.append({"params": group, "weight_decay": decay, "lr": lr})
            if matrices := [p for name, p in mine.items() if name in muon]:
                muon_groups.append({"params": matrices, "lr": lr * scale})
        adamw_groups += [{"params": [parameters[name]], "weight_decay": 0.0, "lr": lr} for name, lr in own.items()]
        self.parts: list[torch.optim.Optimizer] = []
        if adamw_groups and config.optimizer == "sgd":
            self.parts.append(torch.optim.SGD(adamw_groups, lr=config.lr))
        elif adamw_groups and config.optimizer == "rmsprop":
            self.parts.append(RMSprop(adamw_groups, lr=config.lr, alpha=config.betas[1], eps=1e-8))
        elif adamw_groups:
            self.parts.append(torch.optim.AdamW(adamw_groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=True))
        if muon_groups:
            self.parts.append(Muon(muon_groups, config.weight_decay))
        self.peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]

    def step(self, share: float) -> float:
        """One optimiser step at this share of the peak; returns the learning rate used."""
        for part, peaks in zip(self.parts, self.peaks):
            for group, peak in zip(part.param_groups, peaks):
                group["lr"] = peak * share
        self._to_masters()
        for part in self.parts:
            part.step()
        self._to_weights()
        return self.config.lr * share

    @torch.no_grad()
    def _to_masters(self) -> None:
        """Move gradients to the masters, one at a time; a weight that something else has changed is read again."""
        for name, master in self.masters.items():
            weight = self.weights[name]
            if weight._version != self._written[name]:
                master.copy_(torch.where(master.to(weight.dtype) == weight, master, weight.float()))
            master.grad = None if weight.grad is None else weight.grad.float()
            weight.grad = None

    @torch.no_grad()
    def _to_weights(self) -> None:
        """Round the masters into the weights."""
        for name, master in self.masters.items():
            weight = self.weights[name]
            if master.grad is not None:
                weight.copy_(master)
                master.grad = None
            self._written[name] = weight._version

    def zero(self) -> None:
        for parameter in (*self.weights.values(), *self.masters.values()):
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {name: {"master": master.detach()} for name, master in self.masters.items()}
        for part in self.parts:
            for parameter, values in part.state.items():
                found.setdefault(self.names[id(parameter)], {}).update(values)
        return found

    def load_state_dict(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        unknown = sorted(set(saved) - set(self.parameters))
        if unknown:
            raise CheckpointError(
                f"the checkpoint has optimiser state for unknown parameters: {', '.join(unknown[:5])}",
                "resume with the run's own experiment",
            )
        owner = {id(p): part for part in self.parts for group in part.param_groups for p in group["params"]}
        for name, values in saved.items():
            parameter = self.parameters[name]
            state = {
                key: value.to(parameter.device, torch.float32 if value.dtype in HALF else value.dtype).clone()
                if isinstance(value, Tensor)
                else value
                for key, value in values.items()
            }
            if name in self.masters:  # a checkpoint of before masters were kept has none
                parameter.data.copy_(state.pop("master", self.weights[name]))
                self._written[name] = -1
            if state:
                owner[id(parameter)].state[parameter] = state


def hidden_matrices(net: nn.Module, output: Tensor | None, prefix: str) -> set[str]:
    """Names of the 2-D weights that lie between embedding and output layer; output: the latter's weight."""
    outer: set[int] = set()
    for module in net.modules():
        if isinstance(module, nn.Embedding):
            outer.add(id(module.weight))
    if output is not None:
        outer.add(id(output))
    return {prefix + name for name, p in net.named_parameters() if p.dim() == 2 and id(p) not in outer}
