"""Soft overlong punishment (DAPO, Yu et al. 2025, eq. 13): a price on the last tokens before the limit.

Tokens |y|:   0 up to longest − buffer,   then ((longest − buffer) − |y|) / buffer,   −1 beyond `longest`.

It is added to the task's reward with its `weight`, so that the policy learns to end an answer before it is cut. Set `longest` to
the rollout's `max_new_tokens`. Healthy: near 0 once `truncated` is near 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator

import hookline
from hookline import Component, Rollout, hookimpl


class Overlong(Component):
    """From 0 down to −1 over the last `buffer` tokens."""

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "overlong_buffer_len": "buffer", "overlong_buffer_length": "buffer", "soft_cache_length": "buffer", "len": "buffer",
            "soft_max_length": "longest", "max_resp_len": "longest", "max_response_length": "longest",
        }  # fmt: skip
        longest: int = Field(ge=1)
        """Number of tokens at which the penalty reaches 1."""
        buffer: int = Field(ge=1)
        """Number of tokens over which the penalty grows. Large starts early and grows slowly."""

        @model_validator(mode="after")
        def _fits(self) -> Self:
            if self.buffer > self.longest:
                raise ValueError(
                    f"has a buffer of {self.buffer} tokens, which is more than its longest answer of {self.longest}"
                )
            return self

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        c = self.config
        tokens_B = rollout.mask_BT.sum(1).float()
        priced: torch.Tensor = ((c.longest - c.buffer - tokens_B) / c.buffer).clamp(-1, 0)
        return priced
