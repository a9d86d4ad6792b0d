"""A price on leaving the reference, paid per token inside the reward: r_t − β (log π(a_t|s_t) − log π_ref(a_t|s_t)).

The estimator is k1, which is unbiased as a number and carries no gradient here; as a loss its expected gradient would be
zero (Schulman, "Approximating KL divergence", 2020). With `target`, β follows the controller of Ziegler et al. (2019,
§2.2): e = clip(KL/target − 1, ±0.2), β ← β (1 + e · rows / horizon).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl


class KLPenalty(Component):
    """Stands around the score. Fixed β, or β steered so that the KL per answer stays near a target."""

    needs = frozenset({"behaviour"})
    metrics = (
        Metric(
            "kl", "mean over rows of Σ_t (log π − log π_ref) to the reference, before the update", "nats per answer"
        ),
        Metric("kl_coefficient", "β, the price of one nat"),
    )

    class Config(hookline.Config):
        beta: float = Field(0.1, ge=0)
        """Price of one nat, or where the controller starts. Large keeps the policy at the reference."""
        target: float | None = Field(None, gt=0)
        """KL per answer, in nats, that the controller holds; none: β stays."""
        least: float = Field(0.0, ge=0)
        """β never falls below this. At `beta` itself the controller only tightens, and the target is a limit, not an aim."""
        horizon: float = Field(10_000, gt=0)
        """Rows over which β moves by at most a fifth. Small reacts fast and swings."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.beta = self.config.beta

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        if not len(scored):
            return scored
        kl_BT = ctx.stats(scored).logprobs_BT - ctx.stats(scored, model="reference").logprobs_BT
        kl_BT = torch.where(scored.mask_BT, kl_BT, 0.0)
        kl = ctx.mean(kl_BT.sum(1))
        ctx.log("kl", kl, len(scored))
        ctx.log("kl_coefficient", self.beta)
        priced = scored.with_reward(scored.reward_BT - self.beta * kl_BT, kl_penalty=-self.beta * kl_BT.sum(1))
        if self.config.target is not None:
            error = min(0.2, max(-0.2, kl / self.config.target - 1))
            self.beta = max(self.config.least, self.beta * (1 + error * min(1.0, len(scored) / self.config.horizon)))
        return priced

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.beta = float(state["beta"])
