"""Python functions as tools: a file with functions that have type hints and docstrings, and one that scores the answer.

    environment: {use: functions, path: tools.py, tools: [add, search], score: right}

The policy sees the functions' schemas in its chat template and calls them as its template says; a reply without a call is its answer
and ends the episode. `score(answer, **columns)` returns its reward: `answer` is the text, the other parameters are columns of the row.

Functions are called in processes of their own, which several episodes share, so a function should keep nothing between calls. Each
call has a limit of time, memory and output. An exception is told to the policy; a call that is late or ends its process leaves the
episode without a judgement. `random` and NumPy are seeded before each call.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import CodePath, Context, Environment, ExperimentError, PluginError, Record, Turn
from hookline_plugins.environments.calls import answers, conversation, schema_of
from hookline_plugins.environments.threads import in_thread
from hookline_plugins.environments.workers import Limits, Raised, Workers, shared
from hookline_plugins.user_code import load


class Functions(Environment):
    """A question, tools to answer it with, and a score for the answer."""

    class Config(hookline.Config):
        path: CodePath
        """The Python file, relative to the experiment's file. It is copied into the run, alone."""
        tools: tuple[str, ...] = Field(min_length=1)
        """The functions that the policy may call. Each needs type hints, and a docstring with a line for each parameter."""
        score: str = ""
        """The function that gives the reward of an answer: `score(answer, **columns)`; none: the phase's rewards judge it."""
        seconds: float = Field(10.0, gt=0)
        """Time limit of a call. Large tolerates slow tools, and waits longer for those that hang."""
        memory: float = Field(4.0, ge=0)
        """Limit of a process, in GiB of addresses; 0: none."""
        output: int = Field(4000, ge=1)
        """Characters of a result; a longer one is cut, and says so."""
        processes: bool = False
        """Whether functions may start processes."""
        workers: int = Field(4, ge=1)
        """Number of calls at the same time, each in a process."""
        repeatable: bool = True
        """Whether functions answer the same call in the same way; False, e.g. for a search on the web, keeps episodes in the
        journal, so that a resumed run does not play them again."""

    workers: Workers | None = None

    @property
    def seeded(self) -> bool:  # type: ignore[override]
        """Whether an episode is a function of its seed."""
        return bool(self.config.repeatable)

    def setup(self, ctx: Context) -> None:
        c = self.config
        self.ctx = ctx
        found = {name: load(c.path, name) for name in (*c.tools, *([c.score] if c.score else []))}
        self.tools = [schema_of(found[name], f"'{name}' of {c.path}") for name in c.tools]
        self.parameters = () if not c.score else tuple(inspect.signature(found[c.score]).parameters)
        if c.score and not self.parameters:
            raise ExperimentError(
                f"'{c.score}' of {c.path} takes no parameter for the answer", f"def {c.score}(answer, …): …"
            )
        self.workers = shared(c.path, Limits(c.seconds, c.memory, c.output, c.processes), c.workers)

    def close(self) -> None:
        workers, self.workers = self.workers, None
        if workers is not None:
            workers.close()

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        self.record, self.seed, self.calls = record, int(torch.randint(2**31, (), generator=rng)), 0
        missing = [name for name in self.parameters[1:] if name not in record]
        if missing:
            raise ExperimentError(
                f"'{self.config.score}' of {self.config.path} needs the column '{missing[0]}'; a row has: {', '.join(record)}",
                "name its parameters after columns of the rows",
            )
        return Turn(messages=conversation(record, f"'{self.instance}'"))

    async def step(self, reply: str) -> Turn:
        found = await answers(self.ctx, reply, self.tools, self._call)
        if found:
            return Turn(messages=found)
        if not self.config.score:
            return Turn(terminated=True)
        message, _ = self.ctx.read_turn(reply, tools=self.tools)
        first, *columns = self.parameters
        value = await self._ask(
            self.config.score, {first: message["content"], **{name: self.record[name] for name in columns}}, raw=True
        )
        try:
            reward = float(value)
        except (TypeError, ValueError):
            reward = math.nan
        if not math.isfinite(reward):
            raise PluginError(
                f"'{self.config.score}' of {self.config.path} returned {value!r:.60}, not a finite number",
                "return a number",
            )
        return Turn(rewards={self.config.score: reward}, terminated=True)

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            return str(await self._ask(name, arguments))
        except Raised as err:
            return f"Error: {err}"

    async def _ask(self, name: str, arguments: dict[str, Any], raw: bool = False) -> Any:
        workers, self.calls = self.workers, self.calls + 1
        assert workers is not None
        seed = self.seed + self.calls
        return await in_thread(lambda: workers.call(name, arguments, seed, raw))
