"""Heads: numbers computed from the hidden states of a trunk."""

from __future__ import annotations

from pydantic import Field, field_validator
from torch import nn

import hookline
from hookline import Head


class Named(nn.Linear):
    """A linear layer whose outputs have names."""

    names: tuple[str, ...] = ()


class RewardHead(Head):
    """One number per token, or several with names, from the hidden state after it. The number at the last token is the answer's reward."""

    reads = "after"

    class Config(hookline.Config):
        std: float = Field(0.01, ge=0)
        """Standard deviation of the initial weights; 0 starts with reward 0 everywhere."""

        outputs: tuple[str, ...] = ()
        """Names of several numbers: attributes, e.g. [helpful, correct], members of an ensemble, or tastes, as the update says."""

        @field_validator("outputs")
        @classmethod
        def _several_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            if len(value) == 1 or len(set(value)) < len(value) or not all(value):
                raise ValueError("names several outputs, each once; leave it out for one output")
            return value

    def build(self, hidden_size: int) -> nn.Module:
        layer = Named(hidden_size, max(1, len(self.config.outputs)))
        layer.names = self.config.outputs
        nn.init.normal_(layer.weight, std=self.config.std)
        nn.init.zeros_(layer.bias)
        return layer
