"""Gives a fixed, low reward to an answer that was cut before it ended, and ignores its other rewards.

As in Ziegler et al. (2019) and its reproductions (Huang et al. 2024, detail "non-EOS penalty"): the penalty *replaces* the
reward; if it were added, a long good answer would still pay. List it before `kl-penalty`, so that the KL price is kept.
Healthy: `truncated` falls towards 0.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import ClassVar

import torch

import hookline
from hookline import Component, Rollout, Scored, hookimpl, put_last


class Unfinished(Component):
    """Replaces the reward of answers that the length limit ended with `reward`."""

    needs = frozenset({"behaviour"})

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"missing_eos_penalty": "reward", "penalty": "reward"}
        reward: float = -1.0
        """The reward of such an answer. Choose a value clearly below the rewards of finished answers."""

    @hookimpl(wrapper=True)
    def hookline_score(self, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        cut_B = torch.tensor([why == "length" for why in scored.finish_reason], dtype=torch.bool)
        fixed_BT = put_last(torch.full_like(scored.reward_B, self.config.reward), scored.mask_BT)
        return replace(scored, reward_BT=torch.where(cut_B[:, None].to(fixed_BT.device), fixed_BT, scored.reward_BT))
