"""Breakers of the laws for kinds that stand beside the loop, and for every component; the line that breaks is marked."""

from __future__ import annotations

import asyncio
import itertools
from typing import Annotated

import torch

import hookline
from hookline import (
    Argument,
    Command,
    Completion,
    Component,
    DataError,
    Engine,
    Environment,
    EventFormat,
    Format,
    KeptIds,
    Turn,
    hookimpl,
)
from hookline_plugins.stores.jsonl import JSONL


class Eager(Component):
    """Opens a file before it is asked to."""

    def __init__(self, config):
        super().__init__(config)
        self.file = open(__file__)  # noqa: SIM115 - belongs into setup

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.length_B.float()


class Slams(Component):
    """Cannot be closed before it was set up."""

    def setup(self, ctx):
        self.open = [1]

    def close(self):
        self.open.pop()  # there may be none

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.length_B.float()


class Plain(Engine):
    """Answers with the prompt's first token, as often as the sample's id says."""

    gives = frozenset({"kept-ids"})

    async def draw(self, request):
        return self.said(request, 1 + request.sample % request.max_new_tokens)

    def said(self, request, count):
        ids = torch.full((count,), request.prompt[0])
        kept = KeptIds(ids, torch.arange(count + 1)) if request.sampling.truncated else None
        return Completion(
            token_ids=ids,
            logprobs=torch.zeros(count),
            kept_ids=kept,
            versions=torch.zeros(count, dtype=torch.long),
            finish_reason="length",
        )


class Counts(Plain):
    """Its answers grow with each request."""

    def setup(self, ctx):
        self.count = itertools.count(1)

    async def draw(self, request):
        return self.said(request, 1 + next(self.count) % request.max_new_tokens)  # by order of asking


class Rounds(Plain):
    """Says that it is exact, and rounds a log-prob by how many samples wait."""

    gives = frozenset({"exact", "kept-ids"})

    def setup(self, ctx):
        self.waiting = 0

    async def draw(self, request):
        self.waiting += 1
        await asyncio.sleep(0)  # all that wait have come
        found = await super().draw(request)
        return Completion(**{**vars(found), "logprobs": found.logprobs - 2**-24 * self.waiting})  # a bit of the others


class Endless(Plain):
    """Never stops."""

    async def draw(self, request):
        return self.said(request, request.max_new_tokens + 1)  # more than asked


class Hides(Plain):
    """Cuts the distribution without a word."""

    def said(self, request, count):
        found = super().said(request, count)
        return Completion(**{**vars(found), "kept_ids": None})  # top-k cut it


class Coin(Environment):
    """Heads or tails, three times."""

    async def reset(self, record, rng):
        self.rng, self.left = rng, 3
        return Turn(text="?")

    async def step(self, reply):
        self.left -= 1
        heads = bool(torch.randint(2, (), generator=self.rng))
        return Turn(text="heads" if heads else "tails", rewards={"heads": float(heads)}, terminated=not self.left)


class Forgetful(Coin):
    """Tosses a coin of its own."""

    async def step(self, reply):
        self.rng.seed()  # another seed each time
        return await super().step(reply)


class Patient(Coin):
    """Waits for a word that never comes."""

    async def step(self, reply):
        return Turn(text="?")  # no limit of turns


class Mumbles(Coin):
    """Says nothing, and goes on."""

    async def reset(self, record, rng):
        await super().reset(record, rng)
        return Turn()  # nothing to read


class Lines(Format):
    """A row per line."""

    suffixes = (".lines",)

    def read(self, path):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except ValueError:
            raise DataError(f"{path} is no text", "save it as UTF-8") from None
        yield from ({"prompt": line} for line in lines)


class Capital(Lines):
    """Its ending has capitals."""

    suffixes = (".LINES",)  # ".lines"


class Asks(Lines):
    """Cannot be read without being told how."""

    class Config(hookline.Config):
        width: int  # no default
        """How wide its columns are."""


