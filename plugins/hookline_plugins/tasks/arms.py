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


Words = Mapping[str, tuple[float, float]]
"""Word → (probability under the reference, reward)."""


class Choice(Process):
    """An episode of one word; a state is the prompt that waits for it, and empty afterwards.

    prompts: prompt → its arms; all prompts are equally likely.
    """

    def __init__(self, prompts: Mapping[str, Words]) -> None:
        self.prompts = dict(prompts)

    def starts(self) -> Sequence[tuple[float, str]]:
        return [(1 / len(self.prompts), prompt) for prompt in self.prompts]

    def prompt(self, state: str) -> str:  # type: ignore[override]
        return state

    def actions(self, state: str) -> Mapping[str, float]:  # type: ignore[override]
        return {arm: probability for arm, (probability, _) in self.prompts[state].items()} if state else {}

    def step(self, state: str, action: str) -> Sequence[tuple[float, str, float]]:  # type: ignore[override]
        return [(1.0, "", self.prompts[state][action][1])]

    def rows(self, split: str) -> Sequence[Record]:
        """Each prompt once; of the split `answers`, each arm once, with what it is worth."""
        if split != "answers":
            return [{"prompt": prompt} for prompt in self.prompts]
        return [
            {"prompt": prompt, "completion": arm, "worth": worth}
            for prompt, arms in self.prompts.items()
            for arm, (_, worth) in arms.items()
        ]


class Arms(Task):
    """Splits `train` and `heldout`: the single prompt. `answers`: each arm once (`prompt`, `completion`, `worth`)."""

    splits = ("train", "heldout", "answers")

    @cached_property
    def choice(self) -> Choice:
        return Choice({PROMPT: {"good": (0.2, 1.0), "fair": (0.3, 0.0), "poor": (0.5, -1.0)}})

    def rows(self, split: str) -> Sequence[Record]:
        return self.choice.rows(split)

    def process(self) -> Process:
        return self.choice


class Worths(Arms):
    """Answers of one word with planted worths, to be judged: normal, all equally likely. Splits as in `Arms`.

    Of several prompts, each has a worth of its own in all of its answers, as some questions are answered better than others.
    """

    class Config(hookline.Config):
        count: int = Field(40, ge=2, le=1000)
        """How many answers there are to a prompt."""
        std: float = Field(1.5, gt=0)
        """Standard deviation of the worths of the answers to a prompt."""
        prompts: int = Field(1, ge=1, le=1000)
        """How many prompts there are."""
        spread: float = Field(0.0, ge=0)
        """Standard deviation of what the answers to a prompt have in common."""
        seed: int = Field(0, ge=0)
        """Seed of which answer and which prompt has which worth."""

    @cached_property
    def choice(self) -> Choice:
        c, draw = self.config, Random(self.config.seed)
        found = {}
        for name, common in zip(self._names(), _normal(c.prompts, c.spread, Random(f"{c.seed}/prompts"))):
            worths = _normal(c.count, c.std, draw)
            found[name] = {f"word{i}": (1 / c.count, common + worth) for i, worth in enumerate(worths)}
        return Choice(found)

    def _names(self) -> Sequence[str]:
        return ["say"] if self.config.prompts == 1 else [f"say{i}" for i in range(self.config.prompts)]


def _normal(count: int, std: float, draw: Random) -> list[float]:
    """The quantiles of a normal distribution, shuffled."""
    values = [std * NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
    draw.shuffle(values)
    return values
