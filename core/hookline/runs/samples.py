"""The rows of an evaluation, summed prompt by prompt: what a figure is made of, and what intervals are drawn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PromptSums", "fraction", "prompt_sums", "summary_of"]

Floats = NDArray[np.float64]
SUMMARIES = ("mean", "perplexity")


def fraction(above: Any, below: Any, summary: str) -> Any:
    """`mean`: Σx / n.  `perplexity`: exp(−Σ log p / tokens)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.asarray(above) / np.asarray(below)
        return np.exp(-ratio) if summary == "perplexity" else ratio


@dataclass(frozen=True, eq=False)
class PromptSums:
    """One term of an evaluation's rows. The G prompts stand in the order in which they first appear."""

    value_G: Floats
    """Sum of the term over the judged rows of each prompt."""
    tokens_G: Floats
    """Tokens of the same rows."""
    count_G: Floats
    """How many rows were judged; 0 where none was."""
    without_G: Floats
    """The figure without each prompt, where its component has a summary of its own; else NaN."""

    def below_G(self, summary: str) -> Floats:
        """What stands below the fraction: the number of rows, or of tokens."""
        return self.tokens_G if summary == "perplexity" else self.count_G


def prompt_sums(samples: Sequence[Mapping[str, Any]], term: str) -> PromptSums:
    """The samples of an evaluation, as `Run.evaluations` has them, for one term; values that are not finite do not count."""
    place = {group: i for i, group in enumerate(dict.fromkeys(int(s["group"]) for s in samples))}
    value_G, tokens_G, count_G = (np.zeros(len(place)) for _ in range(3))
    without_G = np.full(len(place), math.nan)
    for sample in samples:
        at, value = place[int(sample["group"])], sample["terms"].get(term)
        if isinstance(value, int | float) and math.isfinite(value):
            value_G[at] += value
            tokens_G[at] += float(sample.get("tokens", 0))
            count_G[at] += 1
        without_G[at] = sample.get("without", {}).get(term, without_G[at])
    return PromptSums(value_G, tokens_G, count_G, without_G)


def summary_of(known: Sequence[tuple[PromptSums, float]]) -> str | None:
    """How a component sums rows up, found by trying on (sums, its figure): `mean` or `perplexity`; None: neither is it."""

    def agrees(sums: PromptSums, figure: float, summary: str) -> bool:
        found = float(fraction(sums.value_G.sum(), sums.below_G(summary).sum(), summary))
        return math.isclose(found, figure, rel_tol=1e-3, abs_tol=1e-6)

    return next((s for s in SUMMARIES if all(agrees(sums, figure, s) for sums, figure in known)), None)
