"""An OpenEnv server, played through its WebSocket: one session for each episode.

    environment: {use: openenv, url: "ws://localhost:8000", action: message, observation: text}

The policy's reply becomes one field of the action, and one field of the observation is what it reads. `done` ends the episode:
`terminated`, unless the observation says that it is truncated. Episodes are kept in the journal, as a service may answer otherwise.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import torch
from pydantic import Field

import hookline
from hookline import Context, Environment, ExperimentError, Record, ServiceError, Turn


class OpenEnv(Environment):
    """Plays the environment that a server offers."""

    seeded = False

    class Config(hookline.Config):
        url: str = Field(pattern=r"^(ws|http)s?://.+")
        """The address of the server; sessions are on `/ws` below it."""
        action: str = "message"
        """The field of the action that is the reply's text."""
        constants: dict[str, Any] = Field(default_factory=dict)
        """Other fields of every action."""
        observation: str = ""
        """The field of the observation that the policy reads; none: all of it, as JSON."""
        columns: tuple[str, ...] = ()
        """Columns of the row that `reset` gets, besides `seed` and `episode_id`."""
        begins: str = ""
        """Text before the first observation, e.g. what the task is."""

    socket: Any = None

    def setup(self, ctx: Context) -> None:
        try:
            from websockets.asyncio.client import connect
        except ImportError:
            raise ExperimentError(
                "environment 'openenv' needs the package websockets, which is not installed",
                "pip install 'hookline[openenv]'",
            ) from None
        self.connect = connect

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        await self.close()
        scheme, _, rest = self.config.url.partition("://")
        url = f"{scheme.replace('http', 'ws')}://{rest.rstrip('/').removesuffix('/ws')}/ws"
        try:
            self.socket = await self.connect(url, max_size=64 << 20)
        except (OSError, ValueError) as err:
            raise ServiceError(f"{url} does not answer: {err}", "start the server") from None
        seed = int(torch.randint(2**31, (), generator=rng))
        asked = {name: record[name] for name in self.config.columns if name in record}
        shown, _, _, _ = await self._observed(
            {"type": "reset", "data": {"seed": seed, "episode_id": f"{seed:08x}", **asked}}
        )
        self.episode = await self._episode()
        return Turn(text="\n".join(part for part in (self.config.begins, shown) if part))

    async def step(self, reply: str) -> Turn:
        c = self.config
        shown, reward, done, cut = await self._observed({"type": "step", "data": {**c.constants, c.action: reply}})
        if done and (found := await self._episode()) != self.episode:
            raise ServiceError(
                f"the server answers for episode {found}, and {self.episode} is played", "it must keep sessions apart"
            )
        return Turn(
            text="" if done else shown,
            rewards={"environment": reward},
            terminated=done and not cut,
            truncated=done and cut,
        )

    async def close(self) -> None:
        socket, self.socket = self.socket, None
        if socket is not None:
            await socket.send(json.dumps({"type": "close"}))
            await socket.close()

    async def _episode(self) -> Any:
        """The id of the episode that the session is in; None if the server has no state."""
        try:
            return (await self._asked({"type": "state"})).get("episode_id")
        except ServiceError:
            return None

    async def _observed(self, message: dict[str, Any]) -> tuple[str, float, bool, bool]:
        """(what is shown, the reward, whether the episode is over, whether it was cut)."""
        found = await self._asked(message)
        observation = found.get("observation", {})
        if not isinstance(observation, dict):
            raise ServiceError(
                f"the server sends {type(observation).__name__} as an observation, not an object", "see its schema"
            )
        name, about = self.config.observation, observation.get("metadata") or found.get("metadata") or {}
        if name and name not in observation:
            raise ServiceError(
                f"the observation has no field '{name}'; it has: {', '.join(observation)}", "set `observation`"
            )
        value = observation[name] if name else observation
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cut = bool(observation.get("truncated") or about.get("truncated") or about.get("TimeLimit.truncated"))
        reward = found.get("reward")
        return shown, 0.0 if reward is None else float(reward), bool(found.get("done")), cut

    async def _asked(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            await self.socket.send(json.dumps(message))
            answer = json.loads(await self.socket.recv())
        except asyncio.CancelledError:
            raise
        except Exception as err:  # a closed connection, or something that is not JSON
            raise ServiceError(
                f"the server's session ended: {' '.join(str(err).split())[:200]}", "look at its log"
            ) from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict) or answer.get("type") == "error":
            why = (data or {}).get("message", answer) if isinstance(data, dict) else answer
            raise ServiceError(
                f"the server refuses a {message['type']}: {str(why)[:200]}", "look at its schema: /schema"
            )
        return data
