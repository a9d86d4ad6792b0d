"""One component per law, which breaks that law; the line that does is marked."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch

from hookline import Component, Judgement, Metric, Process, Task, UpdateConfig, hookimpl, put_last
from hookline.testing.stand_ins import Sampled


class Follow(Component):
    """The plain policy gradient, from which the lawbreaking updates derive."""

    Config = UpdateConfig

    @hookimpl
    def hookline_update(self, ctx, batch):
        ctx.train(self.columns(batch), self.loss)

    def columns(self, batch):
        return batch

    def loss(self, mb):
        return mb.token_mean(-mb.batch.advantage_BT * mb.stats().logprobs_BT)


class Wordless(Follow):
    """Has an option that says nothing about itself."""

    class Config(UpdateConfig):
        mystery: float = 1.0  # no docstring


class Stumbles(Follow):
    """Fails in its first step."""

    def loss(self, mb):
        return mb.token_mean(mb["no_such_BT"])  # nobody brings it


class Gossip(Follow):
    """Logs what it did not declare."""

    def loss(self, mb):
        loss = super().loss(mb)
        mb.log("surprise", loss)  # not in metrics
        return loss


class Scribbles(Follow):
    """Writes into what it was lent."""

    def columns(self, batch):
        batch.advantage_BT.mul_(2.0)  # in place
        return batch


class Presumes(Follow):
    """Counts on there being a row."""

    def columns(self, batch):
        batch.reward_B.max()  # of no rows there is none
        return batch


class Averages(Component):
    """Logs a mean of rows, of no rows too."""

    metrics = (Metric("mean_reward", "mean over rows of the reward"),)

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx, rollout):
        scored = yield
        ctx.log("mean_reward", float(scored.reward_B.mean()))  # of no rows it is not a number
        return scored


class Newest(Component):
    """Looks for the newest row, where there may be none."""

    @hookimpl(wrapper=True)
    def hookline_rollout(self):
        rollout = yield
        self.newest = int(rollout.sample_B.max())  # of no rows there is none
        return rollout


class Forgets(Follow):
    """Follows less each step, and forgets which step it is."""

    steps = 0

    def columns(self, batch):
        self.steps += 1  # not in state_dict
        return replace(batch, advantage_BT=batch.advantage_BT / self.steps)


class ByPlace(Follow):
    """The first rows count more."""

    def columns(self, batch):
        place_B = 1.0 + torch.arange(len(batch))  # where a row stands
        return replace(batch, advantage_BT=batch.advantage_BT * place_B[:, None])


class Wilful(Follow):
    """Goes somewhere even without an advantage."""

    def loss(self, mb):
        return super().loss(mb) + mb.token_mean(-mb.stats().logprobs_BT)  # whatever the advantage


class Boasts(Follow):
    """Claims REINFORCE's gradient and cubes the advantage."""

    promises = frozenset({"reinforce"})

    def columns(self, batch):
        return replace(batch, advantage_BT=batch.advantage_BT**3)  # not −A log π


class Keeps(Follow):
    """Claims REINFORCE's gradient, and has it."""

    promises = frozenset({"reinforce"})


class Detached(Follow):
    """A factor that depends on the weights is held still."""

    def loss(self, mb):
        logprobs_BT = mb.stats().logprobs_BT
        return mb.token_mean(-mb.batch.advantage_BT * logprobs_BT * logprobs_BT.detach())  # half of the slope


class Excused(Detached):
    """The same, with its reason."""

    exempt = {"gradcheck": "the weight is held still, as in its paper"}


class Misnamed(Follow):
    """Excuses itself from a law that is none."""

    exempt = {"gradchek": "a typo"}  # gradcheck


class Advantage(Component):
    """Reward minus its mean, from which the lawbreaking advantages derive."""

    @hookimpl
    def hookline_advantage(self, scored):
        return scored.advantaged((scored.reward_B - scored.reward_B.mean())[:, None] * scored.mask_BT)


