"""Llama (Touvron et al. 2023), newly initialised: rotary positions, RMS norm, gated MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

import hookline
from hookline import Architecture, Vocabulary


class Llama(Architecture):
    """transformers' LlamaForCausalLM."""

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"intermediate_size": "mlp", "ffn_dim": "mlp", "tie_word_embeddings": "tie"}
        layers: int = Field(4, ge=1)
        """Transformer blocks."""
        width: int = Field(256, ge=8)
        """Size of the hidden states."""
        heads: int = Field(4, ge=1)
        """Attention heads."""
        mlp: int | None = Field(None, ge=8)
        """Size of the gated MLP; default: 8/3 of the width."""
        context: int = Field(256, ge=8)
        """Maximum number of positions."""
        tie: bool = True
        """One matrix for input and output embeddings."""

        @model_validator(mode="after")
        def _divides(self) -> Llama.Config:
            if self.width % (2 * self.heads):
                raise ValueError(f"width {self.width} is not a multiple of twice its {self.heads} heads")
            return self

    def build(self, tokenizer: Vocabulary) -> Any:
        from transformers import LlamaConfig, LlamaForCausalLM

        c = self.config
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=tokenizer.vocabulary,
                max_position_embeddings=c.context,
                hidden_size=c.width,
                num_hidden_layers=c.layers,
                num_attention_heads=c.heads,
                intermediate_size=c.mlp or 8 * c.width // 3,
                tie_word_embeddings=c.tie,
                **tokenizer.special,
            )
        )
