"""Controlled sentiment with an exact frontier: sixteen words, each good, bad or neutral; the reward is their mean.

The experiment of the DPO paper (Rafailov et al. 2023, §6.1) with an exact solution: the reference draws every word from
(.2 good, .2 bad, .6 neutral), so the best policy at each KL multiplies the probability of each word by exp(reward / β).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hookline import Process, Record
from hookline_plugins.tasks.exact import ExactTask

WORDS = 16
PAYS = {"good": 1.0, "bad": -1.0, "neutral": 0.0}
REFERENCE = {"good": 0.2, "bad": 0.2, "neutral": 0.6}
PROMPT = "review"


class Sentiment(ExactTask):
    """Splits `train` and `heldout`: one prompt; `words`: for a tokenizer. Answers are sixteen of the words good, bad, neutral."""

    splits = ("train", "heldout", "words")

    def rows(self, split: str) -> Sequence[Record]:
        return [{"text": f"{PROMPT} {' '.join(PAYS)}"}] if split == "words" else [{"prompt": PROMPT}]

    def process(self) -> Process:
        return Review()


class Review(Process):
    """A state is the number of words so far."""

    def starts(self) -> Sequence[tuple[float, int]]:
        return [(1.0, 0)]

    def prompt(self, state: int) -> str:  # type: ignore[override]
        return PROMPT

    def actions(self, state: int) -> Mapping[str, float]:  # type: ignore[override]
        return REFERENCE if state < WORDS else {}

    def step(self, state: int, action: str) -> Sequence[tuple[float, int, float]]:  # type: ignore[override]
        return [(1.0, state + 1, PAYS[action] / WORDS)]
