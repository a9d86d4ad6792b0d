"""NAME: an environment for Hookline. A rollout plays its episodes:

`{use: …, environment: NAME}`.
"""

import hookline
import torch
from hookline import Environment, Turn
from pydantic import Field


class Example(Environment):
    """Guess a number: after each guess, the environment says whether the number is higher or lower."""

    class Config(hookline.Config):
        largest: int = Field(20, ge=2)
        """Largest possible number; the smallest is 1. Large values need more guesses."""
        guesses: int = Field(8, ge=1)
        """Number of replies after which the episode is truncated. Large values allow longer episodes."""

    async def reset(self, record, rng):
        self.number = int(torch.randint(1, self.config.largest + 1, (), generator=rng))
        self.left = self.config.guesses
        return Turn(text=f"Guess a number from 1 to {self.config.largest}.")

    async def step(self, reply):
        self.left -= 1
        words = reply.split()
        guess = int(words[0]) if words and words[0].isascii() and words[0].isdigit() else None
        if guess == self.number:
            return Turn(text="Yes.", rewards={"guessed": 1.0}, terminated=True)
        said = "Reply with a number." if guess is None else "Higher." if guess < self.number else "Lower."
        return Turn(text=said, truncated=self.left == 0)
