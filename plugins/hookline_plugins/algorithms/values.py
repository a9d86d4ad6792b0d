"""Shared by SARSA, Q-learning and ILQL: a head over the vocabulary that predicts Q(s, a), the value of every token a after s.

The loss ½ (target − Q)² moves it towards targets:

    target_t = r_t + γ ((1 − λ) next_{t+1} + λ target_{t+1})        (Sutton & Barto 2018, §12.1)

The algorithms differ in the value used as `next`: Q(s', a') of the action taken (SARSA), max_a Q(s', a) (Q-learning), or an
expectile V(s') (ILQL). λ = 0 looks one action ahead, λ = 1 waits for the end. On a `tabular` policy the head is an exact table, and
with `optimizer: sgd, reduce: sum, grad_clip: 1e9` the step is the textbook's Q ← Q + lr (target − Q).

The last action of a row may be chosen but not yet taken: `taken_BT` is 0 there. Its value is used as `next`, and it is not learned
from. Where a row declares its available actions (`actions_BT`), the max is over these actions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from hookline import Component, Context, Loss, Metric, MicroBatch, Scored, Stats, UpdateConfig, hookimpl, kernels
from hookline_plugins.guidance import q_head


class ValueLearner(Component):
    """Base class of the algorithms that learn values. A subclass defines `next_value`."""

    needs = frozenset({"before"})
    takes = Scored
    off_policy = True
    exempt = {"gradcheck": "a semi-gradient: targets are detached, so it is not the gradient of the loss"}
    q_heads: ClassVar[tuple[str, ...]] = ("q1",)
    metrics: Sequence[Metric] = (
        Metric("q_loss", "mean over actions of ½ (target − Q)², summed over Q heads; falls, then stays at the noise"),
        Metric("q_value", "mean over actions of Q(s, a); settles within the possible returns, or grows without limit if it diverges"),
        Metric("q_spread", "mean over actions of log Σ_a exp Q − Q(s, a), the conservative term; falls if it has weight"),
        Metric("nll", "mean over actions of −log π(a|s), if cloning has weight; as in cloning alone", "nats", better="lower"),
    )  # fmt: skip

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"tau": "polyak", "cql_alpha": "conservative", "cql_scale": "conservative"}
        usual_lr: ClassVar[float] = 1e-5
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount per action. Use 1 for episodes that end; lower values prefer early reward and make learning more stable."""
        lam: float = Field(0.0, ge=0, le=1)
        """0 looks one action ahead (biased, quiet), 1 waits for the end of the row (unbiased, noisy)."""
        conservative: float = Field(0.0, ge=0)
        """Weight of the cross-entropy of softmax Q against the action taken (CQL, Kumar et al. 2020). Large keeps untried
        actions below tried ones, and Q near log-likelihoods; 0 trusts Q where there are no data."""
        initial: float = 0.0
        """The initial Q. High explores untried actions (an optimistic start), low avoids them."""
        clone: float = Field(0.0, ge=0)
        """Weight of −log π(a|s), which keeps a policy that shares its trunk with the values close to its data. 0 does not train
        the policy's output layer."""
        polyak: float = Field(1.0, gt=0, le=1)
        """How far the slow Q heads, which compute the targets, move towards the fast ones per optimiser step. 1: no slow heads."""
        reduce: Literal["mean", "sum"] = "mean"
        """`mean` over the actions of an optimiser step, or their `sum`. With `sum`, sgd and a `grad_clip` that never clips (1e9),
        lr is the textbook's step size α."""

        @model_validator(mode="after")
        def _one_sum(self) -> ValueLearner.Config:
            if self.reduce == "sum" and self.minibatches > 1:
                raise ValueError("reduce: sum is over all actions of a step, so minibatches must be 1")
            if self.reduce == "sum" and self.optimizer == "sgd" and "grad_clip" not in self.model_fields_set:
                raise ValueError(
                    f"reduce: sum would be clipped to a norm of {self.grad_clip:g}; set grad_clip, e.g. 1e9"
                )
            return self

    @property
    def slow_heads(self) -> tuple[str, ...]:
        return tuple(f"{name}_slow" for name in self.q_heads) if self.config.polyak < 1 else self.q_heads

    def setup(self, ctx: Context) -> None:
        tokens = len(ctx.role_named("policy").head[0])
        for name in self.q_heads:
            ctx.head(name, partial(q_head, tokens=tokens, std=self.spread, initial=self.config.initial))
        for slow, name in zip(self.slow_heads, self.q_heads):
            if slow != name:
                ctx.target(slow, of=name)

    spread: ClassVar[float] = 0.0
    """Standard deviation of the heads' initial weights. Twin heads must start at different weights to differ."""

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        def follow() -> None:
            for slow, name in zip(self.slow_heads, self.q_heads):
                if slow != name:
                    ctx.polyak(slow, name, self.config.polyak)

        taken_BT = batch.extra.get("taken_BT", batch.mask_BT.float())
        self.actions = ctx.sum(taken_BT)
        reward_BT = on_taken(batch.reward_BT, batch.mask_BT, taken_BT)
        ctx.train(replace(batch, reward_BT=reward_BT).with_extra(taken_BT=taken_BT), self.loss, after=follow)

    def wants(self) -> tuple[str, ...]:
        """The figures that the loss reads, all from one forward pass."""
        heads = dict.fromkeys((*self.q_heads, *self.slow_heads))
        wanted = tuple(f"{name}.{figure}" for name in heads for figure in ("logprobs", "logsumexp"))
        return (*wanted, "logprobs") if self.config.clone else wanted

    def chosen(self, mb: MicroBatch[Scored], stats: Stats, head: str) -> Tensor:
        """Q(s, a) of the tokens in the rows."""
        return stats[f"{head}.logprobs"] + stats[f"{head}.logsumexp"]

    def next_value(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor:
        """The value of the state before each chosen token, [B, T], which is the `next` of the action before it."""
        raise NotImplementedError

    def slow_value(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor:
        """The lower of the slow heads' Q(s, a), without gradient."""
        with torch.no_grad():
            return torch.stack([self.chosen(mb, stats, name) for name in self.slow_heads]).amin(0)

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        c, batch = self.config, mb.batch
        stats = mb.stats(want=self.wants(), support="whole")
        with torch.no_grad():
            target_BT = targets(
                batch.reward_BT, self.next_value(mb, stats), batch.mask_BT, mb["taken_BT"], c.gamma, c.lam
            )
        chosen = {name: self.chosen(mb, stats, name) for name in self.q_heads}
        q_loss = _total(mb.mean_over("taken_BT", 0.5 * (target_BT - q).square()) for q in chosen.values())
        mb.log("q_loss", q_loss)
        mb.log("q_value", mb.mean_over("taken_BT", chosen[self.q_heads[0]]))
        total = q_loss
        if c.conservative:
            spread = _total(mb.mean_over("taken_BT", stats[f"{name}.logsumexp"] - q) for name, q in chosen.items())
            mb.log("q_spread", spread)
            total = total + spread * c.conservative
        if c.clone:
            nll = mb.mean_over("taken_BT", -stats.logprobs_BT * self.clone_weight(mb, stats))
            mb.log("nll", mb.mean_over("taken_BT", -stats.logprobs_BT.detach()))
            total = total + nll * c.clone
        for more in self.more_terms(mb, stats):
            total = total + more
        return total * self.actions if c.reduce == "sum" else total

    def clone_weight(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor | float:
        """The weight of each action in cloning."""
        return 1.0

    def more_terms(self, mb: MicroBatch[Scored], stats: Stats) -> list[Loss]:
        """Additional loss terms of an algorithm."""
        return []


def on_taken(reward_BT: Tensor, mask_BT: Tensor, taken_BT: Tensor) -> Tensor:
    """Move a reward on an action that is not yet taken (wrappers pay the last action) to the last action taken."""
    if not reward_BT.numel():
        return reward_BT
    taken_BT = taken_BT > 0
    untaken_BT = mask_BT & ~taken_BT
    last_B1 = torch.where(taken_BT, torch.arange(taken_BT.shape[1], device=taken_BT.device), 0).amax(1, keepdim=True)
    late_B1 = torch.where(untaken_BT, reward_BT, 0.0).sum(1, keepdim=True)
    return reward_BT.masked_fill(untaken_BT, 0.0).scatter_add(1, last_B1, late_B1)


def targets(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, taken_BT: Tensor, gamma: float, lam: float) -> Tensor:
    """r_t + γ ((1 − λ) value_{t+1} + λ target_{t+1}) over chosen tokens; the target of an action not yet taken is its value."""
    ahead_BT = torch.where(mask_BT & (taken_BT == 0), value_BT, reward_BT)
    return kernels.gae(ahead_BT, value_BT, mask=mask_BT, gamma=gamma, lam=lam)[1]


def expectile(difference: Tensor, tau: float) -> Tensor:
    """½ |τ − 1[d < 0]| d²: its minimiser is the mean at τ = ½ and nears the maximum as τ → 1 (Newey & Powell 1987)."""
    return 0.5 * torch.where(difference < 0, 1 - tau, tau) * difference.square()


def _total(losses: Iterable[Loss]) -> Loss:
    first, *rest = losses
    return sum(rest, first)
