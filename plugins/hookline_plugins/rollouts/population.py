"""Every possible answer with its probability: losses over a whole population, without sampling noise.

For tasks with few answers. Each prompt's answers are one group, and three columns contain the values that sampling would only
estimate: `weight_B`, the probability that the learner gives the answer; `opponent_B`, the probability that its opponent does; and
`preference_B` [B, K], P(answer ≻ the k-th answer of its group).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, DataError, DataName, ExperimentError, Process, Rollout, hookimpl
from hookline_plugins.maths import falling

MOST = 1024
"""Maximum number of answers to a prompt. All pairs of them are compared."""


class Population(Component):
    """All answers to all prompts of a task with a process, in every step."""

    needs = frozenset({"before"})
    gives = frozenset({"groups", "recorded_B", "weight_B", "opponent_B", "preference_B"})

    class Config(hookline.Config):
        task: DataName
        """A task with a deterministic process, e.g. builtin:arms."""
        learner: float = Field(0.0, ge=0, le=1)
        """The source of the answers: 0 is the policy, 1 the reference, a value a between them the mixture π^(1−a) π_ref^a."""
        opponent: float = Field(0.0, ge=0, le=1)
        """The source of the answers that they are compared with, on the same scale."""
        final_opponent: float | None = Field(None, ge=0, le=1)
        """The value of `opponent` at the end of the phase, reached linearly; none: it is constant."""

    def setup(self, ctx: Context) -> None:
        c = self.config
        self.task = ctx.task(c.task)
        process = self.task.process()
        if process is None:
            raise ExperimentError(f"{c.task} has no process, so its answers cannot be enumerated", "use generate")
        self.rows, self.groups, self.start = [], [], []
        blocks, worth = [], []
        for group, (chance, start) in enumerate(process.starts()):
            prompt = process.prompt(start)
            answers = list(_answers(process, start, c.task))
            for answer in answers:
                row = ctx.encode({"prompt": prompt, "completion": answer}, where=c.task)
                self.rows.append(replace(row, record={"prompt": prompt}))
                self.groups.append(group)
                self.start.append(chance)
                worth.append(self.task.reward({"prompt": prompt}, answer))
            blocks.append(
                torch.tensor([[self.task.preference({"prompt": prompt}, a, b) for b in answers] for a in answers])
            )
        width = max(map(len, blocks))
        self.preference_BK = torch.cat([torch.nn.functional.pad(b, (0, width - len(b)), value=0.5) for b in blocks])
        self.reward_B = torch.tensor(worth)
        ctx.role("reference", frozen=True)

    @hookimpl
    def hookline_rollout(self, ctx: Context) -> Rollout:
        mine = ctx.shard(range(max(self.groups) + 1))
        own = [row for row, group in enumerate(self.groups) if group in mine]
        rows, groups = [self.rows[row] for row in own], [self.groups[row] for row in own]
        batch = Rollout.build(ctx, rows, source=self.config.task, group=groups)
        return batch.with_extra(
            recorded_B=self.reward_B[own],
            preference_B=self.preference_BK[own],
            weight_B=self._share(ctx, batch, self.config.learner) * torch.tensor(self.start)[own],
            opponent_B=self._share(
                ctx, batch, falling(self.config.opponent, self.config.final_opponent, ctx.step, ctx.steps)
            ),
        )

    def _share(self, ctx: Context, batch: Rollout, mixture: float) -> torch.Tensor:
        """Each answer's probability among its prompt's answers."""
        logprob_B = (1 - mixture) * ctx.stats(batch).logprobs_BT.sum(1)
        logprob_B = logprob_B + mixture * ctx.stats(batch, model="reference").logprobs_BT.sum(1)
        shares = [torch.softmax(logprob_B[batch.group_B == group], 0) for group in torch.unique(batch.group_B)]
        return torch.cat([torch.zeros(0), *shares])


def _answers(process: Process, start: object, name: str) -> Iterator[str]:
    """Every path from a start to an end, as words."""
    found = 0
    open_: list[tuple[object, Sequence[str]]] = [(start, ())]
    while open_:
        state, words = open_.pop(0)
        actions = process.actions(state)
        if not actions:
            found += 1
            yield " ".join(words)
        for word in actions:
            outcomes = process.step(state, word)
            if len(outcomes) > 1:
                raise DataError(f"the process of {name} is random, so an answer has no fixed reward", "use generate")
            open_.append((outcomes[0][1], (*words, word)))
        if found + len(open_) > MOST:
            raise DataError(f"{name} has more than {MOST} answers to a prompt", "sample answers instead: use generate")
