"""The reward that the task itself gives to an answer."""

from __future__ import annotations

import torch

import hookline
from hookline import Component, Context, DataName, Rollout, hookimpl


class TaskReward(Component):
    """Asks the task for every row."""

    better = "higher"

    class Config(hookline.Config):
        task: DataName
        """The task that gives the reward, e.g. builtin:walks."""

    def setup(self, ctx: Context) -> None:
        self.task = ctx.task(self.config.task)

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        said = [self.task.reward(rollout.records[i], rollout.response_text(i)) for i in range(len(rollout))]
        return torch.tensor(said, dtype=torch.float32)
