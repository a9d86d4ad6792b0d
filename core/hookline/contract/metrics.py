"""The metric dictionary: a figure is declared once, with its meaning, before it can be logged."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hookline.errors import PluginError, nearest

__all__ = ["CORE_METRICS", "Dictionary", "Metric", "MetricLog", "figure_name"]


def figure_name(evaluation: str, instance: str) -> str:
    """The name of an evaluation's figure in the rows: `eval/EVALUATION/INSTANCE`, without `heldout`, which is the usual one.

    instance: the name of the reward that gives it, as `instance_name` says it.
    """
    return "/".join(["eval", *([] if evaluation == "heldout" else [evaluation]), instance])


@dataclass(frozen=True)
class Metric:
    """What a logged name means. A `*` in a name stands for an instance's own name."""

    name: str
    formula: str
    unit: str = ""
    aggregate: str = "mean"
    """How values of one step join: `mean` (weighted by count), `sum`, `max` or `last`."""
    healthy: tuple[float, float] | None = None
    """Outside this range the run prints a notice and continues."""
    timing: bool = False
    """Timings are excluded from every promise of equality."""


CORE_METRICS = (
    Metric("loss", "the value whose gradient was taken, mean over the step's optimiser steps"),
    Metric("grad_norm", "L2 norm of the whole gradient before clipping, mean over optimiser steps"),
    Metric("learning_rate", "of the step's last optimiser step", aggregate="last"),
    Metric("optimiser_steps", "optimiser steps taken in this step", aggregate="sum"),
    Metric("rows", "rows that reached the update", "rows", aggregate="sum"),
    Metric("tokens", "tokens the policy chose, over all rows", "tokens", aggregate="sum"),
    Metric("response_length", "mean tokens per response, the ending one included", "tokens"),
    Metric("truncated", "share of sampled rows that hit the length limit", healthy=(0.0, 0.5)),
    Metric("reward", "mean over rows of the reward that the advantage sees: weighed, summed, and as wrappers left it"),
    Metric("reward/*", "mean over judged rows of one named reward, before its weight"),
    Metric("reward_std", "standard deviation over rows of the same"),
    Metric("unjudged", "rows dropped because a reward had no answer for them", "rows", aggregate="sum"),
    Metric("equal_groups", "share of groups whose rows all have one reward: nothing to learn from", healthy=(0.0, 0.9)),
    Metric("judgements", "comparisons and rankings written into the phase's data", "judgements", aggregate="sum"),
    Metric("eval/*", "a figure over the rows of an evaluation, as its reward component sums it up"),
    Metric("seconds/*", "wall time of one part of the step", "s", aggregate="sum", timing=True),
    Metric("tokens_per_second", "chosen tokens over the step's wall time", "tokens/s", timing=True),
)


class Dictionary:
    """What the figures of one phase mean."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self._declared: dict[str, Metric] = {}
        for metric in declared:
            known = self._declared.setdefault(metric.name, metric)
            if known != metric:
                raise PluginError(
                    f"the figure '{metric.name}' is declared twice, with different meanings", "rename one of them"
                )
        self._patterns = [metric for metric in self._declared.values() if "*" in metric.name]

    def find(self, name: str, who: str) -> Metric:
        """What a name means. Raises PluginError in the name of `who` where no component declared it."""
        found = self._declared.get(name) or next((m for m in self._patterns if fnmatchcase(name, m.name)), None)
        if found is None:
            raise PluginError(
                f"{who} logs '{name}', which no component declares{nearest(name, self._declared)}",
                f'add Metric("{name}", "its formula") to the component\'s `metrics`',
            )
        return found


class MetricLog:
    """One step's figures on their way into one row."""

    def __init__(self, dictionary: Dictionary) -> None:
        self.dictionary = dictionary
        self._values: dict[str, tuple[float, float]] = {}

    def find(self, name: str, who: str) -> Metric:
        return self.dictionary.find(name, who)

    def add(self, name: str, value: float, count: float = 1.0, who: str = "the core") -> None:
        metric = self.find(name, who)
        if metric.aggregate == "mean" and not count:
            return  # a mean over nothing is not a figure
        total, weight = self._values.get(name, (0.0, 0.0))
        match metric.aggregate:
            case "mean":
                total, weight = total + value * count, weight + count
            case "sum":
                total, weight = total + value, 1.0
            case "max":
                total, weight = (max(total, value) if weight else value), 1.0
            case _:
                total, weight = value, 1.0
        self._values[name] = (total, weight)

    def collect(self) -> tuple[dict[str, float], dict[str, float]]:
        """(figures, timings), and empty again. A value that is not finite stays visible as it is."""
        figures: dict[str, float] = {}
        timings: dict[str, float] = {}
        for name, (total, weight) in self._values.items():
            value = total / weight if weight else math.nan
            (timings if self.find(name, "the core").timing else figures)[name] = value
        self._values = {}
        return figures, timings
