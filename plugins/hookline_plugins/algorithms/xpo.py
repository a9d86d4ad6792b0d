"""Exploratory preference optimisation (Xie et al. 2024): DPO on fresh comparisons, with an exploration bonus (optimism).

    L = L_DPO + α E[log π(ỹ)],   ỹ ~ π_ref

Lowering the probability of the reference's answers makes the policy try other answers. XPO needs comparisons of the policy's
answers with the reference's: rollout `duel` with `opponent: 1`. With α = 0 it is online DPO. Healthy: as for `dpo`, and
`optimism` (log-prob of the reference's answers) falls slowly; a fast fall means that α is too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from hookline import Loss, Metric, MicroBatch, Scored
from hookline_plugins.algorithms.comparisons import answer_logprob
from hookline_plugins.algorithms.dpo import DPO


class XPO(DPO):
    """Online DPO that explores answers which the reference would not give."""

    needs = DPO.needs | {"opponent_B"}
    metrics: Sequence[Metric] = (
        *DPO.metrics,
        Metric("optimism", "mean over the reference's answers of Σ_t log π", "nats per answer"),
    )

    class Config(DPO.Config):
        synonyms: ClassVar[Mapping[str, str]] = {**DPO.Config.synonyms, "alpha": "optimism"}
        optimism: float = Field(1e-3, ge=0)
        """α. Large explores more and pulls the policy away from the reference."""

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        theirs_B = answer_logprob(mb.stats(support="whole").logprobs_BT, mb.batch.mask_BT, "sum")
        optimism = mb.mean_over("opponent_B", theirs_B)
        mb.log("optimism", optimism)
        total: Loss = super().loss(mb) + optimism * self.config.optimism
        return total
