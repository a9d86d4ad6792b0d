"""A sum to be found with a calculator, a word a turn.

A reply `add` calls the tool, which adds the next number and shows the running total; any other reply is the answer.
"""

from pydantic import Field

import hookline
from hookline import Environment, Turn

OPEN: list["Calculator"] = []
"""Environments that were set up and not closed yet."""


class Calculator(Environment):
    """What is the sum of some numbers?"""

    name = "calculator"

    class Config(hookline.Config):
        most: int = Field(4, ge=1)
        """Calls of the tool after which an episode is cut."""

    def setup(self, ctx):
        OPEN.append(self)

    def close(self):
        if self in OPEN:
            OPEN.remove(self)

    async def reset(self, record, rng):
        self.numbers, self.total, self.calls = list(record["numbers"]), 0, 0
        return Turn(text=record["prompt"])

    async def step(self, reply):
        if reply.strip() != "add":
            right = reply.strip() == str(sum(self.numbers) + self.total)
            return Turn(rewards={"right": float(right), "calls": -0.1 * self.calls}, terminated=True)
        self.calls += 1
        self.total += self.numbers.pop(0) if self.numbers else 0
        return Turn(text=str(self.total), rewards={"right": 0.0}, truncated=self.calls == self.config.most)
