"""The climbing game (Claus & Boutilier 1998): two agents, three moves each, one payoff for both.

The best joint move (a, x) pays 11, but if only one agent plays its part, the payoff is −30, so learners that do not see each other
settle for 5 or 6. A policy that sees the first move before the second (`sees: [position, last]`) is one joint learner and finds
11; a policy that sees only the position (`sees: [position]`) is two independent learners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hookline import Process, Record, Task

PAYS = {"a": {"x": 11, "y": -30, "z": 0}, "b": {"x": -30, "y": 7, "z": 6}, "c": {"x": 0, "y": 0, "z": 5}}
PROMPT = "climb"


class Climbing(Task):
    """Splits `train` and `heldout`: one prompt; `words`: for a tokenizer. An answer is the first agent's move and the second's."""

    splits = ("train", "heldout", "words")

    def rows(self, split: str) -> Sequence[Record]:
        return [{"text": f"{PROMPT} a b c x y z"}] if split == "words" else [{"prompt": PROMPT}]

    def process(self) -> Process:
        return Climb()


class Climb(Process):
    """A state is the moves played so far."""

    def starts(self) -> Sequence[tuple[float, str]]:
        return [(1.0, "")]

    def prompt(self, state: str) -> str:  # type: ignore[override]
        return PROMPT

    def actions(self, state: str) -> Mapping[str, float]:  # type: ignore[override]
        moves = {0: "abc", 1: "xyz", 2: ""}[len(state)]
        return dict.fromkeys(moves, 1 / 3)

    def step(self, state: str, action: str) -> Sequence[tuple[float, str, float]]:  # type: ignore[override]
        return [(1.0, state + action, float(PAYS[state][action]) if state else 0.0)]
