"""docs/sizes.md counts bytes as they are: of weights, gradients, copies and moments of a small network and its optimiser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hookline import UpdateConfig
from hookline.training.optim import Optimiser

PAGE = (Path(__file__).resolve().parents[2] / "docs/sizes.md").read_text(encoding="utf-8")
SHOWN = dict(re.findall(r"^\| ([^|]+) \| (\d+)(?:,[^|]*)? \|", PAGE, re.MULTILINE))


def bytes_per_weight(kind: Any, dtype: torch.dtype) -> float:
    """What stays in memory between the backward pass and the optimiser's step, per weight."""
    weight = nn.Parameter(torch.randn(256, 256, dtype=dtype))
    optimiser = Optimiser(UpdateConfig(optimizer=kind, lr=1e-3), {"policy/weight": weight}, set())
    for _ in range(2):
        weight.grad = torch.ones_like(weight)
        optimiser.step(1.0)
    weight.grad = torch.ones_like(weight)
    states = [value for part in optimiser.parts for state in part.state.values() for value in state.values()]
    held = [weight, weight.grad, *optimiser.masters.values(), *(s for s in states if torch.is_tensor(s) and s.dim())]
    return sum(t.numel() * t.element_size() for t in held) / weight.numel()


@pytest.mark.parametrize(
    ("row", "kind", "dtype"),
    [
        ("trained, `dtype: float32`, adamw or muon's AdamW part", "adamw", torch.float32),
        ("trained, `dtype: bfloat16`, adamw", "adamw", torch.bfloat16),
        ("trained, float32, `optimizer: sgd`", "sgd", torch.float32),
    ],
)
def test_a_trained_weight_takes_what_the_page_says(row: str, kind: str, dtype: torch.dtype) -> None:
    assert bytes_per_weight(kind, dtype) == int(SHOWN[row])


def test_every_option_that_the_page_names_exists() -> None:
    from hookline.config.experiment import ModelSpec

    table = PAGE.partition("| option | memory")[2].partition("\n\n")[0]
    for owner, option in re.findall(r"`(update|model): \{(\w+):", table):
        fields = UpdateConfig.model_fields if owner == "update" else ModelSpec.model_fields
        assert option in fields
