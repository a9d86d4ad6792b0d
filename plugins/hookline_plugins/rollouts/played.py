"""One environment while it is played: each call has a time limit, and what it returns is checked before it is used."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hookline import Context, Environment, HooklineError, Record, ServiceError, Turn
from hookline_plugins.user_code import said

__all__ = ["Played"]


class Odd(Exception):
    """What an environment returned is not a turn; the message says why."""


@dataclass
class Played:
    """An environment, or the journaled turns of one, and why it failed."""

    environment: Environment
    limit: float
    """Seconds that a call may take."""
    told: Sequence[Mapping[str, Any]] | None = None
    """The turns that a run before its resume has seen; the environment is then not called."""
    failed: str = ""
    """Why the episode cannot be judged; empty if it can."""
    turns: list[dict[str, Any]] = field(default_factory=list)
    """What was said so far, for the journal."""

    def setup(self, ctx: Context) -> None:
        """Set the environment up, unless its turns are known."""
        if self.told is not None:
            return
        try:
            self.environment.setup(ctx)
        except Exception as err:
            self._fail(err, "begin")

    async def reset(self, record: Record, rng: torch.Generator) -> Turn | None:
        """The first turn; None if the environment failed."""
        turn = await self._ask(lambda: self.environment.reset(record, rng), "begin")
        if turn is not None and turn.over:
            self._fail(Odd("ended its episode before the policy replied"), "begin")
            return None
        return turn

    async def step(self, reply: str) -> Turn | None:
        """What the environment says to a reply; None if it failed."""
        return await self._ask(lambda: self.environment.step(reply), "answer")

    async def close(self) -> None:
        """Close the environment; an exception here does not lose its episode."""
        if self.told is not None:
            return
        try:
            found = self.environment.close()
            if inspect.isawaitable(found):
                await asyncio.wait_for(found, self.limit)
        except Exception:
            return

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that the policy may call."""
        if self.told:
            return [dict(tool) for tool in self.told[0].get("tools", ())]
        return [dict(tool) for tool in self.environment.tools]

    async def _ask(self, call: Any, what: str) -> Turn | None:
        if self.failed:
            return None
        if self.told is not None:
            return self._known()
        try:
            coroutine = call()
            if not inspect.isawaitable(coroutine):
                raise Odd(f"is not an `async def`: it returns {_a(coroutine)}")
            turn = _checked(await asyncio.wait_for(_as_coroutine(coroutine), self.limit))
        except Exception as err:
            self._fail(err, what)
            return None
        self.turns.append(_packed(turn, self.tools if not self.turns else ()))
        return turn

    def _known(self) -> Turn | None:
        assert self.told is not None
        if len(self.turns) == len(self.told):
            self.failed = "its journal ends before the episode does"
            return None
        found = dict(self.told[len(self.turns)])
        self.turns.append(found)
        self.failed = found.pop("failed", "")
        found.pop("tools", None)
        return None if self.failed else Turn(**found)

    def fail(self, err: HooklineError) -> None:
        """The episode cannot be judged, because the policy cannot read a turn."""
        self.failed = f"environment '{self.environment.instance}': {err.message}"
        if self.told is None:
            self.turns.append({"failed": self.failed})

    def _fail(self, err: Exception, what: str) -> None:
        """Keep why the episode cannot be judged. An error that ends the run is raised again."""
        if isinstance(err, HooklineError) and not isinstance(err, ServiceError):
            raise err
        if isinstance(err, Odd):
            why = str(err)
        elif isinstance(err, TimeoutError) and not str(err):
            why = f"did not {what} within {self.limit:g} s"
        elif isinstance(err, ServiceError):
            why = f"did not {what}: {err.message}"
        else:
            why = f"did not {what}: {said(err, inspect.getsourcefile(type(self.environment)) or '')}"
        self.failed = f"environment '{self.environment.instance}' {why}"
        self.turns.append({"failed": self.failed})


async def _as_coroutine(found: Any) -> Any:
    try:
        return await found
    except SystemExit:  # it would end the event loop
        raise Odd("calls sys.exit") from None


def _checked(turn: Any) -> Turn:
    """The turn with plain values. Raises Odd for what is not one."""
    if not isinstance(turn, Turn):
        raise Odd(f"returned {_a(turn)}, not a hookline.Turn")
    if not isinstance(turn.text, str):
        raise Odd(f"returned a turn whose text is {_a(turn.text)}")
    several: Any = turn.messages
    messages: list[Any] = [several] if isinstance(several, Mapping | str | bytes) else list(several)
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or "content" not in message:
            raise Odd("returned a message that is not {role: …, content: …}")
        if not isinstance(message["content"], str | list):
            raise Odd(f"returned a message whose content is {_a(message['content'])}")
    ids = None if turn.token_ids is None else list(turn.token_ids)
    if ids is not None and not all(isinstance(one, int) and one >= 0 for one in ids):
        raise Odd("returned token_ids that are not numbers from 0 on")
    rewards: dict[str, float] = {}
    for name, value in turn.rewards.items():
        try:
            rewards[str(name)] = float(value)
        except (TypeError, ValueError):
            raise Odd(f"returned the reward '{name}' as {_a(value)}, not a number") from None
        if not math.isfinite(rewards[str(name)]) or abs(rewards[str(name)]) > torch.finfo(torch.float32).max:
            raise Odd(f"returned the reward '{name}' = {value}, which is not finite")
    plain = [dict(message) for message in messages]
    made = Turn(
        messages=plain,
        text=turn.text,
        token_ids=ids,
        rewards=rewards,
        terminated=bool(turn.terminated),
        truncated=bool(turn.truncated),
    )
    if not made.over and not made.messages and not made.text and made.token_ids is None:
        raise Odd("returned a turn that says nothing and is not over")
    return made


def _packed(turn: Turn, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"messages": turn.messages, "text": turn.text, "token_ids": turn.token_ids, "rewards": dict(turn.rewards)}
    found |= {"terminated": turn.terminated, "truncated": turn.truncated}
    shown = {key: value for key, value in found.items() if value or (key == "token_ids" and value is not None)}
    return {**shown, **({"tools": list(tools)} if tools else {})}


def _a(value: object) -> str:
    name = type(value).__name__
    return "nothing" if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
