"""Heads: numbers read off a trunk."""

from __future__ import annotations

from pydantic import Field
from torch import nn

import hookline
from hookline import Head


class RewardHead(Head):
    """One number per token, from the state after it: the last token's is the answer's reward."""

    reads = "after"

    class Config(hookline.Config):
        std: float = Field(0.01, ge=0)
        """Spread of the initial weights; 0 starts with reward 0 everywhere."""

    def build(self, hidden_size: int) -> nn.Module:
        layer = nn.Linear(hidden_size, 1)
        nn.init.normal_(layer.weight, std=self.config.std)
        nn.init.zeros_(layer.bias)
        return layer
