"""The part that all policy gradients share. Each algorithm overrides only the few methods in which it differs.

    maximise   mean over actions of  objective(ρ, A),        ρ = exp(log π(action) − log π_old(action))
    with       objective = ρ A,   whose gradient at ρ = 1 is A ∇log π: the policy gradient theorem

An algorithm defines the advantage A (`advantage`), the objective (`objective`), and how it is averaged (`average`). When the phase
names an `advantage` component, that component provides A instead. π_old is the policy before the first optimiser step on these
rows. It is recomputed here instead of taken from the sampler, so that the first ratio is exactly 1.

An action is a token, or with `macro` several tokens (MA-RLHF, Chai et al. 2025, arXiv:2410.02743). The log-ratio of an action is
the sum over its tokens, and its advantage is that of its first token.

`kl_loss` adds β·KL to the loss, estimated on the drawn tokens by `kl_estimator`, with u = log π_ref − log π (Schulman 2020,
"Approximating KL divergence"). As a loss, k2 = ½u² has the gradient of KL(π‖π_ref); k3 = eᵘ − 1 − u, which GRPO uses, has the
gradient of KL(π_ref‖π); k1 = −u has a gradient of 0 on average and is refused. `wrap: kl-penalty` puts the price into the reward.

Healthy: `clip_fraction` is below .2 and `approx_kl` below .05 (both are 0 where a rollout is used for one optimiser step);
`behaviour_gap` is near 1 (a larger value means that sampler and trainer disagree about the policy); `entropy` falls slowly, not
at once. `policy_loss` is always near 0 and does not measure progress: look at `reward`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

import hookline
from hookline import (
    Advantaged,
    Component,
    Context,
    ExperimentError,
    Loss,
    Metric,
    MicroBatch,
    Scored,
    Stats,
    UpdateConfig,
    hookimpl,
    kernels,
)
from hookline_plugins import maths

Minibatch = MicroBatch[Advantaged]


class Macro(hookline.Config):
    """The tokens that form one action."""

    kind: Literal["ngram", "random", "perplexity", "answer"] = "ngram"
    """`ngram`: n tokens; `random`: 1 to n; `perplexity`: up to n, while each lowers the macro's perplexity; `answer`: all."""
    n: int = Field(1, ge=1)
    """Tokens per macro, or the maximum. With 1 every token is an action; large makes few, coarse decisions."""


