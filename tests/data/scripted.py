"""An engine that says what a test tells it, an environment that answers in messages, and some that fail."""

import asyncio
import random
from dataclasses import replace

import torch
from pydantic import Field

import hookline
from hookline import Completion, Engine, Environment, Turn

SEEN: list[tuple[int, list[int]]] = []
"""The sample id and the prompt of every draw."""


class Scripted(Engine):
    """Reply number k of an episode is the k-th text, with the token that ends it."""

    name = "scripted"
    gives = frozenset({"exact"})

    class Config(hookline.Config):
        replies: tuple[str, ...] = ()
        """What is said, in order; the last one again and again. `|cut` at the end: without the token that ends it."""
        opens: str = "<|im_start|>assistant"
        """The text with which a reply begins."""
        end: str = "<|im_end|>"
        """The token that ends a reply."""

    def setup(self, ctx):
        self.tokenizer, self.role = ctx.tokenizer, ctx.role_named("policy")

    async def draw(self, request):
        SEEN.append((request.sample, list(request.prompt)))
        before = self.tokenizer.decode(request.prompt, special=True).count(self.config.opens) - 1
        text = self.config.replies[min(before, len(self.config.replies) - 1)]
        cut = text.endswith("|cut")
        ids = self.tokenizer.chat.encode(text.removesuffix("|cut"))[0]
        ids = (ids if cut else [*ids, *self.tokenizer.chat.encode(self.config.end)[0]])[: request.max_new_tokens]
        return Completion(
            token_ids=torch.tensor(ids),
            finish_reason="stop" if ids[-1] in self.tokenizer.ends else "length",
            logprobs=None,
            versions=torch.full((len(ids),), self.role.version),
        )


class Doors(Environment):
    """Answers `open` with a message; anything else ends the episode."""

    name = "doors"

    class Config(hookline.Config):
        role: str = "user"
        says: str = "it is open"
        bad: str = ""
        """How the environment fails at its second turn."""
        at: int = Field(1, ge=0)

    async def reset(self, record, rng):
        self.count, self.number = 0, int(torch.randint(100, (), generator=rng))
        if self.config.bad and self.config.at == 0:
            return await self.fail()
        return Turn(messages=[{"role": "user", "content": record["prompt"]}])

    async def step(self, reply):
        self.count += 1
        if self.config.bad and self.count == self.config.at:
            return await self.fail()
        if "open" not in reply:
            return Turn(rewards={"end": 1.0, "price": -0.25}, terminated=True)
        return Turn(messages=[{"role": self.config.role, "content": self.config.says}], rewards={"door": 0.5})

    async def fail(self):
        bad = self.config.bad
        if bad == "hang":
            await asyncio.sleep(60)
        if bad == "raise":
            raise KeyError("door")
        if bad == "exit":
            raise SystemExit(3)
        return {
            "bytes": b"door", "text": Turn(text=b"door"), "nan": Turn(text="a", rewards={"door": float("nan")}),
            "silent": Turn(), "none": None, "ids": Turn(token_ids=[10**9]), "role": Turn(messages=["open"]),
            "over": Turn(terminated=True), "word": Turn(text="a", rewards={"door": "much"}),
        }[bad]  # fmt: skip


class Moods(Doors):
    """Pays otherwise each time, as a service may."""

    name = "moods"
    seeded = False

    async def step(self, reply):
        turn = await super().step(reply)
        return replace(turn, rewards={"mood": random.SystemRandom().random()})


class Riddles(Doors):
    """Begins with a word that its generator draws."""

    name = "riddles"

    async def reset(self, record, rng):
        await super().reset(record, rng)
        return Turn(messages=[{"role": "user", "content": f"riddle {self.number}"}])
