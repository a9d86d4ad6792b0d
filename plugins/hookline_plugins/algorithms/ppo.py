"""Proximal policy optimisation (Schulman et al. 2017) with a critic, as in RLHF (Stiennon et al. 2020).

Policy, eq. 7, mean over tokens:     −min(ρ A, clip(ρ, 1 ± clip_range) A),   ρ = exp(log π(a|s) − log π_old(a|s))
Critic, clipped as the policy is:    ½ max((V − R)², (V_clip − R)²),          V_clip = V_old + clip(V − V_old, ± value_clip)

The critic learns where the advantage brings returns (`gae` does); with one that does not, such as leave-one-out, there is
no critic and no second line. π_old is the policy before the first epoch, recomputed here rather than taken from the
sampler, so that the first ratio is 1 up to rounding. Healthy: `clip_fraction` below 0.2, `approx_kl` below 0.05,
`explained_variance` rising towards 1.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hookline import Advantaged, Component, Context, Loss, Metric, MicroBatch, UpdateConfig, hookimpl


class PPO(Component):
    """Clipped policy gradient, with a learned value for every token where the advantage asks for one."""

    needs = frozenset({"behaviour"})
    gives = frozenset({"critic"})
    takes = Advantaged
    metrics = (
        Metric("policy_loss", "mean over tokens of −min(ρA, clip(ρ)A)"),
        Metric("value_loss", "mean over tokens of ½ max((V−R)², (V_clip−R)²)"),
        Metric("clip_fraction", "share of tokens whose ratio left 1 ± clip_range", healthy=(0.0, 0.4)),
        Metric(
            "approx_kl",
            "mean over tokens of ρ − 1 − log ρ: KL of the old policy to the new",
            "nats",
            healthy=(0.0, 0.2),
        ),
        Metric("entropy", "mean over tokens of the policy's entropy", "nats", healthy=(0.01, 20.0)),
        Metric("explained_variance", "1 − var(R − V) / var(R) over tokens, before the update", healthy=(-1.0, 1.0)),
        Metric("behaviour_gap", "mean over tokens of exp|log π_old − log π_sampler|", healthy=(0.0, 1.05)),
    )

    class Config(UpdateConfig):
        clip_range: float = Field(0.2, gt=0, lt=1)
        """How far a ratio may leave 1 and still be followed. Small is safe and slow."""
        value_clip: float = Field(0.2, gt=0)
        """The same for the critic, in units of reward."""
        value_weight: float = Field(0.5, ge=0)
        """Weight of the critic's loss."""
        entropy_bonus: float = Field(0.0, ge=0)
        """Weight of the entropy, paid; large keeps the policy random."""
        critic_lr: float | None = Field(None, gt=0, le=1)
        """Learning rate of a separate critic; default: `lr`. A critic usually bears, and needs, a larger one."""
        critic: Literal["separate", "shared"] = "separate"
        """`separate`: a copy of the policy with a value head. `shared`: a value head on the policy's own trunk."""

        def lr_of(self, role: str) -> float:
            return self.critic_lr or self.lr if role == "critic" else self.lr

    def setup(self, ctx: Context) -> None:
        self.learns_value = {"value_BT", "return_BT"} <= ctx.given
        if self.learns_value:
            shared = self.config.critic == "shared"
            ctx.head("value", value_head, role="policy" if shared else ctx.role("critic").name)

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Advantaged) -> None:
        old_BT, mask = ctx.stats(batch).logprobs_BT, batch.mask_BT
        assert batch.behaviour is not None
        ctx.log("behaviour_gap", ctx.mean((old_BT - batch.behaviour.logprobs_BT)[mask].abs().exp()), int(mask.sum()))
        if self.learns_value and bool(mask.any()):
            returns, values = batch.extra["return_BT"][mask], batch.extra["value_BT"][mask]
            spread = float(returns.var(correction=0))
            if spread > 0:
                ctx.log("explained_variance", 1 - float((returns - values).var(correction=0)) / spread)
        ctx.train(batch.with_extra(old_logprobs_BT=old_BT), self.loss)

    def loss(self, mb: MicroBatch[Advantaged]) -> Loss:
        c, shared = self.config, self.learns_value and self.config.critic == "shared"
        stats = mb.stats(want=("logprobs", "entropy", "value") if shared else ("logprobs", "entropy"))
        log_ratio = torch.where(mb.batch.mask_BT, stats.logprobs_BT - mb["old_logprobs_BT"], 0.0)
        ratio = log_ratio.exp()
        policy = mb.token_mean(policy_loss(ratio, mb.batch.advantage_BT, c.clip_range))
        entropy = mb.token_mean(stats.entropy_BT)
        mb.log("policy_loss", policy)
        mb.log("entropy", entropy)
        mb.log("clip_fraction", mb.token_mean(((ratio - 1).abs() > c.clip_range).float()))
        mb.log("approx_kl", mb.token_mean(ratio - 1 - log_ratio))
        total: Loss = policy - entropy * c.entropy_bonus
        if self.learns_value:
            value_BT = stats["value"] if shared else mb.stats("critic", want=("value",))["value"]
            value = mb.token_mean(value_loss(value_BT, mb["value_BT"], mb["return_BT"], c.value_clip))
            mb.log("value_loss", value)
            total = total + value * c.value_weight
        return total


def policy_loss(ratio: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """Per token: −min(ρA, clip(ρ, 1 ± ε)A)."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def value_loss(value: Tensor, old_value: Tensor, returns: Tensor, clip: float) -> Tensor:
    """Per token: ½ max((V−R)², (V_clip−R)²)."""
    clipped = old_value + (value - old_value).clamp(-clip, clip)
    return 0.5 * torch.maximum((value - returns).square(), (clipped - returns).square())


def value_head(hidden_size: int) -> nn.Module:
    """A linear value that starts at 0 everywhere."""
    head = nn.Linear(hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
