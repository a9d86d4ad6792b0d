"""The meaning of a run's figures, and how the figures of one step become a row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from hookline.contract.metrics import CORE_METRICS, Metric, figure_name
from hookline.errors import PluginError, nearest
from hookline.plan.plan import PlannedPhase
from hookline.registry.slot import Slot
from hookline.world.world import World

__all__ = ["Dictionary", "Figures", "MetricLog"]


class Dictionary:
    """The meaning of the figures of one phase."""

    def __init__(self, declared: Iterable[Metric]) -> None:
        self._declared: dict[str, Metric] = {}
        for metric in declared:
            known = self._declared.setdefault(metric.name, metric)
            if known != metric:
                raise PluginError(
                    f"the figure '{metric.name}' is declared twice, with different meanings", "rename one of them"
                )
            if known.better is None:
                self._declared[metric.name] = metric
        self._patterns = [metric for metric in self._declared.values() if "*" in metric.name]

    def find(self, name: str, who: str) -> Metric:
        """The metric for a name. Raises PluginError, naming `who`, if no component declared it."""
        found = self._declared.get(name) or next((m for m in self._patterns if fnmatchcase(name, m.name)), None)
        if found is None:
            raise PluginError(
                f"{who} logs '{name}', which no component declares{nearest(name, self._declared)}",
                f'add Metric("{name}", "its formula") to the component\'s `metrics`',
            )
        return found


class MetricLog:
    """Collects the figures of one step for a row, on all ranks."""

    def __init__(self, dictionary: Dictionary, world: World | None = None) -> None:
        self.dictionary, self.world = dictionary, world or World()
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
        """Return (figures, timings) of all ranks and reset the log. Values that are not finite are returned unchanged."""
        figures: dict[str, float] = {}
        timings: dict[str, float] = {}
        first, *others = self.world.gather(self._values, "the step's figures")
        for name, (total, weight) in _joined(self, first, others).items():
            value = total / weight if weight else math.nan
            (timings if self.find(name, "the core").timing else figures)[name] = value
        self._values = {}
        return figures, timings


def _joined(
    log: MetricLog, values: dict[str, tuple[float, float]], others: Iterable[dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """The values of rank 0 and of the others, by each figure's own aggregation; a timing is that of the slowest rank."""
    values = dict(values)
    for more in others:
        for name, (total, weight) in more.items():
            metric = log.find(name, "the core")
            known = values.setdefault(name, (0.0, 0.0) if metric.aggregate in ("mean", "sum") else (total, weight))
            if metric.timing:
                values[name] = max(known, (total, weight), key=lambda value: value[0] / value[1] if value[1] else 0.0)
            elif metric.aggregate == "mean":
                values[name] = known[0] + total, known[1] + weight
            elif metric.aggregate == "sum":
                values[name] = known[0] + total, 1.0
            elif metric.aggregate == "max":
                values[name] = max(known[0], total), 1.0
    return values


class Figures:
    """One dictionary per phase, made on first use. A phase and its trackers use the same dictionary."""

    def __init__(self, phases: Iterable[PlannedPhase]) -> None:
        self._phases = {phase.spec.name: phase for phase in phases}
        self._made: dict[str, Dictionary] = {}

    def of(self, phase: str) -> Dictionary:
        """The dictionary of a phase. Raises PluginError when components declare one name with different meanings."""
        if phase not in self._made:
            planned = self._phases[phase]
            self._made[phase] = Dictionary(
                [*CORE_METRICS, *(metric for slot in planned.with_evaluations for metric in slot.metrics)]
            )
        return self._made[phase]

    def find(self, phase: str, name: str) -> Metric | None:
        """The meaning of a logged figure; None if no component of the phase declared it, or if the phase is unknown.

        The meaning of a named reward, and of its figure in an evaluation, is the docstring of the component's class.
        """
        if phase not in self._phases:
            return None
        try:
            metric = self.of(phase).find(name, "a tracker")
        except PluginError:
            return None
        own = _own(self._phases[phase]).get(name)
        if own is not None:
            return replace(own, name=name, healthy=None)
        slot = _judges(self._phases[phase]).get(name)
        if slot is None or "*" not in metric.name:
            return metric
        return replace(metric, name=name, formula=_described(slot), better=slot.component.better)


def _judges(phase: PlannedPhase) -> dict[str, Slot]:
    """`reward/NAME` and `eval/NAME` → the component of the figure."""
    found = {f"reward/{slot.instance}": slot for slot in phase.rewards}
    for evaluation in phase.evaluations:
        found |= {figure_name(evaluation.spec.name, slot.instance): slot for slot in evaluation.rewards}
    return found


def _own(phase: PlannedPhase) -> dict[str, Metric]:
    """`eval/NAME` → the meaning of a figure that the update gives itself."""
    found: dict[str, Metric] = {}
    for evaluation in phase.evaluations:
        declared = [*CORE_METRICS, *(evaluation.update.metrics if evaluation.update else ())]
        given = evaluation.figures if evaluation.update else ()
        found |= {figure_name(evaluation.spec.name, m.name): m for m in declared if m.name in given}
    return found


def _described(slot: Slot) -> str:
    """The docstring of a component's class, and the options that were set."""
    text = " ".join((slot.cls.__doc__ or "").split())
    options = {k: v for k, v in slot.config.model_dump(exclude_unset=True, by_alias=True).items() if v}
    chosen = ", ".join(f"{key}: {value}" for key, value in options.items())
    return f"{text} ({chosen})" if chosen else text
