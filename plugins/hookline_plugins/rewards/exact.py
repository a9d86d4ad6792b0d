"""The exact expected reward of the policy on a task with a process: a sum over all outcomes, without sampling error.

For evaluations: the rows are ignored, and every row gets the same figure. Exact for a policy that sees only the state, such as
`tabular`. The KL is to the task's reference policy.
"""

from __future__ import annotations

from math import isinf
from typing import Literal

import torch

import hookline
from hookline import Component, Context, DataError, DataName, ExperimentError, Process, Rollout, hookimpl
from hookline_plugins.tasks import exact


class Exact(Component):
    """`return`: expected reward. `kl`: nats per episode to the reference. `gap`: how far the return is below the frontier.

    A policy that also says words which are not an action has an infinite KL: `kl` then raises an error, and `gap` is the distance
    to the best policy."""

    better = property(lambda self: "higher" if self.config.figure == "return" else "lower")
    needs = frozenset({"before"})

    class Config(hookline.Config):
        task: DataName
        """The task, e.g. builtin:walks."""
        figure: Literal["return", "kl", "gap"] = "return"
        """`gap` is the best return at this KL minus the policy's return. It is never below 0; a negative value is a bug."""
        greedy: bool = False
        """Evaluate the policy that always takes its likeliest action."""

    def setup(self, ctx: Context) -> None:
        found = ctx.task(self.config.task).process()
        if found is None:
            raise DataError(f"{self.config.task} has no process to sum over", "name a task that has one")
        self.process: Process = found

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> torch.Tensor:
        policy = exact.policy_of(ctx, self.process)
        earned, kl = exact.evaluate(self.process, exact.greedy(policy) if self.config.greedy else policy)
        if self.config.figure == "kl" and isinf(kl):
            raise ExperimentError(
                f"the policy says words that are not an action in {self.config.task}, so its KL is infinite",
                "leave out figure: kl, or build the model as tabular with this task",
            )
        figures = {"return": earned, "kl": kl}
        value = exact.ceiling(self.process, kl) - earned if self.config.figure == "gap" else figures[self.config.figure]
        return torch.full((len(rollout),), value, dtype=torch.float64)
