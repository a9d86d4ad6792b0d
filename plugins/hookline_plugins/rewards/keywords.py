"""Whether an answer contains the requested words, and whether it is a sentence."""

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
    """Share of a row's `keywords` that occur in the answer as whole words, each counted once."""

    better = "higher"

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> torch.Tensor:
        return torch.tensor([coverage(rollout.response_text(i), keywords(rollout, i)) for i in range(len(rollout))])


class KeywordSentence(Component):
    """The gold reward of the task `keywords`, between 0 and 1: a weighted sum of three properties of the answer.

    coverage: share of the keywords that occur in it and not side by side (a list of keywords is not a sentence);
    form: 1 for one complete sentence of the right length, with a capital at the start and a single full stop at the end;
    phrasing: share of its pairs of neighbouring words that also occur in the training documentation.
    """

    better = "higher"

    class Config(hookline.Config):
        coverage: float = Field(0.6, ge=0, le=1)
        """Weight of coverage."""
        form: float = Field(0.2, ge=0, le=1)
        """Weight of form."""
        phrasing: float = Field(0.2, ge=0, le=1)
        """Weight of phrasing."""
        shortest: int = Field(5, ge=1)
        """Minimum number of words of a sentence."""
        longest: int = Field(12, ge=1)
        """Maximum number of words of a sentence."""

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
        raise DataError(f"{where}: the record has no list 'keywords'", "use prompts whose rows have `keywords`")
    return [str(word).lower() for word in words]


def coverage(text: str, words: list[str]) -> float:
    """Share of the words that occur in the text."""
    found = set(words_of(text))
    return sum(word in found for word in words) / len(words)


def apart(answer: list[str], words: list[str]) -> float:
    """Share of the words that occur in the text without another of the words next to them."""
    wanted = set(words)
    alone = {
        word
        for i, word in enumerate(answer)
        if word in wanted and not wanted & {*answer[max(0, i - 1) : i], *answer[i + 1 : i + 2]}
    }
    return len(alone) / len(wanted)
