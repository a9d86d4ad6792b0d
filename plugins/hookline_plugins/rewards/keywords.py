"""Does an answer contain the words it was asked for, and is it a sentence?"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise

import torch
from pydantic import Field

import hookline
from hookline import Component, DataError, Rollout, hookimpl
from hookline_plugins.tasks.keywords import phrases, words_of

SENTENCE = re.compile(r"[A-Z][^\n.]*\.")


class KeywordCoverage(Component):
    """Share of a row's `keywords` that stand in the answer as whole words, each counted once."""

    better = "higher"

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return torch.tensor([coverage(rollout.response_text(i), keywords(rollout, i)) for i in range(len(rollout))])


class KeywordSentence(Component):
    """The gold reward of the task `keywords`, between 0 and 1: a weighed sum of three things one can see in the answer.

    coverage: share of the keywords that stand in it, not side by side (a bare list of them is no sentence);
    form: 1 for one finished sentence of the right length, a capital in front and a single full stop at the end;
    phrasing: share of its neighbouring words that stand side by side somewhere in the training documentation.
    """

    better = "higher"

    class Config(hookline.Config):
        coverage: float = Field(0.6, ge=0, le=1)
        """Weight of the keywords."""
        form: float = Field(0.2, ge=0, le=1)
        """Weight of being one finished sentence."""
        phrasing: float = Field(0.2, ge=0, le=1)
        """Weight of known phrases."""
        shortest: int = Field(5, ge=1)
        """Words of a sentence, at least."""
        longest: int = Field(12, ge=1)
        """Words of a sentence, at most."""

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return torch.tensor([self.worth(rollout, i) for i in range(len(rollout))])

    def worth(self, rollout: Rollout, row: int) -> float:
        c, text = self.config, rollout.response_text(row)
        finished = rollout.finish_reason[row] != "length"
        words = words_of(text)
        formed = finished and bool(SENTENCE.fullmatch(text)) and c.shortest <= len(words) <= c.longest
        neighbours = list(pairwise(words))
        phrasing = sum(pair in known_phrases() for pair in neighbours) / max(1, len(neighbours))
        return float(c.coverage * apart(words, keywords(rollout, row)) + c.form * formed + c.phrasing * phrasing)


@cache
def known_phrases() -> frozenset[tuple[str, str]]:
    return phrases()


def keywords(rollout: Rollout, row: int) -> list[str]:
    """The row's keywords, or a DataError that names the row."""
    words = rollout.records[row].get("keywords")
    if not isinstance(words, list) or not words:
        where = f"sample {int(rollout.sample_B[row])}"
        raise DataError(f"{where}: its record has no list 'keywords'", "use prompts that name them")
    return [str(word).lower() for word in words]


def coverage(text: str, words: list[str]) -> float:
    """Share of the words that occur in the text."""
    found = set(words_of(text))
    return sum(word in found for word in words) / len(words)


def apart(answer: list[str], words: list[str]) -> float:
    """Share of the words that occur with no other of them right beside."""
    wanted = set(words)
    alone = {
        word
        for i, word in enumerate(answer)
        if word in wanted and not wanted & {*answer[max(0, i - 1) : i], *answer[i + 1 : i + 2]}
    }
    return len(alone) / len(wanted)
