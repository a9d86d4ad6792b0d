"""NAME: a task for Hookline. Its rows are named `task:NAME/train` and `task:NAME/heldout`."""

import random

import hookline
from hookline import Task
from pydantic import Field


class Example(Task):
    """Repeat the word that occurs twice in the prompt, and say nothing else."""

    class Config(hookline.Config):
        words: int = Field(4, ge=2, le=12)
        """Number of different words in a prompt. Large values make the task harder."""

    def rows(self, split):
        draw = random.Random(split)
        mine = [row for row in (self.row(draw) for _ in range(400)) if held_out(row["prompt"]) == (split == "heldout")]
        return list({row["prompt"]: row for row in mine}.values())

    def row(self, draw):
        words = draw.sample("red blue green black white pink grey gold brown teal navy lime".split(), self.config.words)
        twice = draw.choice(words)
        return {"prompt": " ".join([*words, twice]), "completion": twice}

    def reward(self, record, response):
        words = response.split()
        return words.count(record["completion"]) / len(words) if words else 0.0


def held_out(prompt: str) -> bool:
    """Whether a prompt belongs to the held-out fifth of all prompts; the answer is the same every time."""
    return sum(map(ord, prompt)) % 5 == 0
