"""Heads: numbers computed from the hidden states of a trunk."""

from __future__ import annotations

from pydantic import Field
from torch import nn

import hookline
from hookline import Head


class RewardHead(Head):
    """One number per token, from the hidden state after it. The number at the last token is the answer's reward."""

    reads = "after"

    class Config(hookline.Config):
        std: float = Field(0.01, ge=0)
        """Standard deviation of the initial weights; 0 starts with reward 0 everywhere."""

    def build(self, hidden_size: int) -> nn.Module:
        layer = nn.Linear(hidden_size, 1)
        nn.init.normal_(layer.weight, std=self.config.std)
        nn.init.zeros_(layer.bias)
        return layer