class PolicyGradient(Component):
    """Base class: computes old log-probs, ratios, KL, entropy and figures. A subclass overrides the small methods."""

    needs = frozenset({"before", "behaviour"})
    claims = property(lambda self: {"kl"} if self.config.kl_loss else set())
    promises = frozenset({"reinforce"})
    takes = Advantaged
    metrics: Sequence[Metric] = (
        Metric("policy_loss", "minus the mean over actions of the objective"),
        Metric("entropy", "mean over tokens of the policy's entropy", "nats", healthy=(0.01, 20.0)),
        Metric("clip_fraction", "share of actions whose ratio is clipped", healthy=(0.0, 0.4)),
        Metric(
            "approx_kl",
            "mean over actions of ρ − 1 − log ρ: KL of the old policy to the new",
            "nats",
            healthy=(0.0, 0.2),
        ),
        Metric("behaviour_gap", "mean over tokens of exp|log π_old − log π_sampler|", healthy=(0.0, 1.05)),
        Metric("kl_loss", "mean over actions of the KL estimate in the loss, before its weight", "nats"),
    )

    class Config(UpdateConfig):
        entropy_bonus: float = Field(0.0, ge=0)
        """Weight of the entropy bonus. Large keeps the policy random."""
        kl_loss: float = Field(0.0, ge=0)
        """β, the price in the loss of each nat away from the reference. Large keeps the policy near it; 0 needs no reference."""
        kl_estimator: Literal["k2", "k3"] = "k2"
        """`k2` has the gradient of KL(π‖π_ref), `k3` that of KL(π_ref‖π), which is larger where π is far from the reference."""
        macro: Macro | None = None
        """Several tokens as one action, e.g. {kind: ngram, n: 5}. Long macros make coarse decisions; none: each token is one."""

        @field_validator("kl_estimator", mode="before")
        @classmethod
        def _k1_has_no_gradient(cls, value: Any) -> Any:
            if value == "k1":
                raise ValueError(
                    "is k1, whose gradient as a loss is 0 on average, so it would only add noise; "
                    "use k2, or price k1 inside the reward: wrap: kl-penalty"
                )
            return value

    # -- the methods in which algorithms differ

    def advantage(self, ctx: Context, scored: Scored) -> Tensor:
        """How much better than expected each row [B] or token [B, T] was."""
        raise NotImplementedError

    def objective(self, ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        """The objective of each action, which is maximised."""
        return ratio_BT * advantage_BT

    def outside(self, ratio_BT: Tensor) -> Tensor | None:
        """Which ratios the objective clips, for the figures; None: it clips none."""
        return None

    def average(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        """The average of a figure over actions; here every action of the optimiser step has the same weight."""
        return self.action_mean(mb, x_BT)

    def select(self, ctx: Context, batch: Advantaged) -> Advantaged:
        """The rows to learn from."""
        return batch

    def joined(self, x_BT: Tensor, mb: Minibatch) -> Tensor:
        """Log-ratios (or KL) of actions: the sum over an action's tokens, placed on its first token."""
        return x_BT if self.config.macro is None else maths.segment_sum(x_BT, self.acts(mb), mb.batch.mask_BT)

    # -- the part that algorithms share

    def setup(self, ctx: Context) -> None:
        if self.config.kl_loss:
            ctx.role("reference", frozen=True)
        if "greedy" in ctx.given and "greedy" not in self.needs:
            raise ExperimentError(
                f"'{self.instance}' would learn from greedy answers as if they were sampled",
                "leave out greedy: true, or use an update that uses them as a baseline (remax)",
            )
        if "opponent_B" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' would learn from an opponent's answers as if the policy had drawn them",
                "use rollout: generate, or an update that tells them apart (nash-md, xpo, dpo)",
            )
        if "paused" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' treats a paused episode as finished and would not bootstrap from its last state",
                "play whole episodes (turns: 0), or use an update that looks ahead (sarsa, q-learning)",
            )
        macro = self.config.macro
        if macro and (macro.n > 1 or macro.kind == "answer") and "token-weights" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' has actions of several tokens, and weights per token would correct only the first token of each",
                "set level: sequence for importance-weights",
            )

    @hookimpl
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        return scored.advantaged(self.advantage(ctx, scored))

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Advantaged) -> None:
        batch = self.prepared(ctx, batch)
        ctx.train(batch, self.loss)

    def prepared(self, ctx: Context, batch: Advantaged) -> Advantaged:
        """The rows to learn from, with the columns that the loss reads."""
        if self.config.macro:
            batch = batch.with_extra(act_BT=self.actions(ctx, batch).float())
        batch = self.select(ctx, batch)
        if self.config.epochs * self.config.minibatches > 1:  # else the old policy is the one that is being trained
            batch = batch.with_extra(old_logprobs_BT=ctx.stats(batch, support="kept").logprobs_BT)
        if self.config.kl_loss:
            reference = ctx.stats(batch, model="reference", support="whole")
            batch = batch.with_extra(ref_logprobs_BT=reference.logprobs_BT)
        return batch

    def actions(self, ctx: Context, batch: Scored) -> Tensor:
        """True on the first token of each action."""
        macro, mask = self.config.macro, batch.mask_BT
        match macro and macro.kind:
            case None:
                return mask
            case "ngram":
                return maths.macro_ngram(mask, macro.n)
            case "random":
                return maths.macro_random(mask, macro.n, [ctx.rng("macro", i) for i in batch.sample_B.tolist()])
            case "perplexity":
                return maths.macro_perplexity(ctx.stats(batch, support="whole").logprobs_BT, mask, macro.n)
            case _:
                return maths.first_true(mask)

    def acts(self, mb: Minibatch) -> Tensor:
        """True on the first token of each action of a micro-batch."""
        return mb.batch.mask_BT if self.config.macro is None else mb["act_BT"] != 0

    def action_mean(self, mb: Minibatch, x_BT: Tensor) -> Loss:
        return mb.token_mean(x_BT) if self.config.macro is None else mb.mean_over("act_BT", x_BT)

    def loss(self, mb: Minibatch) -> Loss:
        return self.policy_loss(mb, mb.stats(want=("logprobs", "entropy"), support="kept"))

    def policy_loss(self, mb: Minibatch, stats: Stats) -> Loss:
        c, batch, mask = self.config, mb.batch, mb.batch.mask_BT
        old_BT = batch.extra.get("old_logprobs_BT", stats.logprobs_BT.detach())
        log_ratio_BT = self.joined(maths.log_ratio(stats.logprobs_BT, old_BT, mask), mb)
        ratio_BT = maths.bounded_exp(log_ratio_BT)
        policy = -self.average(mb, self.objective(ratio_BT, batch.advantage_BT))
        entropy = mb.token_mean(stats.entropy_BT)
        total: Loss = policy - entropy * c.entropy_bonus if c.entropy_bonus else policy
        if c.kl_loss:
            estimate_BT = kernels.kl_estimate(stats.logprobs_BT, mb["ref_logprobs_BT"], estimator=c.kl_estimator)
            kl = self.average(mb, self.joined(torch.where(mask, estimate_BT, 0.0), mb))
            total = total + kl * c.kl_loss
            mb.log("kl_loss", kl)
        with torch.no_grad():
            outside_BT = self.outside(ratio_BT)
            mb.log("policy_loss", policy)
            mb.log("entropy", entropy)
            mb.log("approx_kl", self.action_mean(mb, ratio_BT - 1 - log_ratio_BT))
            if outside_BT is not None:
                mb.log("clip_fraction", self.action_mean(mb, outside_BT.float()))
            if batch.behaviour is not None:
                mb.log("behaviour_gap", mb.token_mean((old_BT - batch.behaviour.logprobs_BT).abs().exp()))
        return total


