"""NAME: a reward for Hookline, one number per answer."""

import hookline
import torch
from hookline import Component, hookimpl
from pydantic import Field


class Example(Component):
    """Share of different words in an answer: 1 if no word is repeated."""

    class Config(hookline.Config):
        floor: float = Field(0.0, ge=0, le=1)
        """Reward of an empty answer. Large values make empty answers attractive."""

    @hookimpl
    def hookline_reward(self, rollout):
        texts = [rollout.response_text(row) for row in range(len(rollout))]
        return torch.tensor([variety(text, self.config.floor) for text in texts])


def variety(text: str, floor: float) -> float:
    """Number of different words divided by number of words."""
    words = text.split()
    return len(set(words)) / len(words) if words else floor
