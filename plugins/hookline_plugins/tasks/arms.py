"""Three arms, pulled once: the smallest task with a choice. Its optima are known in closed form.

Rewards (1, 0, −1), reference (.2, .3, .5). With a KL price β the best policy is π ∝ π_ref exp(r/β) (Ziebart 2010; Rafailov et
al. 2023, eq. 4), also for population DPO: (.80077, .16256, .03667) at β = .5. IPO against the reference's own answers converges
to π ∝ π_ref exp(P(· ≻ π_ref)/τ) (Azar et al. 2023, eq. 7): (.31881, .32677, .35442) at τ = .5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from random import Random
from statistics import NormalDist

from pydantic import Field

import hookline
from hookline import Process, Record, Task

PROMPT = "pull"


class Choice(Process):
    """An episode of one word. arms: word → (probability under the reference, reward)."""

    def __init__(self, prompt: str, arms: Mapping[str, tuple[float, float]]) -> None:
        self.words, self.arms = prompt, dict(arms)

    def starts(self) -> Sequence[tuple[float, str]]:
        return [(1.0, "")]

    def prompt(self, state: str) -> str:  # type: ignore[override]
        return self.words

    def actions(self, state: str) -> Mapping[str, float]:  # type: ignore[override]
        return {} if state else {arm: probability for arm, (probability, _) in self.arms.items()}

    def step(self, state: str, action: str) -> Sequence[tuple[float, str, float]]:  # type: ignore[override]
        return [(1.0, action, self.arms[action][1])]


class Arms(Task):
    """Splits `train` and `heldout`: the single prompt. `answers`: each arm once (`prompt`, `completion`)."""

    splits = ("train", "heldout", "answers")

    @cached_property
    def choice(self) -> Choice:
        return Choice(PROMPT, {"good": (0.2, 1.0), "fair": (0.3, 0.0), "poor": (0.5, -1.0)})

    def rows(self, split: str) -> Sequence[Record]:
        if split == "answers":
            return [{"prompt": PROMPT, "completion": arm} for arm in self.choice.arms]
        return [{"prompt": PROMPT}]

    def process(self) -> Process:
        return self.choice


class Worths(Task):
    """Answers of one word with planted worths, to be judged: normal, all equally likely. Splits as in `Arms`."""

    splits = ("train", "heldout", "answers")

    class Config(hookline.Config):
        count: int = Field(40, ge=2, le=1000)
        """How many answers there are."""
        std: float = Field(1.5, gt=0)
        """Standard deviation of their worths."""
        seed: int = Field(0, ge=0)
        """Seed of which answer has which worth."""

    @cached_property
    def choice(self) -> Choice:
        c = self.config
        worths = [c.std * NormalDist().inv_cdf((i + 0.5) / c.count) for i in range(c.count)]
        Random(c.seed).shuffle(worths)
        return Choice("say", {f"word{i}": (1 / c.count, worth) for i, worth in enumerate(worths)})

    def rows(self, split: str) -> Sequence[Record]:
        if split == "answers":
            return [
                {"prompt": "say", "completion": word, "worth": worth} for word, (_, worth) in self.choice.arms.items()
            ]
        return [{"prompt": "say"}]

    def process(self) -> Process:
        return self.choice
