"""The reward earned from a token on (Williams 1992; Sutton & Barto 2018, §13.3–13.4): A_t = G_t − b, G_t = r_t + γ G_{t+1}.

There is no critic and no bootstrapping, so the estimate is unbiased and noisy. The baseline is the mean return G_0 of the step's
answers (`mean`) or of the answers to the same prompt (`group`). An answer of several rows (an episode) counts once, and the reward
of its later rows also counts for the earlier rows. A baseline keeps the gradient's direction and reduces its variance. It includes
the answer's own return, which shrinks the gradient by 1/n; `leave-one-out` avoids that.
Healthy: `reward` rises. With a price per token (KL), early tokens have a larger share of the price than late tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from pydantic import Field

import hookline
from hookline import Advantaged, Component, Context, Scored, hookimpl
from hookline_plugins.maths import end_to_end, first_true, group_mean, over_episodes, per_episode, reward_to_go


class RewardToGo(Component):
    """The discounted sum of later rewards minus a baseline."""

    needs = property(lambda self: frozenset({"groups"} if self.config.baseline == "group" else ()))

    class Config(hookline.Config):
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount per token. 1.0 is usual for one-turn text; lower values prefer early reward."""
        baseline: Literal["none", "mean", "group"] = "mean"
        """The baseline: none, the mean return of the step, or the mean return of the answers to the same prompt."""

    @hookimpl
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        rows = scored.episode_B, scored.sample_B
        to_go_BT = end_to_end(partial(reward_to_go, gamma=self.config.gamma), *rows, scored.reward_BT, scored.mask_BT)
        begins_BT = end_to_end(first_true, *rows, scored.mask_BT)
        return_B = torch.where(begins_BT, to_go_BT, 0.0).sum(1)
        match self.config.baseline:
            case "group":
                to_go_BT = to_go_BT - over_episodes(group_mean, return_B, scored.group_B, scored.episode_B)[:, None]
            case "mean":
                to_go_BT = to_go_BT - ctx.mean(per_episode(return_B, scored.episode_B))
        return scored.advantaged(torch.where(scored.mask_BT, to_go_BT, 0.0))
