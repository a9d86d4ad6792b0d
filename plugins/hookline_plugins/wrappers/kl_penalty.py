"""A price on the KL to the reference, subtracted from the reward of each token: r_t − β k(log π(a_t|s_t) − log π_ref(a_t|s_t)).

The price is part of the reward: it is a number without gradient, and the algorithm treats it like any other reward. With
d = log π − log π_ref the estimators are k1 = d, k2 = d²/2, k3 = exp(−d) − 1 + d (Schulman, "Approximating KL divergence", 2020).

|    | as a number              | in the reward, the policy gradient is                   | as a loss, the gradient is   |
|----|--------------------------|---------------------------------------------------------|------------------------------|
| k1 | unbiased, of either sign | ∇KL(π‖π_ref), exactly                                   | 0 on average, so useless     |
| k2 | biased, ≥ 0              | neither; almost nothing while π is near π_ref           | ∇KL(π‖π_ref)                 |
| k3 | unbiased, ≥ 0            | ∇KL(π‖π_ref) − ∇KL(π_ref‖π): almost nothing near π_ref  | ∇KL(π_ref‖π), another goal   |

With top-k or top-p, π is the truncated policy that draws and π_ref has its whole vocabulary, so the KL is above 0 from the start:
what the truncation moves also counts. k3 is then too low, per token by the reference's probability of the tokens left out.
Therefore use k1 here. A KL term in the loss (such as `kl_loss`) would price the KL a second time; use only one of them in a phase.
With `target`, β follows the controller of Ziegler et al. (2019, §2.2): e = clip(KL/target − 1, ±0.2),
β ← β (1 + e · rows / horizon). The KL that is logged and that the controller reads is always the k1 estimate.
Healthy: `kl` grows from 0 and levels off; if it stays below 0, the rows were not drawn by the policy.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Metric, Rollout, Scored, hookimpl, kernels


class KLPenalty(Component):
    """Wraps the score. β is fixed, or steered so that the KL per answer stays near a target."""

    needs = frozenset({"before", "behaviour"})
    gives = frozenset({"role:reference"})
    claims = frozenset({"kl"})
    metrics = (
        Metric(
            "kl",
            "mean over drawn rows of Σ_t (log π − log π_ref) to the reference, before the update",
            "nats per answer",
        ),
        Metric("kl_coefficient", "β, the price of each nat"),
    )

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "kl_target": "target", "target_kl": "target", "adap_kl_ctrl": "target", "kl_penalty": "estimator", "kl_estimator": "estimator",
        }  # fmt: skip

        beta: float = Field(0.1, ge=0)
        """Price of each nat, or its initial value with `target`. Large keeps the policy near the reference."""
        estimator: Literal["k1", "k2", "k3"] = "k1"
        """The KL estimator. k1 is exact in the reward; k2 and k3 are never negative and have almost no effect near the reference."""
        target: float | None = Field(None, gt=0)
        """The KL per answer, in nats, that the controller maintains; none: β is constant."""
        least: float = Field(0.0, ge=0)
        """The minimum of β. If it equals `beta`, the controller can only raise β, and the target is an upper limit."""
        horizon: float = Field(10_000, gt=0)
        """Number of rows over which β changes by at most a fifth. Small reacts fast and oscillates."""

    def __init__(self, config: hookline.Config) -> None:
        super().__init__(config)
        self.beta = self.config.beta

    def setup(self, ctx: Context) -> None:
        ctx.role("reference", frozen=True)

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        own_BT = ctx.stats(scored).logprobs_BT
        reference_BT = ctx.stats(scored, model="reference").logprobs_BT
        k1_BT = torch.where(scored.mask_BT, own_BT - reference_BT, 0.0)
        drawn_B = torch.tensor(
            [source != "greedy" for source in scored.source], dtype=torch.bool
        )  # a greedy answer gives no estimate of the KL
        kl, rows = ctx.mean(k1_BT.sum(1)[drawn_B]), ctx.sum(drawn_B)
        kl_BT = k1_BT
        if self.config.estimator != "k1":
            estimated_BT = kernels.kl_estimate(own_BT, reference_BT, estimator=self.config.estimator)
            kl_BT = torch.where(scored.mask_BT, estimated_BT, 0.0)
        ctx.log("kl", kl, rows)  # rows and mean of all ranks
        ctx.log("kl_coefficient", self.beta)
        priced = scored.with_reward(scored.reward_BT - self.beta * kl_BT, kl_penalty=-self.beta * kl_BT.sum(1))
        if self.config.target is not None and rows:
            error = min(0.2, max(-0.2, kl / self.config.target - 1))
            self.beta = max(self.config.least, self.beta * (1 + error * min(1.0, rows / self.config.horizon)))
        return priced

    def state_dict(self) -> dict[str, Any]:
        return {"beta": self.beta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.beta = float(state["beta"])
