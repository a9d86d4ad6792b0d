"""Supervised fine-tuning: next-token prediction of the answer only (the mask excludes the prompt)."""

from __future__ import annotations

from typing import ClassVar

from hookline_plugins.algorithms.causal_lm import CausalLM


class SFT(CausalLM):
    """`causal-lm` on rows of prompt and answer, under a name of its own that makes an experiment easier to read."""

    class Config(CausalLM.Config):
        usual_lr: ClassVar[float] = 2e-5