class Clipped(PolicyGradient):
    """The clipped ratio of PPO (Schulman et al. 2017, eq. 7): min(ρA, clip(ρ, 1 − clip_range, 1 + clip_high) A)."""

    class Config(PolicyGradient.Config):
        clip_range: float = Field(0.2, gt=0, lt=1)
        """How far a ratio may move from 1 before it is clipped. Small is safe and slow."""
        clip_high: float | None = Field(None, gt=0)
        """How far a ratio may rise above 1; default: `clip_range`. Larger lets rare tokens grow and keeps the entropy high."""

        @property
        def high(self) -> float:
            return self.clip_range if self.clip_high is None else self.clip_high

    def objective(self, ratio_BT: Tensor, advantage_BT: Tensor) -> Tensor:
        return maths.clipped(ratio_BT, advantage_BT, self.config.clip_range, self.config.high)

    def outside(self, ratio_BT: Tensor) -> Tensor | None:
        low, high = 1 - self.config.clip_range, 1 + self.config.high
        gone: Tensor = (ratio_BT < low) | (ratio_BT > high)
        return gone


class ActorCritic(PolicyGradient):
    """A policy gradient with a critic: the advantage is GAE over the critic's values, and the critic learns the returns.

    When the phase names another advantage, the critic learns only if that advantage adds `value_BT` and `return_BT`, as `gae` does.
    """

    gives = frozenset({"critic"})
    metrics = (
        *PolicyGradient.metrics,
        Metric("value_loss", "mean over actions of the critic's loss, ½(V−R)² or its clipped form"),
        Metric(
            "explained_variance",
            "1 − var(R − V) / var(R) over actions, before the update",
            healthy=(-1.0, 1.0),
            better="higher",
        ),
    )

    class Config(PolicyGradient.Config):
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount per action. 1.0 is usual for one-turn text; lower values prefer early reward."""
        lam: float = Field(0.95, ge=0, le=1)
        """0 is one-step TD (biased, quiet), 1 is Monte Carlo (unbiased, noisy)."""
        value_weight: float = Field(0.5, ge=0)
        """Weight of the critic's loss."""
        critic_lr: float | None = Field(None, gt=0, le=1)
        """Learning rate of a separate critic; default: `lr`, or ten times as much where `lr` is left out and the model is a
        folder's. A critic usually tolerates, and needs, a larger one."""
        critic: Literal["separate", "shared"] = "separate"
        """`separate`: a copy of the policy with a value head. `shared`: a value head on the policy's own trunk."""

        def usual(self, *, adapter: bool) -> dict[str, Any]:
            found = super().usual(adapter=adapter)
            own = self.critic == "separate" and "lr" not in self.model_fields_set
            return {**found, "critic_lr": float(f"{10 * found['lr']:.3g}")} if own else found

        def lr_of(self, role: str) -> float:
            return self.critic_lr or self.lr if role == "critic" else self.lr

    def value_loss(self, value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor) -> Tensor:
        """The critic's loss of each action."""
        return 0.5 * (value_BT - return_BT).square()

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.learns_value = ctx.brings_advantage or {"value_BT", "return_BT"} <= ctx.given
        self.shared = self.learns_value and self.config.critic == "shared"
        if self.learns_value:
            ctx.head("value", value_head, role="policy" if self.shared else ctx.role("critic").name)

    @hookimpl
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        first_BT, mask = self.actions(ctx, scored), scored.mask_BT
        value_BT = ctx.stats(scored, model="policy" if self.shared else "critic", want=("value",))["value"]
        reward_BT = scored.reward_BT
        if self.config.macro:
            reward_BT = maths.segment_sum(reward_BT, first_BT, mask)
        rows = scored.episode_B, scored.sample_B
        advantage_BT, return_BT = maths.gae(
            reward_BT, value_BT, first_BT, *rows, gamma=self.config.gamma, lam=self.config.lam
        )
        advantage_BT = torch.where(first_BT, advantage_BT, 0.0)
        if self.config.macro:
            advantage_BT = maths.segment_spread(advantage_BT, first_BT, mask)
        return scored.advantaged(advantage_BT, value_BT=value_BT, return_BT=torch.where(first_BT, return_BT, 0.0))

    def prepared(self, ctx: Context, batch: Advantaged) -> Advantaged:
        batch = super().prepared(ctx, batch)
        acts = batch.extra["act_BT"] != 0 if self.config.macro else batch.mask_BT
        if self.learns_value:
            returns, values = batch.extra["return_BT"][acts].double(), batch.extra["value_BT"][acts]
            spread = variance(ctx, returns)
            unexplained = variance(ctx, returns - values)
            if spread > 0:
                ctx.log("explained_variance", 1 - unexplained / spread)
        return batch

    def loss(self, mb: Minibatch) -> Loss:
        want = ("logprobs", "entropy", "value") if self.shared else ("logprobs", "entropy")
        stats = mb.stats(want=want, support="kept")
        total = self.policy_loss(mb, stats)
        if self.learns_value:
            value_BT = stats["value"] if self.shared else mb.stats("critic", want=("value",))["value"]
            value = self.action_mean(mb, self.value_loss(value_BT, mb["value_BT"], mb["return_BT"]))
            mb.log("value_loss", value)
            total = total + value * self.config.value_weight
        return total


def variance(ctx: Context, x: Tensor) -> float:
    """The variance over all ranks."""
    return ctx.mean((x - ctx.mean(x)).square())


def value_head(hidden_size: int) -> nn.Module:
    """A linear value head that starts at 0 everywhere."""
    head = nn.Linear(hidden_size, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head
