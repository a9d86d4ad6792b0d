"""Group-relative advantage (GRPO, Shao et al. 2024, §4.1.2): A_i = (R_i − mean(R)) / std(R) over the answers to one prompt.

All tokens of an answer share it; an answer of several rows (an episode) counts once, and all of its rows share it.
`scale: none` omits the division (Dr. GRPO, Liu et al. 2025, §3.2): dividing gives a prompt a larger weight the more its answers
agree. A group of equal rewards has no signal and gets exactly 0, never 0/0.
Healthy: `equal_groups` is well below 1, since only the other groups have a signal; it rises as prompts become too easy or too hard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

import hookline
from hookline import Advantaged, Component, Scored, hookimpl
from hookline_plugins.maths import group_mean, group_whiten, over_episodes


class GroupRelative(Component):
    """An answer's reward minus the mean of its group, in standard deviations of the group."""

    needs = frozenset({"groups"})

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"eps": "floor", "epsilon": "floor"}
        scale: Literal["std", "none"] = "std"
        """`std`: in units of the group's standard deviation. `none`: in units of reward, so that large differences count more."""
        floor: float = Field(1e-6, gt=0)
        """Added to the standard deviation. Large damps groups whose rewards hardly differ."""

    @hookimpl
    def hookline_advantage(self, scored: Scored) -> Advantaged:
        def relative(x_E: Tensor, group_E: Tensor) -> Tensor:
            if self.config.scale == "std":
                return group_whiten(x_E, group_E, self.config.floor)
            return x_E - group_mean(x_E, group_E)

        return scored.advantaged(over_episodes(relative, scored.reward_B, scored.group_B, scored.episode_B))
