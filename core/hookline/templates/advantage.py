"""NAME: an advantage for Hookline. An advantage turns rewards into credit for every token.

A = limit · tanh((r − mean of the rewards of its prompt) / limit)
"""

import hookline
from hookline import Component, hookimpl
from pydantic import Field


class Example(Component):
    """The reward of an answer minus the mean over its prompt's answers, squashed into ±limit."""

    needs = frozenset({"groups"})

    class Config(hookline.Config):
        limit: float = Field(1.0, gt=0)
        """Largest absolute advantage. Small values keep only the sign, large values keep the size as well."""

    @hookimpl
    def hookline_advantage(self, scored):
        centred_B = scored.reward_B - group_mean(scored.reward_B, scored.group_B)
        return scored.advantaged(self.config.limit * (centred_B / self.config.limit).tanh())


def group_mean(reward_B, group_B):
    """The mean reward of each row's group, [B]."""
    same_BB = (group_B[:, None] == group_B).float()
    return same_BB @ reward_B / same_BB.sum(1).clamp(min=1)
