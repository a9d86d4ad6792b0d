"""A calculator: the policy sees how many numbers there are, not the numbers, and learns to call `add` for each, then to say the total."""

import torch
from pydantic import Field

import hookline
from hookline import Environment, Turn


class Calculator(Environment):
    """What is the sum of some numbers that only the calculator knows?"""

    class Config(hookline.Config):
        price: float = Field(0.05, ge=0)
        """The price of a call. Large makes guessing cheaper than asking."""

    async def reset(self, record, rng):
        self.numbers = torch.randint(1, 5, (record["count"],), generator=rng).tolist()
        self.total, self.sum = 0, sum(self.numbers)
        return Turn(text=record["prompt"])

    async def step(self, reply):
        if reply.strip() == "add":
            self.total += self.numbers.pop(0) if self.numbers else 0
            return Turn(text=str(self.total), rewards={"calls": -self.config.price})
        return Turn(rewards={"right": float(reply.strip() == str(self.sum))}, terminated=True)
