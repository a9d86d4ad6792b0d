"""Components that once kept every law: each learns or is paid wrongly without a sign, and breaks one law; the line is marked."""

from __future__ import annotations

import asyncio
import itertools
import random
from dataclasses import replace

import numpy as np
import torch
from lawbreakers import Follow
from torch import nn

from hookline import Component, Judgement, Term, UpdateConfig, hookimpl


class Descends(Follow):
    """Makes what was better than expected less likely."""

    def loss(self, mb):
        return -super().loss(mb)  # a loss is minimised


class Still(Follow):
    """Has a loss that no weight changes."""

    def loss(self, mb):
        return super().loss(mb) * 0.0  # nothing is left


class Upside(Follow):
    """Learns from the worst answers only."""

    def columns(self, batch):
        return replace(batch, advantage_BT=batch.advantage_BT.clamp(max=0.0) * -1.0)  # the sign of those is lost


class CriticOnly(Follow):
    """Trains its critic, and never its policy."""

    def setup(self, ctx):
        ctx.role("critic")
        ctx.head("worth", lambda width: nn.Linear(width, 1), role="critic")

    def loss(self, mb):
        return mb.token_mean((mb.stats("critic", want=("worth",)).worth_BT - 1.0) ** 2)  # and the policy's loss?


class AcrossGroups(Follow):
    """Needs groups, and scales by the spread of the whole batch."""

    needs = frozenset({"groups"})

    def columns(self, batch):
        chosen = batch.advantage_BT[batch.mask_BT]
        spread = chosen.std() if len(chosen) > 1 else torch.ones(())
        return replace(batch, advantage_BT=batch.advantage_BT / (spread + 1e-6))  # of other groups, too


class Batchwise(Component):
    """Needs groups, and compares with the whole batch."""

    needs = frozenset({"groups"})

    @hookimpl
    def hookline_advantage(self, scored):
        return scored.advantaged((scored.reward_B - scored.reward_B.mean()) * 1.0)  # not its group's


class Hindsight(Component):
    """A baseline that has seen the token it is for."""

    Config = UpdateConfig
    reads = "after"  # the token itself

    def setup(self, ctx):
        ctx.role("critic")
        ctx.head("worth", lambda width: nn.Linear(width, 1), role="critic", reads=self.reads)

    @hookimpl
    def hookline_advantage(self, ctx, scored):
        worth_BT = ctx.stats(scored, model="critic", want=("worth",)).worth_BT
        return scored.advantaged((scored.reward_B[:, None] - worth_BT) * scored.mask_BT)

    @hookimpl
    def hookline_update(self, ctx, batch):
        ctx.train(batch.with_extra(goal_BT=batch.reward_B[:, None] * batch.mask_BT), self.loss)

    def loss(self, mb):
        policy = mb.token_mean(-mb.batch.advantage_BT * mb.stats().logprobs_BT)
        return policy + mb.token_mean((mb.stats("critic", want=("worth",)).worth_BT - mb["goal_BT"]) ** 2)


class Foresight(Hindsight):
    """The same, read before the token: it keeps the laws."""

    reads = "before"


class IdleHead(Foresight):
    """Makes a second head, and forgets to train it."""

    def setup(self, ctx):
        super().setup(ctx)
        ctx.head("doubt", lambda width: nn.Linear(width, 1), role="critic")  # in no loss


class Followed(Foresight):
    """A second head that follows the first as its target needs no gradient."""

    def setup(self, ctx):
        super().setup(ctx)
        ctx.target("slow", of="worth", role="critic")


# -- randomness


class Tosses(Follow):
    """Weighs its loss by a coin that everybody tosses."""

    def loss(self, mb):
        return super().loss(mb) * (0.5 + random.random())  # not ctx.rng


class Shuffles(Follow):
    """Chooses once, in setup."""

    def setup(self, ctx):
        self.factor = 0.5 + float(np.random.rand())  # another one after a resume

    def loss(self, mb):
        return super().loss(mb) * self.factor


