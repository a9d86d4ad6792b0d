"""A task's decision process, played as an environment: what a state's prompt says, then what each action is answered.

The same outcomes as the process itself, in words: a reply is one action; what it earned is the reward `task`; a reply that
is no action there ends the episode, and what was paid before stays. Chance is drawn from the generator that `reset` is given,
one number per action that leaves something to it. Rollouts that keep tables (`episodes`) read the process itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import Context, DataError, DataName, Environment, PluginError, Process, Record, State, Turn
from hookline_plugins.maths import pick


class ProcessEnvironment(Environment):
    """Plays a task that has a process, e.g. builtin:cliff, on rows whose `prompt` is one of its first states."""

    class Config(hookline.Config):
        task: DataName
        """A task with a process, e.g. builtin:wordle."""
        longest: int = Field(100, ge=1)
        """Actions after which an episode is cut. Large lets slow policies finish."""

    process: Process
    state: State | None = None
    """Where the episode is; None: there is none under way."""

    def setup(self, ctx: Context) -> None:
        found = ctx.task(self.config.task).process()
        if found is None:
            raise DataError(
                f"{self.config.task} has no process to play", "name a task that has one, e.g. builtin:walks"
            )
        self.process = found

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        """Begin at the first state whose prompt is the record's; where several share it, by their probabilities."""
        prompt = record.get("prompt")
        starts = [(chance, state) for chance, state in self.process.starts() if self.process.prompt(state) == prompt]
        if not starts:
            raise DataError(f"{self.config.task} has no prompt '{str(prompt)[:40]}' to start from", "take its own rows")
        total = sum(chance for chance, _ in starts)
        shares = [(chance / total, state) for chance, state in starts]
        self.rng, self.taken = rng, 0
        self.state = shares[self._which(shares)][1]
        return Turn(text=self.process.prompt(self.state), terminated=not self.process.actions(self.state))

    async def step(self, reply: str) -> Turn:
        """Take an action: what the process shows, what the action earned, and whether the episode is over."""
        state, action = self.state, reply.strip()
        if state is None:
            raise PluginError(f"'{self.instance}' was given a reply to no episode", "call reset first")
        if action not in self.process.actions(state):
            self.state = None
            return Turn(terminated=True)
        follows = self.process.step(state, action)
        _, after, reward = follows[self._which(follows)]
        shown, self.taken = self.process.shows(state, action, after), self.taken + 1
        terminated = not self.process.actions(after)
        truncated = not terminated and self.taken >= self.config.longest
        self.state = None if terminated or truncated else after
        return Turn(
            text=shown,
            token_ids=None if shown else (),
            rewards={"task": reward},
            terminated=terminated,
            truncated=truncated,
        )

    def _which(self, chances: Sequence[tuple[Any, ...]]) -> int:
        """Which of (probability, …) comes true; nothing is drawn where there is no choice."""
        if len(chances) == 1:
            return 0
        return pick(chances, float(torch.rand((), generator=self.rng, dtype=torch.float64)))
