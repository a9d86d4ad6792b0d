"""Cliff walking (Sutton & Barto 2018, example 6.6): shows the difference between Q-learning and SARSA.

A grid of 4 × 12 cells. The start is the lower left corner and the goal is the lower right corner. Every step costs 1; a step
onto the cells between them, the cliff, costs 100 and leads back to the start. The shortest path, along the edge, costs 13. With
ε-greedy exploration, Q-learning finds this path and keeps falling off; SARSA learns the safe path of 17 steps and earns more
during learning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field

import hookline
from hookline import Process, Record, Task

ROWS, COLUMNS = 4, 12
State = tuple[int, int]
"""(row, column), counted from the upper left corner"""
START, GOAL = (3, 0), (3, 11)
MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


class Cliff(Task):
    """Splits `train` and `heldout`: the start. `words`: every word of the task, for a tokenizer."""

    splits = ("train", "heldout", "words")

    class Config(hookline.Config):
        learners: int = Field(30, ge=0)
        """Number of learners that have a word of their own (learner0, …)."""

    def rows(self, split: str) -> Sequence[Record]:
        if split != "words":
            return [{"prompt": name(START)}]
        cells = (name((row, column)) for row in range(ROWS) for column in range(COLUMNS))
        return [{"text": " ".join([*MOVES, *cells, *(f"learner{i}" for i in range(self.config.learners))])}]

    def process(self) -> Process:
        return Edge()


class Edge(Process):
    """The grid. An episode ends only at the goal."""

    resumable = True

    def starts(self) -> Sequence[tuple[float, State]]:
        return [(1.0, START)]

    def prompt(self, state: State) -> str:  # type: ignore[override]
        return name(state)

    def actions(self, state: State) -> Mapping[str, float]:  # type: ignore[override]
        return {} if state == GOAL else dict.fromkeys(MOVES, 1 / len(MOVES))

    def step(self, state: State, action: str) -> Sequence[tuple[float, State, float]]:  # type: ignore[override]
        down, right = MOVES[action]
        row, column = min(max(state[0] + down, 0), ROWS - 1), min(max(state[1] + right, 0), COLUMNS - 1)
        fell = row == ROWS - 1 and 0 < column < COLUMNS - 1
        return [(1.0, START, -100.0)] if fell else [(1.0, (row, column), -1.0)]

    def shows(self, before: State, action: str, after: State) -> str:  # type: ignore[override]
        return name(after)


def name(cell: State) -> str:
    """A cell as a word."""
    return f"r{cell[0]}c{cell[1]}"
