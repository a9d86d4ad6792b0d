"""How good an answer is, for simulated annotators: the gold reward of the task `keywords`, computed from what the page shows."""

from __future__ import annotations

from itertools import pairwise

from hookline_plugins.rewards.keywords import SENTENCE, apart, known_phrases
from hookline_plugins.tasks.keywords import words_of


def gold(prompt: str, answer: str) -> float:
    """As `keyword-sentence` with its defaults; an answer that was cut off has no full stop, and so no form either way."""
    words = words_of(answer)
    neighbours = list(pairwise(words))
    phrasing = sum(pair in known_phrases() for pair in neighbours) / max(1, len(neighbours))
    formed = bool(SENTENCE.fullmatch(answer)) and 5 <= len(words) <= 12
    return 0.6 * coverage(prompt, answer) + 0.2 * formed + 0.2 * phrasing


def coverage(prompt: str, answer: str) -> float:
    """The part of it that needs no text to be read first."""
    return apart(words_of(answer), prompt.partition(":")[2].replace(",", " ").lower().split())
