"""Whether an answer has the right form: 1 where a regular expression matches, 0 elsewhere (format reward of DeepSeek-R1, 2025, §2.2.2).

`(?s)` at the start of the pattern lets `.` match line ends. Patterns run on text that a model wrote, and nested repeats such as
`(a+)+` can take extremely long on some answers. Healthy: near 1 early, long before the task's own reward is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import field_validator

import hookline
from hookline import Component, Rollout, hookimpl


class Format(Component):
    """Matches a pattern against each answer with its special tokens, such as `<think>`, without the token that ended it."""

    better = "higher"

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {"regex": "pattern", "fullmatch": "whole"}
        pattern: str
        """A regular expression, e.g. `(?s)<think>.*</think>.*`."""
        whole: bool = True
        """True: the whole answer must match. False: any part of it may match."""

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, value: str) -> str:
            try:
                re.compile(value)
            except re.error as err:
                raise ValueError(f"is not a regular expression: {err}") from None
            return value

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        match = re.compile(self.config.pattern)
        matches = match.fullmatch if self.config.whole else match.search
        said = [matches(rollout.response_text(i, special=True)) is not None for i in range(len(rollout))]
        return torch.tensor(said, dtype=torch.float32)
