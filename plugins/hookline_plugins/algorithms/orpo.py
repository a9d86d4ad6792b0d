"""Odds-ratio preference optimisation (Hong et al. 2024): fine-tuning and preference learning at once, without a reference.

    L = −l̄_w − λ log σ(log odds_w − log odds_l),   log odds = l̄ − log(1 − exp l̄),   l̄ = mean over tokens of log π

For an answer of probability near 1, l̄ is near 0 and 1 − exp l̄ loses all digits. It is therefore computed as −expm1(l̄), and
exp l̄ is bounded by 1 − 1e-6. Healthy: `nll` falls as in fine-tuning, while `margin` (the log odds ratio) and `accuracy` rise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from hookline import Loss, Metric, MicroBatch, Scored, UpdateConfig
from hookline_plugins.algorithms.comparisons import Comparing, answer_logprob, comparisons, mean


class ORPO(Comparing):
    """Maximise the likelihood of the chosen answer, and its odds against the rejected one."""

    metrics: Sequence[Metric] = (
        *Comparing.metrics,
        Metric("nll", "mean over comparisons of −l̄ of the chosen answer", "nats per token", better="lower"),
    )

    class Config(UpdateConfig):
        usual_lr: ClassVar[float] = 5e-6
        synonyms: ClassVar[Mapping[str, str]] = {"beta": "odds_weight"}
        odds_weight: float = Field(0.1, ge=0)
        """λ, the weight of the preference term. 0 is fine-tuning on the chosen answers."""

    held_out_figures = (*Comparing.held_out_figures, "nll")

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        logprobs_BT = mb.stats(support="whole").logprobs_BT
        logprob_B = answer_logprob(logprobs_BT, mb.batch.mask_BT, "mean")
        odds_B = log_odds(logprob_B)
        found = comparisons(mb.batch)
        h, p = odds_B[found.chosen] - odds_B[found.rejected], found.preferred
        self.watch(mb, found, logprobs_BT, h)
        likely = p * logprob_B[found.chosen] + (1 - p) * logprob_B[found.rejected]
        nll = mean(mb, found, -likely)
        mb.log("nll", nll)
        total: Loss = nll + mean(mb, found, p * softplus(-h) + (1 - p) * softplus(h)) * self.config.odds_weight
        return total


def log_odds(logprob: Tensor) -> Tensor:
    """log p/(1 − p) from log p, exact at both ends; p is bounded by 1 − 1e-6."""
    logprob = logprob.clamp(max=-1e-6)
    return logprob - torch.log(-torch.expm1(logprob))
