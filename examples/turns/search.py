"""A search: which page has the word's number? A page shows one number; only the page that the question names has the right one."""

import torch
from pydantic import Field

import hookline
from hookline import Environment, Turn


class Search(Environment):
    """What number is written on a page?"""

    class Config(hookline.Config):
        price: float = Field(0.05, ge=0)
        """The price of opening a page. Large makes guessing cheaper than searching."""

    async def reset(self, record, rng):
        self.pages = dict(zip(record["pages"], torch.randperm(len(record["pages"]), generator=rng).tolist()))
        self.word = record["word"]
        return Turn(text=record["prompt"])

    async def step(self, reply):
        word = reply.strip()
        if word in self.pages:
            return Turn(text=f"says {self.pages[word]}", rewards={"search": -self.config.price})
        return Turn(rewards={"right": float(word == str(self.pages[self.word]))}, terminated=True)
