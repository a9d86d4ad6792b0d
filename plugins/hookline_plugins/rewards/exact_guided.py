"""The exact expected reward of guided decoding on a task with a process, summed over all outcomes.

Like `exact`, for policies guided by values: for evaluations, every row gets the same figure. `kl` is the KL of the guided policy
to the policy being trained; in a phase that distils the guided policy, it shows how much is left to learn.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, PhaseName, Process, Rollout, hookimpl
from hookline_plugins.guidance import guide_role, guided_policy
from hookline_plugins.tasks import exact


class ExactGuided(Component):
    """`return`: expected reward. `kl`: nats per episode to the policy."""

    better = property(lambda self: "lower" if self.config.figure == "kl" else "higher")
    needs = property(lambda self: {"decodes", "engine:combine"} | ({"before"} if self.config.figure == "kl" else set()))

    class Config(hookline.Config):
        task: DataName
        """The task, e.g. builtin:walks."""
        beta: float = Field(1.0, ge=0)
        """How strongly values outweigh the cloned policy, as in the rollout `guided`."""
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose policy and Q heads are used; none: those of this phase."""
        figure: Literal["return", "kl"] = "return"
        """`return`: the mean reward of an answer. `kl`: the KL of the guided policy to the policy that it guides, in nats."""
        greedy: bool = False
        """Evaluate the policy that always takes its likeliest action."""

    def setup(self, ctx: Context) -> None:
        found = ctx.task(self.config.task).process()
        if found is None:
            raise DataError(f"{self.config.task} has no process to sum over", "name a task that has one")
        self.process: Process = found
        self.guide = guide_role(ctx, self.config.from_)

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> torch.Tensor:
        policy = guided_policy(ctx, self.process, self.guide, self.config.beta)
        policy = exact.greedy(policy) if self.config.greedy else policy
        kl = self.config.figure == "kl"
        against = exact.policy_of(ctx, self.process) if kl else exact.reference(self.process)
        return torch.full((len(rollout),), exact.evaluate(self.process, policy, against)[kl], dtype=torch.float64)
