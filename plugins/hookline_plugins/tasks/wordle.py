"""A small Wordle, solved exactly: find one of twenty three-letter words in at most six guesses (after Snell et al. 2022, §6.3).

Every guess costs 1 and gets an answer for each letter: g, it is in this place; y, it is in another place; x, it is not in the word
(a letter that occurs once is marked once). The hidden word is drawn uniformly, so the state is the set of words that are still
possible, and the answers are the random outcomes. Dynamic programming gives the best player's mean, −2.70.

`games` come from a scripted player whose habit misleads one-step improvement: half of the games open with the best word, art, and
continue carelessly; half open with a poor word, sun, and continue with care. Judged by how these games end (SARSA), sun looks
better than art. A method that considers what could have followed (Q-learning, ILQL) opens with art and continues with care.

With `notes` (builtin:wordle/games?notes=true) each answer except the last is followed by one more word, which encodes the words
that are still possible. A player needs to remember only this, so a table that sees the last word can learn the game.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

import hookline
from hookline import Process, Record
from hookline_plugins.tasks.exact import ExactTask

WORDS = tuple("ace art bad bee cab dig eat fox gas hop ink jar leg map net oak pie rug sun toy".split())
GUESSES, GAMES = 6, 4000
BEST, POOR = "art", "sun"
CARELESS = 0.8
"""How often the careless player guesses any word."""
State = tuple[tuple[str, ...], int]
"""(words still possible, guesses made); no words: found"""


class Wordle(ExactTask):
    """Splits `train` and `heldout`: the single start. `games`: those of the scripted player, with `turns` [guess, answer, reward].
    `words`: every word of the task, for a tokenizer."""

    splits = ("train", "heldout", "games", "words")

    class Config(hookline.Config):
        notes: bool = False
        """Show the words that are still possible after each answer."""

    def rows(self, split: str) -> Sequence[Record]:
        board = self.process()
        start = {"prompt": board.prompt(board.starts()[0][1])}
        if split in ("train", "heldout"):
            return [start]
        if split == "words":
            return [{"text": " ".join(["guess", *WORDS, *sorted(board.answers())])}]
        draw = np.random.RandomState(0)
        games = [_game(board, draw) for _ in range(GAMES)]
        return [{**start, "turns": game, "completion": " ".join(f"{g} {a}".strip() for g, a, _ in game)} for game in games]  # fmt: skip

    def process(self) -> Board:
        return _board(self.config.notes)


class Board(Process):
    """The game from the player's point of view."""

    def __init__(self, notes: bool) -> None:
        self.notes = notes

    def starts(self) -> Sequence[tuple[float, State]]:
        return [(1.0, (WORDS, 0))]

    def prompt(self, state: State) -> str:  # type: ignore[override]
        return "guess"

    def actions(self, state: State) -> Mapping[str, float]:  # type: ignore[override]
        possible, made = state
        return dict.fromkeys(WORDS, 1 / len(WORDS)) if possible and made < GUESSES else {}

    def step(self, state: State, action: str) -> Sequence[tuple[float, State, float]]:  # type: ignore[override]
        possible, made = state
        return [
            (len(left) / len(possible), ((), made + 1) if said == "ggg" else (left, made + 1), -1.0)
            for said, left in _split(possible, action)
        ]

    def shows(self, before: State, action: str, after: State) -> str:  # type: ignore[override]
        said = "ggg" if not after[0] else next(said for said, left in _split(before[0], action) if left == after[0])
        return f"{said} {note(after[0])}" if self.notes and self.actions(after) else said

    def answers(self) -> set[str]:
        """Every word that the game can show."""
        found: set[str] = set()
        known = {WORDS}
        for possible in (level := [WORDS]):
            for guess in WORDS:
                for said, left in _split(possible, guess):
                    found |= {said, *((note(left),) if self.notes else ())}
                    if left not in known and said != "ggg":
                        known.add(left)
                        level.append(left)
        return found


_board = cache(Board)


def note(possible: Sequence[str]) -> str:
    """A set of words as one word."""
    return "|".join(possible)


def answer(guess: str, hidden: str) -> str:
    """The answer to a guess, letter by letter."""
    spare = [h for g, h in zip(guess, hidden) if g != h]
    said = []
    for g, h in zip(guess, hidden):
        said.append("g" if g == h else "y" if g in spare else "x")
        if said[-1] == "y":
            spare.remove(g)
    return "".join(said)


@cache
def _split(possible: tuple[str, ...], guess: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(answer, words it leaves possible) of all answers to a guess."""
    found: dict[str, list[str]] = {}
    for hidden in possible:
        found.setdefault(answer(guess, hidden), []).append(hidden)
    return tuple((said, tuple(left)) for said, left in found.items())


def _game(board: Board, draw: np.random.RandomState) -> list[list[object]]:
    """One game of the scripted player."""
    state: State = (WORDS, 0)
    turns: list[list[object]] = []
    careless = bool(draw.rand() < 0.5)
    while board.actions(state):
        anything = careless and draw.rand() < CARELESS
        guess = str(draw.choice(WORDS if anything else state[0])) if turns else (BEST if careless else POOR)
        follows = board.step(state, guess)
        _, after, paid = follows[draw.choice(len(follows), p=[chance for chance, _, _ in follows])]
        turns.append([guess, board.shows(state, guess, after), paid])
        state = after
    return turns
