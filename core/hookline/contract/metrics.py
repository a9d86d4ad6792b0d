"""Metrics: a figure is declared once, with its meaning, before it can be logged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CORE_METRICS", "Better", "Metric", "figure_name"]


Better = Literal["higher", "lower"] | None
"""Which of two values of a figure is the better one; None: neither, or nobody said."""


def figure_name(evaluation: str, instance: str) -> str:
    """The name of an evaluation's figure in the rows: `eval/EVALUATION/INSTANCE`, without `heldout`, which is the usual one.

    instance: the name of the reward that gives it, as `instance_name` says it.
    """
    return "/".join(["eval", *([] if evaluation == "heldout" else [evaluation]), instance])


@dataclass(frozen=True)
class Metric:
    """What a logged name means. A `*` in a name stands for an instance's own name."""

    name: str
    """The name under which `ctx.log` and `mb.log` add to it, and the row shows it."""
    formula: str
    """What it measures, as a formula or in words."""
    unit: str = ""
    """The unit, e.g. `nats`, `tokens`; empty for a number without one."""
    aggregate: str = "mean"
    """How values of one step join: `mean` (weighted by count), `sum`, `max` or `last`."""
    healthy: tuple[float, float] | None = None
    """Outside this range the run prints a notice and continues."""
    timing: bool = False
    """Timings are excluded from every promise of equality."""
    better: Better = field(default=None, compare=False)
    """Which of two values is the better one, for the words of `hookline compare`; None: it says "higher" only."""


CORE_METRICS = (
    Metric("loss", "the value whose gradient was taken, mean over the step's optimiser steps"),
    Metric("grad_norm", "L2 norm of the whole gradient before clipping, mean over optimiser steps"),
    Metric("learning_rate", "of the step's last optimiser step", aggregate="last"),
    Metric("optimiser_steps", "optimiser steps taken in this step", aggregate="sum"),
    Metric("rows", "rows that reached the update", "rows", aggregate="sum"),
    Metric("tokens", "tokens the policy chose, over all rows", "tokens", aggregate="sum"),
    Metric("response_length", "mean tokens per response, the ending one included", "tokens"),
    Metric("truncated", "share of sampled rows that hit the length limit", healthy=(0.0, 0.5)),
    Metric(
        "reward",
        "mean over rows of the reward that the advantage sees: weighed, summed, and as wrappers left it",
        better="higher",
    ),
    Metric("reward/*", "mean over judged rows of one named reward, before its weight"),
    Metric("reward_std", "standard deviation over rows of the same"),
    Metric(
        "unjudged",
        "rows dropped because a reward, or the rollout itself, could not judge them",
        "rows",
        aggregate="sum",
        better="lower",
    ),
    Metric("equal_groups", "share of groups whose rows all have one reward: nothing to learn from", healthy=(0.0, 0.9)),
    Metric("judgements", "comparisons and rankings written into the phase's data", "judgements", aggregate="sum"),
    Metric("eval/*", "a figure over the rows of an evaluation, as its reward component sums it up"),
    Metric("seconds/*", "wall time of one part of the step", "s", aggregate="sum", timing=True, better="lower"),
    Metric(
        "optimiser_seconds",
        "wall time of the optimiser steps, a part of the update",
        "s",
        aggregate="sum",
        timing=True,
        better="lower",
    ),
    Metric("tokens_per_second", "chosen tokens over the step's wall time", "tokens/s", timing=True, better="higher"),
)
"""What the core logs in every phase, where it applies."""