class Rewrites(Component):
    """Hands on other rewards than it was lent."""

    @hookimpl
    def hookline_advantage(self, scored):
        scored = scored.with_reward(scored.reward_BT * 2)  # not its column
        return scored.advantaged(scored.reward_B)


class Spills(Component):
    """Pays every token there is, and widens the mask so that nobody notices."""

    @hookimpl
    def hookline_advantage(self, scored):
        inside_BT = torch.arange(scored.mask_BT.shape[1]) < scored.length_B[:, None]
        return replace(scored.advantaged(scored.reward_B[:, None] * inside_BT), mask_BT=inside_BT)  # holes, too


class FirstComes(Component):
    """The first row is the baseline."""

    @hookimpl
    def hookline_advantage(self, scored):
        return scored.advantaged(scored.reward_B - scored.reward_B[:1])  # whichever stands first


class PerColumn(Component):
    """Shares an answer's reward between all columns, padding included."""

    @hookimpl
    def hookline_advantage(self, scored):
        return scored.advantaged(scored.reward_B / scored.mask_BT.shape[1])  # not its own length


class Drops(Component):
    """A wrapper that loses a column."""

    @hookimpl(wrapper=True)
    def hookline_score(self):
        scored = yield
        return replace(scored, sample_B=scored.sample_B, group_B=torch.zeros_like(scored.group_B))  # whose answers?


class Adrift(Component):
    """A wrapper whose mean is gone after a kill."""

    mean = 0.0

    @hookimpl(wrapper=True)
    def hookline_score(self):
        scored = yield
        self.mean += float(scored.reward_B.sum())  # not in state_dict
        return scored.with_reward(
            scored.reward_BT + put_last(torch.full_like(scored.reward_B, self.mean), scored.mask_BT)
        )


class Rank(Component):
    """A reward that is a place in the batch."""

    @hookimpl
    def hookline_reward(self, rollout):
        return torch.arange(float(len(rollout)))  # where a row stands


class AboveAverage(Component):
    """A reward that is relative to the other rows."""

    @hookimpl
    def hookline_reward(self, rollout):
        length_B = rollout.length_B.float()
        return length_B - length_B.mean() if len(rollout) else length_B  # of whoever else is there


class LastColumn(Component):
    """A reward read at the last column, whoever's it is."""

    @hookimpl
    def hookline_reward(self, rollout):
        return rollout.token_ids_BT[:, -1].float() if rollout.token_ids_BT.shape[1] else torch.zeros(len(rollout))


class Renumbers(Sampled):
    """Numbers its samples from 0 in every step."""

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        return replace(rollout, sample_B=torch.arange(len(rollout)))  # not ctx.sample_ids


class Misremembers(Sampled):
    """Records other log-probs than those it drew with."""

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        said = rollout.behaviour
        return replace(rollout, behaviour=replace(said, logprobs_BT=said.logprobs_BT * 0.9))  # of temperature 1, say


class Promises(Sampled):
    """Gives groups of one."""

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        return replace(rollout, group_B=rollout.sample_B)  # each its own


class Mixes(Sampled):
    """Puts answers to different prompts into one group."""

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        return replace(rollout, group_B=rollout.group_B.min().expand(len(rollout)))


class Wanders(Sampled):
    """Takes up where it left, in evaluations too."""

    position = 0

    @hookimpl
    def hookline_rollout(self, ctx):
        rollout = super().hookline_rollout(ctx)
        self.position += 1  # moves on, whoever asks
        return rollout.rows((torch.arange(len(rollout)) + self.position) % len(rollout)) if len(rollout) else rollout

    def state_dict(self):
        return {"position": self.position}

    def load_state_dict(self, state):
        self.position = state["position"]


class AcrossPrompts(Component):
    """Compares answers to different prompts."""

    @hookimpl
    def hookline_judge(self, scored):
        return [Judgement(ranking=(0, len(scored) - 1), annotator="me")] if len(scored) > 1 else []


