"""A task's decision process, played as an environment: the prompt of a state first, then the answer to each action.

Outcomes are those of the process, in words. A reply is one action, and its reward is named `task`. A reply that is not an action in
the current state ends the episode, keeps the rewards so far, and costs `foul`. Random outcomes use the generator that `reset` receives,
one number per action with more than one outcome. The rollout `episodes` reads the process directly.
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
        """Number of actions after which an episode is cut. Large lets slow policies finish."""
        foul: float = Field(0.0, le=0, allow_inf_nan=False)
        """The reward of a reply that is not an action. At 0, a policy whose actions cost something learns to end episodes so."""

    process: Process
    state: State | None = None
    """The state of the current episode; None: no episode is running."""

    def setup(self, ctx: Context) -> None:
        found = ctx.task(self.config.task).process()
        if found is None:
            raise DataError(
                f"{self.config.task} has no process to play", "name a task that has one, e.g. builtin:walks"
            )
        self.process = found

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        """Start at the state whose prompt equals the record's; if several states share it, draw one by their probabilities."""
        prompt = record.get("prompt")
        starts = [(chance, state) for chance, state in self.process.starts() if self.process.prompt(state) == prompt]
        if not starts:
            raise DataError(
                f"{self.config.task} has no prompt '{str(prompt)[:40]}' to start from", "use the task's own rows"
            )
        total = sum(chance for chance, _ in starts)
        shares = [(chance / total, state) for chance, state in starts]
        self.rng, self.taken = rng, 0
        self.state = shares[self._which(shares)][1]
        return Turn(text=self.process.prompt(self.state), terminated=not self.process.actions(self.state))

    async def step(self, reply: str) -> Turn:
        """Take an action: what the process shows, what the action earned, and whether the episode is over."""
        state, action = self.state, reply.strip()
        if state is None:
            raise PluginError(f"'{self.instance}' received a reply, but no episode is running", "call reset first")
        if action not in self.process.actions(state):
            self.state = None
            return Turn(rewards={"task": self.config.foul} if self.config.foul else {}, terminated=True)
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
        """Draw an index of (probability, …). With a single outcome no random number is used."""
        if len(chances) == 1:
            return 0
        return pick(chances, float(torch.rand((), generator=self.rng, dtype=torch.float64)))