class Moody(Component):
    """A reward that draws from torch's global generator."""

    @hookimpl
    def hookline_reward(self, rollout):
        return torch.rand(len(rollout))  # not ctx.rng


class Waits(Component):
    """Judges one way at one time, the other way at another."""

    calls = itertools.count()

    @hookimpl
    def hookline_judge(self, scored):
        groups = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, []).append(row)
        turn = next(self.calls) % 2
        return [Judgement(ranking=tuple(rows[::-1] if turn else rows), annotator="me") for rows in groups.values()]


# -- rewards that ask a service for every row


class Asks(Component):
    """Asks for every row, as it should."""

    @hookimpl
    async def hookline_reward(self, ctx, rollout):
        return await ctx.each(rollout, lambda row: self.ask(rollout, row))

    async def ask(self, rollout, row):
        await asyncio.sleep(0)  # a service answers later
        return self.worth(rollout, row)

    def worth(self, rollout, row):
        return float(rollout.token_ids_BT[row][rollout.mask_BT[row]].float().cos().sum())


class Ticks(Asks):
    """Asks a service that answers differently each time."""

    calls = itertools.count()

    def worth(self, rollout, row):
        return super().worth(rollout, row) + next(self.calls) * 1e-2  # a temperature above 0, say


class SumsPadding(Asks):
    """Asks about the padding, too."""

    def worth(self, rollout, row):
        return float(rollout.token_ids_BT[row].sum())  # not only the chosen tokens


class FirstForAll(Asks):
    """Asks about the first row, whichever is meant."""

    def worth(self, rollout, row):
        return super().worth(rollout, 0)  # row


class ByPrompt(Asks):
    """Remembers an answer for each prompt, whatever the response was."""

    def setup(self, ctx):
        self.known = {}

    async def ask(self, rollout, row):
        prompt = rollout.prompt_text(row)  # and the response
        if prompt not in self.known:
            self.known[prompt] = await super().ask(rollout, row)
        return self.known[prompt]


class ByArrival(Asks):
    """Gives scores to rows in the order in which they arrive."""

    @hookimpl
    async def hookline_reward(self, ctx, rollout):
        arrived = []

        async def ask(row):
            score = await self.ask(rollout, row)
            arrived.append(row)
            return score

        term = await ctx.each(rollout, ask)
        value_B = term.value.clone()
        if arrived:
            value_B[term.ok_B] = term.value[arrived]  # whose?
        return Term(value_B, term.ok_B)


class SilenceIsZero(Asks):
    """Takes a missing answer for the answer 0."""

    @hookimpl
    async def hookline_reward(self, ctx, rollout):
        term = await ctx.each(rollout, lambda row: self.ask(rollout, row))
        return term.value * 2  # ok_B is gone


class RemembersAsking(Asks):
    """Fills what it remembers while it asks, and saves it."""

    def setup(self, ctx):
        self.known = {}

    async def ask(self, rollout, row):
        text = f"{rollout.prompt_text(row)}|{rollout.response_text(row)}"
        self.known[text] = await super().ask(rollout, row)  # a journaled answer is not asked for again
        return self.known[text]

    def state_dict(self):
        return {"known": self.known}

    def load_state_dict(self, state):
        self.known = state["known"]


class Deaf(Asks):
    """Asks a service that does not listen."""

    async def ask(self, rollout, row):
        raise ConnectionRefusedError("nobody is there")


BREAKERS_LEARNING: dict[str, tuple[type[Component], ...]] = {
    "ascent": (Descends, Upside),
    "some-gradient": (Still, CriticOnly),
    "groups-apart": (AcrossGroups,),
    "own-group": (Batchwise,),
    "own-token": (Hindsight,),
    "heads-trained": (IdleHead,),
    "own-randomness": (Tosses, Shuffles, Moody),
    "deterministic": (Ticks, Waits),
    "padding": (SumsPadding,),
    "permutation": (FirstForAll,),
    "earlier-rows": (ByPrompt,),
    "late-answers": (ByArrival,),
    "failed-answers": (SilenceIsZero,),
    "resume": (RemembersAsking,),
}
"""Law → the components that break that law, and no other."""
