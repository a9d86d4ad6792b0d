"""SimPO (Meng et al. 2024): preference learning on the mean log-prob per token, with a margin and without a reference.

    L = −log σ(β (l̄_w − l̄_l) − γ),   l̄ = mean over tokens of log π

Only small steps keep the policy near its start. Healthy: `margin` (β (l̄_w − l̄_l)) rises above γ. Watch `chosen_logprob`: if it
falls for many steps, lower the learning rate or stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch.nn.functional import softplus

from hookline import Loss, MicroBatch, Scored, UpdateConfig
from hookline_plugins.algorithms.comparisons import Comparing, answer_logprob, comparisons, mean


class SimPO(Comparing):
    """Raise the mean log-prob per token of the preferred answer above that of the rejected one."""

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"simpo_gamma": "margin", "gamma": "margin"}
        beta: float = Field(2.0, gt=0)
        """Scale of the reward l̄. With a large value the loss saturates early, with a small one it continues to push."""
        margin: float = Field(1.0, ge=0)
        """γ: by how much the chosen answer should lead. Large also pushes comparisons that are already right."""

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        logprobs_BT = mb.stats(support="whole").logprobs_BT
        reward_B = self.config.beta * answer_logprob(logprobs_BT, mb.batch.mask_BT, "mean")
        found = comparisons(mb.batch)
        h, p, gamma = reward_B[found.chosen] - reward_B[found.rejected], found.preferred, self.config.margin
        self.watch(mb, found, logprobs_BT, h)
        return mean(mb, found, p * softplus(gamma - h) + (1 - p) * softplus(gamma + h))