class Numbers(Lines):
    """Numbers its rows over all readings."""

    count = itertools.count()

    def read(self, path):
        yield from ({**row, "number": next(self.count)} for row in super().read(path))  # goes on counting


class Trips(Lines):
    """Lets the decoder's error through."""

    def read(self, path):
        yield from ({"prompt": line} for line in path.read_text(encoding="utf-8").splitlines())  # may be no text


class Halves(EventFormat):
    """Compares two answers."""

    columns = {"first": str, "second": str, "winner": int}
    holds = frozenset({"comparison"})

    def events(self, rows):
        row = rows[0]
        answer = {"kind": "comparison", "better": row["winner"]}
        yield {
            "prompt": "",
            "candidates": [{"text": row[name]} for name in ("first", "second")],
            "answer": answer,
            "annotator": "a",
        }

    def rows(self, events):
        for event in events:
            texts = {name: one.text for name, one in zip(("first", "second"), event.candidates)}
            yield {**texts, "winner": 1 if event.answer.better == 1 else 0}  # a tie is a win of the first


class Verb(Command):
    """Does nothing, well."""

    promises = frozenset({"runs"})

    def run(self, out):
        out.value({})
        return 0


class Greedy(Verb):
    """Takes several runs, then a folder."""

    class Config(hookline.Config):
        runs: Annotated[tuple[str, ...], Argument("RUN")] = ()  # not the last
        """Which runs."""
        folder: Annotated[str, Argument("DIR")] = "."
        """Where to."""


class Codeless(Verb):
    """Forgets its exit code."""

    def run(self, out):
        out.value({})  # and no return


class Memory(JSONL):
    """A store in a file, whose subclasses are careless."""

    suffixes = (".careless",)


class Later(Memory):
    """Acknowledges what it has not stored."""

    def append(self, events):
        return list(events)  # super().append(events)


class Twice(Memory):
    """Takes whatever has an id that it knows."""

    def append(self, events):
        try:
            return super().append(events)
        except DataError:
            return []  # raise


class Generous(Memory):
    """Gives an item to everybody who has not answered it, however many have it."""

    def lease(self, annotator, *, seconds=900.0, beside=()):
        done = {event.item for event in self.events(annotator=annotator)}
        free = (item for item in self.items() if item.id not in done)
        return next(free, None)  # super().lease(annotator, seconds=seconds, beside=beside)


class Forever(Memory):
    """A lease never ends."""

    def lease(self, annotator, *, seconds=900.0, beside=()):
        return super().lease(annotator, beside=beside)  # seconds=seconds


class OneByOne(Memory):
    """Gives an annotator the item that they have, whatever they have at hand."""

    def lease(self, annotator, *, seconds=900.0, beside=()):
        return super().lease(annotator, seconds=seconds)  # beside=beside


class Remembers(Memory):
    """Says that an annotator is forgotten."""

    def forget(self, annotator):
        return sum(1 for _ in self.events(annotator=annotator))  # super().forget(annotator)


class Overwrites(Memory):
    """A backup replaces what is there."""

    def backup(self, path):
        path.unlink(missing_ok=True)
        super().backup(path)


BREAKERS_APART: dict[str, tuple[type[Component], ...]] = {
    "opens-nothing": (Eager,),
    "closes": (Slams,),
    "draws-repeat": (Counts,),
    "exact": (Rounds,),
    "whole-completions": (Endless,),
    "kept-ids": (Hides,),
    "episodes-repeat": (Forgetful,),
    "episodes-end": (Patient,),
    "whole-turns": (Mumbles,),
    "suffixes": (Capital,),
    "defaults": (Asks,),
    "reads-alike": (Numbers,),
    "refuses": (Trips,),
    "writes-what-it-reads": (Halves,),
    "arguments": (Greedy,),
    "runs": (Codeless,),
    "acknowledged": (Later,),
    "once": (Twice,),
    "overlap": (Generous,),
    "leases": (Forever,),
    "beside": (OneByOne,),
    "forgotten": (Remembers,),
    "backed-up": (Overwrites,),
}
