"""The rows of an evaluation, summed per prompt; figures and intervals are computed from these sums."""

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
    """`mean`: Σx / n.  `perplexity`: exp(−Σ log p / tokens), where a row's Σ log p is −tokens · log(its perplexity)."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.asarray(above) / np.asarray(below)
        return np.exp(-ratio) if summary == "perplexity" else ratio


@dataclass(frozen=True, eq=False)
class PromptSums:
    """Sums of one term of an evaluation's rows, for G prompts in the order in which they first appear."""

    value_G: Floats
    """The sum of the term over the judged rows of each prompt, each times its weight."""
    logprob_G: Floats
    """Σ log p of these rows, if the term is the perplexity of a row; NaN if a value is not positive."""
    tokens_G: Floats
    """The number of tokens of these rows."""
    count_G: Floats
    """The number of judged rows of each prompt, possibly 0; or their total weight."""
    without_G: Floats
    """The figure without each prompt, if its component has its own summary; else NaN."""

    def above_G(self, summary: str) -> Floats:
        """The numerator: the sum of the term, or of log-probs."""
        return self.logprob_G if summary == "perplexity" else self.value_G

    def below_G(self, summary: str) -> Floats:
        """The denominator: the number of rows, or of tokens."""
        return self.tokens_G if summary == "perplexity" else self.count_G


def prompt_sums(samples: Sequence[Mapping[str, Any]], term: str) -> PromptSums:
    """Sum one term of an evaluation's samples, as in `Run.evaluations`; values that are not finite are ignored."""
    place = {group: i for i, group in enumerate(dict.fromkeys(int(s["group"]) for s in samples))}
    value_G, logprob_G, tokens_G, count_G = (np.zeros(len(place)) for _ in range(4))
    without_G = np.full(len(place), math.nan)
    for sample in samples:
        at, value = place[int(sample["group"])], sample["terms"].get(term)
        if isinstance(value, int | float) and math.isfinite(value):
            tokens, weight = float(sample.get("tokens", 0)), float(sample.get("weights", {}).get(term, 1.0))
            value_G[at] += weight * value
            logprob_G[at] -= tokens * math.log(value) if value > 0 else math.nan
            tokens_G[at] += tokens
            count_G[at] += weight
        without_G[at] = sample.get("without", {}).get(term, without_G[at])
    return PromptSums(value_G, logprob_G, tokens_G, count_G, without_G)


def summary_of(known: Sequence[tuple[PromptSums, float]]) -> str | None:
    """The summary, `mean` or `perplexity`, that gives all known (sums, figure) of a component; None if neither does."""

    def agrees(sums: PromptSums, figure: float, summary: str) -> bool:
        found = float(fraction(sums.above_G(summary).sum(), sums.below_G(summary).sum(), summary))
        return math.isclose(found, figure, rel_tol=1e-3, abs_tol=1e-6)

    return next((s for s in SUMMARIES if all(agrees(sums, figure, s) for sums, figure in known)), None)
