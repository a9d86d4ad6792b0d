"""Tools of a test: some that work, and some that do not."""

import os
import random
import time

PAGES = {"list": "a value by number", "file": "text on a disk", "path": "where a file is"}


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


def search(word: str) -> str:
    """Find what a word means.

    Args:
        word: The word.
    """
    return PAGES[word]


def roll(sides: int) -> int:
    """Roll a die.

    Args:
        sides: The number of its sides.
    """
    return random.randint(1, sides)


def loud(n: int) -> str:
    """Print and return a lot.

    Args:
        n: How many characters.
    """
    print("x" * n)
    return "y" * n


def hang(n: int) -> str:
    """Take long.

    Args:
        n: Seconds.
    """
    time.sleep(n)
    return "awake"


def fork(n: int) -> int:
    """Start a process.

    Args:
        n: Nothing.
    """
    return os.fork() and n


def leave(n: int) -> None:
    """End the process.

    Args:
        n: The exit code.
    """
    os._exit(n)


def untold(n):
    return n


def right(answer: str, sum: int) -> float:
    return float(answer.strip() == str(sum))


def odd(answer: str) -> str:
    return "well"


class Game:
    """As TRL's `environment_factory` takes it."""

    def reset(self, sum=0, **row):
        self.sum, self.said = sum, []
        return " now"

    def guess(self, number: int) -> str:
        """Guess the sum.

        Args:
            number: The guess.
        """
        self.said.append(number)
        return "yes" if number == self.sum else "no"

    async def hint(self, after: int) -> str:
        """Ask for help.

        Args:
            after: How many guesses were made.
        """
        return "higher" if self.said and self.said[-1] < self.sum else "lower"

    def _hidden(self) -> None:
        raise AssertionError

    def get_reward(self) -> float:
        return float(self.sum in self.said)


class Idle:
    def guess(self, number: int) -> str:
        """Guess.

        Args:
            number: The guess.
        """
        return "no"
