"""A cyclic preference: rock mostly beats scissors, scissors paper, paper rock. No reward explains it, and no single arm is unbeaten.

P(row ≻ column) = [[.5, .9, .2], [.1, .5, .7], [.8, .3, .5]]. Its Nash equilibrium is (2/9, 1/3, 4/9) (Munos et al. 2023, §3, on
why preferences need a game). Regularised towards the reference (.6, .3, .1) at price τ, π ∝ π_ref exp(P(· ≻ π)/τ):
τ = 1: (.64366, .23962, .11672) · .1: (.45348, .14884, .39767) · .05: (.32559, .21462, .45980).
The rewards given here are how often an arm beats the reference's answers (Borda), close to what a Bradley–Terry model learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from hookline import Process, Record, Task
from hookline_plugins.tasks.arms import Choice

PROMPT = "play"
WORDS = ("rock", "scissors", "paper")
BEATS = ((0.5, 0.9, 0.2), (0.1, 0.5, 0.7), (0.8, 0.3, 0.5))
REFERENCE = (0.6, 0.3, 0.1)


class Cyclic(Task):
    """Splits `train` and `heldout`: the single prompt. `answers`: each arm once (`prompt`, `completion`)."""

    splits = ("train", "heldout", "answers")

    @cached_property
    def choice(self) -> Choice:
        borda = [sum(p * q for p, q in zip(row, REFERENCE)) for row in BEATS]
        return Choice({PROMPT: {word: (q, worth) for word, q, worth in zip(WORDS, REFERENCE, borda)}})

    def rows(self, split: str) -> Sequence[Record]:
        return self.choice.rows(split)

    def process(self) -> Process:
        return self.choice

    def preference(self, record: Record, response: str, other: str) -> float:
        """The preference between the first words of two answers; any other word loses to all three arms."""
        mine, theirs = (WORDS.index(word) if word in WORDS else -1 for word in map(_first, (response, other)))
        if mine < 0 or theirs < 0:
            return 0.5 + 0.5 * ((mine >= 0) - (theirs >= 0))
        return BEATS[mine][theirs]


def _first(response: str) -> str:
    return next(iter(response.split()), "")
