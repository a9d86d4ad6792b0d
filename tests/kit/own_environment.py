"""An environment that says what the suite's own rows say, so that any tokenizer of the suite knows its words."""

from typing import Any

import gymnasium

from hookline.testing.surroundings import own_rows


class Own(gymnasium.Env):  # type: ignore[misc]
    """Two replies, each paid by its length."""

    action_space = gymnasium.spaces.Text(1000)
    observation_space = gymnasium.spaces.Text(1000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 2
        return own_rows()[0]["prompt"], {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return own_rows()[self.left]["prompt"], float(len(action)), self.left == 0, False, {}
