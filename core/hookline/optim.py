"""Optimisers whose state is keyed by parameter name, and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hookline.component import UpdateConfig
from hookline.errors import CheckpointError

__all__ = ["Optimiser", "learning_rate"]


def learning_rate(config: UpdateConfig, taken: int, total: int) -> float:
    """Share of the peak for the optimiser step after `taken` of `total`: linear warm-up, then the schedule."""
    if taken < config.warmup:
        return (taken + 1) / config.warmup
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (taken - config.warmup) / max(1, total - config.warmup))
    fall = 1.0 - done if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return config.final_lr + (1.0 - config.final_lr) * fall


class Optimiser:
    """AdamW for everything, or Muon for hidden matrices and AdamW for the rest."""

    def __init__(self, config: UpdateConfig, parameters: Mapping[str, nn.Parameter], hidden_matrices: set[str]) -> None:
        self.config = config
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.parameters = dict(parameters)
        matrices = [p for name, p in parameters.items() if config.optimizer == "muon" and name in hidden_matrices]
        rest = [p for p in parameters.values() if not any(p is m for m in matrices)]
        decayed = [p for p in rest if p.dim() >= 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.parts: list[torch.optim.Optimizer] = []
        if rest:
            groups = [group for group in groups if group["params"]]
            self.parts.append(
                torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=1e-8, fused=_fusable(rest))
            )
        if matrices:
            lr = config.matrix_lr or config.lr
            self.parts.append(
                torch.optim.Muon(matrices, lr=lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
            )
        self.peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]

    def step(self, share: float) -> float:
        """One optimiser step at this share of the peak; returns the learning rate used."""
        for part, peaks in zip(self.parts, self.peaks):
            for group, peak in zip(part.param_groups, peaks):
                group["lr"] = peak * share
            part.step()
        return self.config.lr * share

    def zero(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {
            self.names[id(parameter)]: dict(values.items())
            for part in self.parts
            for parameter, values in part.state.items()
        }

    def load_state_dict(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        unknown = sorted(set(saved) - set(self.parameters))
        if unknown:
            raise CheckpointError(
                f"optimiser state for unknown parameters: {', '.join(unknown[:5])}", "use the run's own experiment"
            )
        owner = {id(p): part for part in self.parts for group in part.param_groups for p in group["params"]}
        for name, values in saved.items():
            parameter = self.parameters[name]
            owner[id(parameter)].state[parameter] = {
                key: value.to(parameter.device).clone() if isinstance(value, Tensor) and value.dim() else value
                for key, value in values.items()
            }


def _fusable(parameters: list[nn.Parameter]) -> bool:
    return all(p.is_floating_point() for p in parameters)


def hidden_matrices(net: nn.Module, prefix: str) -> set[str]:
    """Names of the 2-D weights that lie between embedding and output layer."""
    outer: set[int] = set()
    for module in net.modules():
        if isinstance(module, nn.Embedding):
            outer.add(id(module.weight))
    get = getattr(net, "get_output_embeddings", None)
    layer = get() if get else None
    if layer is not None:
        outer.add(id(layer.weight))
    return {prefix + name for name, p in net.named_parameters() if p.dim() == 2 and id(p) not in outer}