class FirstWins(Component):
    """Judges by where a row stands in the batch."""

    @hookimpl
    def hookline_judge(self, scored):
        groups = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, []).append(row)
        every = [rows for rows in groups.values() if len(rows) > 1]
        return [
            Judgement(ranking=tuple(rows if i % 2 else rows[::-1]), annotator="me") for i, rows in enumerate(every)
        ]  # every second group


class Whims(Component):
    """Judges by a coin that nobody can toss again."""

    @hookimpl
    def hookline_judge(self, scored):
        groups = {}
        for row, group in enumerate(scored.group_B.tolist()):
            groups.setdefault(group, []).append(row)
        return [Judgement(ranking=tuple(random.sample(rows, len(rows))), annotator="me") for rows in groups.values()]


class Fragile(Component):
    """A tracker that wants whole numbers."""

    @hookimpl
    def hookline_row(self, row):
        {name: int(value) for name, value in row["metrics"].items()}  # of NaN there is none


class Litters(Component):
    """A tracker that writes where it stands."""

    @hookimpl
    def hookline_row(self, row):
        Path("rows.txt").write_text(str(row))  # not run.directory


class Repeats(Component):
    """A tracker that appends, and never looks back."""

    @hookimpl
    def hookline_row(self, run, row):
        with (run.directory / "rows.txt").open("a") as file:
            file.write(f"{row['step']}\n")  # rows behind a save come again


class Fickle(Task):
    """Other rows at each call."""

    def rows(self, split):
        return [{"prompt": str(random.random())} for _ in range(5)]


class Bare(Task):
    """Rows that nothing can be made of."""

    def rows(self, split):
        return [{"question": f"{split} {i}"} for i in range(3)]  # neither prompt nor text


class Leaks(Task):
    """Holds out what it trains on."""

    def rows(self, split):
        return [{"prompt": f"row {i}"} for i in range(3)]


class Unsure(Task):
    """An answer is worth something else each time."""

    def rows(self, split):
        return [{"prompt": f"{split} {i}"} for i in range(3)]

    def reward(self, record, response):
        return random.random()


class Coin(Process):
    """A world whose chances are more than all."""

    def starts(self):
        return [(1.0, "start")]

    def prompt(self, state):
        return state

    def actions(self, state):
        return {"left": 0.7, "right": 0.7} if state == "start" else {}  # 1.4

    def step(self, state, action):
        return [(1.0, action, 1.0)]


class Overfull(Task):
    """A task with that world."""

    def rows(self, split):
        return [{"prompt": "start"}]

    def process(self):
        return Coin()


BREAKERS: dict[str, tuple[type[Component], ...]] = {
    # law: who breaks it
    "documented": (Wordless, Misnamed),
    "stands": (Stumbles, Scribbles),
    "declared-figures": (Gossip,),
    "lent": (Scribbles,),
    "no-rows": (Presumes, Averages, Newest),
    "resume": (Forgets, Adrift),
    "permutation": (ByPlace, FirstComes, Rank, FirstWins),
    "zero-advantage": (Wilful,),
    "reinforce": (Boasts,),
    "gradcheck": (Detached,),
    "columns-kept": (Rewrites, Drops),
    "zero-outside": (Spills,),
    "mask-kept": (Spills,),
    "padding": (PerColumn, LastColumn),
    "other-rows": (AboveAverage,),
    "own-randomness": (Whims,),
    "numbers": (Renumbers,),
    "behaviour": (Misremembers,),
    "gives-kept": (Promises,),
    "whole-rows": (Mixes,),
    "evaluation": (Wanders,),
    "one-prompt": (AcrossPrompts,),
    "survives": (Fragile,),
    "own-folder": (Litters,),
    "every-row-once": (Repeats,),
    "repeatable": (Fickle,),
    "readable": (Bare,),
    "held-out": (Leaks,),
    "judges": (Unsure,),
    "process": (Overfull,),
}
