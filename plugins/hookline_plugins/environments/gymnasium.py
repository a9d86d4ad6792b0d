"""A Gymnasium environment whose observations are text, or are shown as text.

    environment: {use: gymnasium, id: FrozenLake-v1, arguments: {is_slippery: false}, actions: [left, down, right, up], show: render}

What the policy replies is the action: text for an action space of text, one of `actions` or a number for a discrete one. A reply that
is not an action costs nothing and is answered with what the actions are; after `mistakes` of them the episode is cut. The environment
gets its seed from the episode's.
"""

from __future__ import annotations

import json
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator

import hookline
from hookline import CodePath, Context, Environment, ExperimentError, PluginError, Record, Turn
from hookline_plugins.environments.threads import in_thread
from hookline_plugins.user_code import module_of


class Gymnasium(Environment):
    """Plays an environment by its id, or one that a file of yours makes."""

    class Config(hookline.Config):
        id: str = ""
        """The environment's id, as `gymnasium.make` takes it."""
        path: CodePath | None = None
        """A Python file with the environment, instead of an id."""
        make: str = ""
        """With `path`: the class or function of the file that makes the environment."""
        arguments: dict[str, Any] = Field(default_factory=dict)
        """Its arguments, by name."""
        actions: tuple[str, ...] = ()
        """The words for the actions 0, 1, … of a discrete action space; none: the policy replies with the number."""
        show: Literal["observation", "render"] = "observation"
        """What the policy reads: the observation, or what `render_mode="ansi"` draws."""
        mistakes: int = Field(3, ge=1)
        """Number of replies that are not actions after which an episode is cut. Large lets the policy try longer."""
        begins: str = ""
        """Text before the first observation, e.g. what the task is."""

        @model_validator(mode="after")
        def _one_way(self) -> Self:
            if bool(self.id) == bool(self.path) or bool(self.path) != bool(self.make):
                raise ValueError("needs `id`, or `path` and `make`")
            return self

    made: Any = None

    def setup(self, ctx: Context) -> None:
        try:
            import gymnasium
        except ImportError:
            raise ExperimentError(
                "environment 'gymnasium' needs the package gymnasium, which is not installed",
                "pip install 'hookline[gymnasium]'",
            ) from None
        self.package = gymnasium
        if self.config.path:
            found = getattr(module_of(self.config.path), self.config.make, None)
            if not callable(found):
                raise ExperimentError(
                    f"{self.config.path} has no class or function '{self.config.make}'", "name one of its own"
                )
        elif self.config.id.partition(":")[0] == self.config.id and self.config.id not in gymnasium.registry:
            raise ExperimentError(
                f"gymnasium has no environment '{self.config.id}'", "name a registered id, or MODULE:ID"
            )

    async def reset(self, record: Record, rng: torch.Generator) -> Turn:
        seed, self.mistakes = int(torch.randint(2**31, (), generator=rng)), 0
        begun = await in_thread(lambda: self._begin(seed, record))
        return Turn(text="\n".join(part for part in (self.config.begins, begun) if part))

    async def step(self, reply: str) -> Turn:
        action, why = self._action(reply.strip())
        if why:
            self.mistakes += 1
            return Turn(text=why, truncated=self.mistakes >= self.config.mistakes)
        shown, reward, terminated, truncated = await in_thread(lambda: self._step(action))
        over = terminated or truncated
        return Turn(
            text="" if over else shown,
            rewards={"environment": reward},
            terminated=terminated,
            truncated=truncated and not terminated,
        )

    def close(self) -> None:
        made, self.made = self.made, None
        if made is not None:
            made.close()

    def _begin(self, seed: int, record: Record) -> str:
        c = self.config
        render = {"render_mode": "ansi"} if c.show == "render" else {}
        if self.made is None and c.path:
            self.made = getattr(module_of(c.path), c.make)(**c.arguments, **render)
        elif self.made is None:
            self.made = self.package.make(c.id, **c.arguments, **render)
        observation, _ = self.made.reset(seed=seed, options=dict(record) or None)
        return self._shown(observation)

    def _step(self, action: Any) -> tuple[str, float, bool, bool]:
        observation, reward, terminated, truncated, _ = self.made.step(action)
        return self._shown(observation), float(reward), bool(terminated), bool(truncated)

    def _shown(self, observation: Any) -> str:
        if self.config.show == "render":
            drawn = self.made.render()
            if not isinstance(drawn, str):
                raise PluginError(f"'{self.instance}' renders no text in the mode ansi", "use show: observation")
            return drawn.strip("\n")
        if isinstance(observation, str):
            return observation
        plain = observation.tolist() if hasattr(observation, "tolist") else observation
        try:
            return json.dumps(plain, default=lambda one: one.tolist() if hasattr(one, "tolist") else str(one))
        except (TypeError, ValueError):
            return str(observation)

    def _action(self, reply: str) -> tuple[Any, str]:
        """(the action, ""), or (None, what to say to a reply that is not one)."""
        space = self.made.action_space
        if not isinstance(space, self.package.spaces.Discrete):
            if isinstance(space, self.package.spaces.Text):
                return reply, ""
            raise PluginError(
                f"'{self.instance}' has the action space {type(space).__name__}, which a reply cannot be",
                "wrap it, so that actions are text or discrete",
            )
        first, n = int(space.start), int(space.n)
        words = [word.lower() for word in self.config.actions] or [str(first + i) for i in range(n)]
        if len(words) != n:
            raise PluginError(
                f"'{self.instance}' has {n} actions, and `actions` names {len(words)}", "name all of them, in order"
            )
        if reply.lower() in words:
            return first + words.index(reply.lower()), ""
        return None, f"'{reply[:40]}' is not an action; the actions are: {', '.join(self.config.actions or words)}"
