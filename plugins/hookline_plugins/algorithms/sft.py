"""Supervised fine-tuning: next-token prediction of the answer alone (the prompt lies outside the mask)."""

from __future__ import annotations

from hookline_plugins.algorithms.causal_lm import CausalLM


class SFT(CausalLM):
    """`causal-lm` on rows of prompt and answer; its own name, so that an experiment reads as what it does."""
