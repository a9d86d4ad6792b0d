"""A sum to be found with a calculator, and a rollout that plays any environment turn by turn, a word a turn.

A reply `add` calls the tool, which adds the next number and shows the running total; any other reply is the answer.
"""

import asyncio
from dataclasses import dataclass, field, replace

import torch
from pydantic import Field

import hookline
from hookline import (
    Behaviour,
    Component,
    DataName,
    Encoded,
    Environment,
    Rollout,
    Sampling,
    ServiceError,
    Turn,
    Use,
    hookimpl,
)

FAILS = (OSError, ServiceError)
"""What an environment may raise: its row is then not judged."""
OPEN: list["Calculator"] = []
"""Environments that were set up and not closed yet."""


class Calculator(Environment):
    """What is the sum of some numbers?"""

    name = "calculator"
    tools = ({"name": "add", "description": "add the next number", "parameters": {"type": "object", "properties": {}}},)

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


@dataclass
class Game:
    """One episode and its row."""

    environment: Environment
    turn: Turn | None
    """What it said last; None: it failed."""
    row: Encoded
    ids: list = field(default_factory=list)
    chosen: list = field(default_factory=list)
    paid: list = field(default_factory=list)
    logprobs: list = field(default_factory=list)

    @property
    def over(self):
        return self.turn is None or self.turn.over

    def add(self, ids, *, chosen, paid=0.0, logprob=0.0):
        self.ids += ids
        for column, value in ((self.chosen, chosen), (self.paid, paid), (self.logprobs, logprob)):
            column += [value] * len(ids)

    def encoded(self):
        columns = {"recorded_BT": torch.tensor(self.paid), "logprob_BT": torch.tensor(self.logprobs)}
        return replace(self.row, answer_ids=self.ids, learn=self.chosen, columns=columns)


class Turns(Component):
    """Plays one environment per row."""

    name = "turns"
    gives = frozenset({"behaviour", "recorded_BT", "ok_B"})

    class Config(hookline.Config):
        prompts: DataName
        """Rows that the environment begins on."""
        environment: Use[Environment]
        """What is played."""
        rows: int = Field(4, ge=1)
        """Episodes per step."""

    @hookimpl
    def hookline_rollout(self, ctx):
        source = ctx.rows(self.config.prompts)
        records = [source.records[i] for i in ctx.take(len(source), self.config.rows)]
        sample_B = ctx.sample_ids(len(records))
        environments = [self.parts["environment"].another() for _ in records]
        try:
            for environment in environments:
                environment.setup(ctx)
            begin = [
                environment.reset(record, ctx.rng("environment", int(sample)))
                for environment, record, sample in zip(environments, records, sample_B)
            ]
            games = [
                Game(environment, turn, replace(ctx.encode(shown(turn, record), answer=None), record=record))
                for environment, turn, record in zip(environments, together(ctx, begin), records)
            ]
            while live := [game for game in games if not game.over]:
                self.turn(ctx, live)
        finally:
            for environment in environments:
                environment.close()
        reasons = ["stop" if game.turn and game.turn.terminated else "length" for game in games]
        built = Rollout.build(
            ctx, [game.encoded() for game in games], source="policy", sample_B=sample_B, finish_reason=reasons
        )
        drawn = Behaviour(
            logprobs_BT=built.extra["logprob_BT"],
            version_BT=torch.full_like(built.token_ids_BT, ctx.role_named("policy").version) * built.mask_BT,
            sampling=Sampling(),
        )
        columns = {"recorded_BT": built.extra["recorded_BT"], "ok_B": torch.tensor([bool(game.turn) for game in games])}
        return replace(built, behaviour=drawn, extra=columns)

    def turn(self, ctx, games):
        """One word of the policy in each of these games, and what the environment says to it."""
        so_far = [[*game.row.prompt_ids, *game.ids] for game in games]
        drawn = ctx.draw(so_far, ctx.sample_ids(len(games)), sampling_=Sampling(), max_new_tokens=1)
        said = drawn.token_ids_BT.tolist()
        turns = together(ctx, [game.environment.step(ctx.tokenizer.decode(ids)) for game, ids in zip(games, said)])
        for game, ids, logprob, turn in zip(games, said, drawn.behaviour.logprobs_BT[:, 0].tolist(), turns):
            game.turn = turn
            game.add(ids, chosen=True, paid=turn.reward if turn else 0.0, logprob=logprob)
            if not game.over:
                game.add(ctx.encode_turn((), turn.text), chosen=False)


def shown(turn, record):
    """What the policy reads first; of an environment that failed before it said anything, the row's own prompt."""
    return {"prompt": turn.text if turn else record["prompt"]}


def together(ctx, coroutines):
    """What some environments say, waited for together; None of one that failed."""

    async def one(coroutine):
        try:
            return await coroutine
        except FAILS:
            return None

    async def wait():
        return await asyncio.gather(*map(one, coroutines))

    return ctx.wait(wait())
