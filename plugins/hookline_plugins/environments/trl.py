"""An environment written for TRL's `environment_factory`: a class whose public methods are the tools.

    environment: {use: trl, path: game.py, make: Game}

`reset(**columns)` gets the columns of the row and returns None, or text or parts that are appended to the last message of the prompt.
All other public methods are tools, by their type hints and docstrings. A reply that calls none of them ends the episode, and
`get_reward()` is its reward. Methods may be `async`. TRL itself is not needed.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import CodePath, Context, Environment, ExperimentError, Record, Turn
from hookline_plugins.environments.calls import answers, conversation, schema_of
from hookline_plugins.environments.threads import in_thread
from hookline_plugins.user_code import module_of, said


class TRL(Environment):
    """Plays an object of your class, a new one for each episode."""

    class Config(hookline.Config):
        path: CodePath
        """The Python file, relative to the experiment's file. It is copied into the run, alone."""
        make: str
        """The class, or a function that makes an object."""
        arguments: dict[str, Any] = Field(default_factory=dict)
        """Its arguments, by name."""
        repeatable: bool = True
        """Whether an episode is a function of the row and the replies; False keeps episodes in the journal, so that a resumed run
        does not play them again."""

    @property
    def seeded(self) -> bool:  # type: ignore[override]
        """Whether an episode is a function of its seed."""
        return bool(self.config.repeatable)

    def setup(self, ctx: Context) -> None:
        self.ctx, c = ctx, self.config
        self.factory = getattr(module_of(c.path), c.make, None)
        if not callable(self.factory):
            raise ExperimentError(f"{c.path} has no class or function '{c.make}'", "name the class of the environment")
        if isinstance(self.factory, type):
            self._look(self.factory)

    def _look(self, cls: type) -> list[str]:
        """The names of the methods that are tools."""
        methods = [name for name, _ in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")]
        if "reset" not in methods:
            raise ExperimentError(
                f"'{self.config.make}' of {self.config.path} has no method `reset`", "add one: def reset(self, **row)"
            )
        names = [name for name in methods if name not in ("reset", "get_reward")]
        self.tools = [schema_of(self._unbound(cls, name), f"'{name}' of {self.config.path}") for name in names]
        return names

    @staticmethod
    def _unbound(cls: type, name: str) -> Callable[..., Any]:
        """A method with the signature that it has on an object."""
        return getattr(cls, name).__get__(object(), object)  # type: ignore[no-any-return]

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        seed = int(torch.randint(2**31, (), generator=rng))
        assert self.factory is not None

        def make() -> Any:
            random.seed(seed)
            return self.factory(**self.config.arguments)  # type: ignore[misc]

        self.object = await in_thread(make)
        self._look(type(self.object))
        shown = await self._called(self.object.reset, dict(record))
        messages = conversation(record, f"'{self.instance}'")
        if shown is not None:
            before = messages[-1].get("content") or ""
            if isinstance(shown, list) or isinstance(before, list):
                before = [{"type": "text", "text": before}] if isinstance(before, str) else before
                shown = [{"type": "text", "text": shown}] if isinstance(shown, str) else shown
            messages[-1] = {**messages[-1], "content": before + shown}
        return Turn(messages=messages)

    async def step(self, reply: str) -> Turn:
        found = await answers(self.ctx, reply, self.tools, self._call)
        if found:
            return Turn(messages=found)
        if not hasattr(self.object, "get_reward"):
            return Turn(terminated=True)
        reward = await self._called(self.object.get_reward, {})
        return Turn(rewards={type(self.object).__name__: reward}, terminated=True)

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        try:
            return str(await self._called(getattr(self.object, name), arguments))
        except Exception as err:  # as TRL does: an exception of a tool is told to the policy
            return f"Error: {said(err, self.config.path)}"

    @staticmethod
    async def _called(method: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(method):
            return await method(**arguments)
        return await in_thread(lambda: method(**arguments))
