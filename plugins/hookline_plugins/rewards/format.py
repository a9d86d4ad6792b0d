"""Whether an answer keeps a form: 1 where a regular expression matches, 0 elsewhere (format reward of DeepSeek-R1, 2025, §2.2.2).

`(?s)` at the pattern's head lets `.` pass line ends. Patterns run on text that a model wrote: nested repeats such as
`(a+)+` may take for ever on the wrong answer. Healthy: near 1 early, long before the task's own reward is.
"""

from __future__ import annotations

import re

import torch
from pydantic import field_validator

import hookline
from hookline import Component, Rollout, hookimpl


class Format(Component):
    """Matches each answer, without the token that ended it."""

    better = "higher"

    class Config(hookline.Config):
        pattern: str
        """A regular expression, e.g. `(?s)<think>.*</think>.*`."""
        whole: bool = True
        """The whole answer must match; else any part of it."""

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, value: str) -> str:
            try:
                re.compile(value)
            except re.error as err:
                raise ValueError(f"is no regular expression: {err}") from None
            return value

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        match = re.compile(self.config.pattern)
        matches = match.fullmatch if self.config.whole else match.search
        said = [matches(rollout.response_text(i)) is not None for i in range(len(rollout))]
        return torch.tensor(said, dtype=torch.float32)
