"""Does an answer contain the words it was asked for?"""

from __future__ import annotations

import re

import torch

from hookline import Component, DataError, Rollout, hookimpl

WORD = re.compile(r"[a-z]+")


class KeywordCoverage(Component):
    """Share of a row's `keywords` that stand in the answer as whole words, each counted once."""

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return torch.tensor([coverage(rollout.response_text(i), keywords(rollout, i)) for i in range(len(rollout))])


def keywords(rollout: Rollout, row: int) -> list[str]:
    """The row's keywords, or a DataError that names the row."""
    words = rollout.records[row].get("keywords")
    if not isinstance(words, list) or not words:
        raise DataError(
            f"sample {int(rollout.sample_B[row])}: its record has no list 'keywords'", "use prompts that name them"
        )
    return [str(word).lower() for word in words]


def coverage(text: str, words: list[str]) -> float:
    """Share of the words that occur in the text."""
    found = set(WORD.findall(text.lower()))
    return sum(word in found for word in words) / len(words)
