"""Metrics: every logged figure is declared once, with its meaning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["CORE_METRICS", "Better", "Metric", "figure_name", "plain_figure"]


Better = Literal["higher", "lower"] | None
"""Whether higher or lower values of a figure are better; None if neither is, or if it is not declared."""


def figure_name(evaluation: str, instance: str) -> str:
    """The name of an evaluation's figure in the rows: `eval/EVALUATION/INSTANCE`, or `eval/INSTANCE` for `heldout`.

    instance: the name of the reward that computes the figure, as returned by `instance_name`.
    """
    return "/".join(["eval", *([] if evaluation == "heldout" else [evaluation]), instance])


def plain_figure(figure: str) -> str:
    """The name of a figure in the rows, for a name that a user gave with a distribution: `eval/hookline:kl` is `eval/kl`."""
    return "/".join(part.rpartition(":")[2] for part in figure.split("/"))


@dataclass(frozen=True)
class Metric:
    """The meaning of a logged name. A `*` in a name matches the name of an instance."""

    name: str
    """The name of the figure in `ctx.log`, in `mb.log` and in the row."""
    formula: str
    """What the figure measures, as a formula or in words."""
    unit: str = ""
    """The unit, e.g. `nats`, `tokens`; empty for a number without one."""
    aggregate: str = "mean"
    """How the values of one step are combined: `mean` (weighted by count), `sum`, `max` or `last`."""
    healthy: tuple[float, float] | None = None
    """If a value is outside this range, the run prints a notice and continues."""
    timing: bool = False
    """True for timings, which may differ between runs that are otherwise equal."""
    better: Better = field(default=None, compare=False)
    """Whether higher or lower values are better, for the words of `hookline compare`; with None it says "higher"."""


CORE_METRICS = (
    Metric("loss", "the value whose gradient was taken, mean over the step's optimiser steps"),
    Metric("grad_norm", "L2 norm of the whole gradient before clipping, mean over optimiser steps"),
    Metric("learning_rate", "of the step's last optimiser step", aggregate="last"),
    Metric("optimiser_steps", "optimiser steps taken in this step", aggregate="sum"),
    Metric("rows", "rows that reached the update", "rows", aggregate="sum"),
    Metric("tokens", "tokens that the policy chose, over all rows", "tokens", aggregate="sum"),
    Metric("response_length", "mean tokens per response, including the ending token", "tokens"),
    Metric("truncated", "share of sampled rows that hit the length limit", healthy=(0.0, 0.5)),
    Metric(
        "reward",
        "mean over rows of the reward that the advantage receives: weighted, summed, and changed by wrappers",
        better="higher",
    ),
    Metric("reward/*", "mean over judged rows of one named reward, before its weight"),
    Metric("reward_std", "standard deviation over rows of that reward"),
    Metric(
        "unjudged",
        "rows dropped because a reward, or the rollout itself, could not judge them",
        "rows",
        aggregate="sum",
        better="lower",
    ),
    Metric(
        "equal_groups", "share of groups whose rows all have the same reward: nothing to learn from", healthy=(0.0, 0.9)
    ),
    Metric("judgements", "comparisons and rankings written to the phase's data", "judgements", aggregate="sum"),
    Metric("eval/*", "a figure over the rows of an evaluation, as its reward component summarises it"),
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
"""The figures that the core logs in every phase, if they apply."""
