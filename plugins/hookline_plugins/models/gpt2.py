"""GPT-2 (Radford et al. 2019), newly initialised."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

import hookline
from hookline import Architecture, Vocabulary


class GPT2(Architecture):
    """transformers' GPT2LMHeadModel; dropout is off, so that a gradient does not depend on how rows are split."""

    class Config(hookline.Config):
        layers: int = Field(4, ge=1)
        """Transformer blocks."""
        width: int = Field(256, ge=8)
        """Size of the hidden states."""
        heads: int | None = Field(None, ge=1)
        """Attention heads; default: width / 64, at least 1."""
        context: int = Field(256, ge=8)
        """Maximum number of positions."""

        @model_validator(mode="after")
        def _divides(self) -> GPT2.Config:
            if self.width % self.attention_heads:
                raise ValueError(f"width {self.width} is not a multiple of its {self.attention_heads} heads")
            return self

        @property
        def attention_heads(self) -> int:
            return self.heads or max(1, self.width // 64)

    def build(self, tokenizer: Vocabulary) -> Any:
        from transformers import GPT2Config, GPT2LMHeadModel

        c = self.config
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=tokenizer.vocabulary,
                n_positions=c.context,
                n_embd=c.width,
                n_layer=c.layers,
                n_head=c.attention_heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                activation_function="gelu_pytorch_tanh",  # the same curve as gelu_new, in one fused pass
                **tokenizer.special,
            )
        )
