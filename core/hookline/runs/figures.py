"""What the figures of a run mean: per phase, those of the core and those its components declare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hookline.contract.metrics import CORE_METRICS, Dictionary, Metric, figure_name
from hookline.errors import PluginError
from hookline.plan.plan import PlannedPhase
from hookline.registry.slot import Slot

__all__ = ["Figures"]


class Figures:
    """A dictionary per phase, made when first asked for. A phase logs by the same one that trackers read."""

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
        """What a logged figure means; None where no component of the phase declared it, or the phase is unknown.

        A named reward and its figure in an evaluation mean what the component's class says of itself.
        """
        if phase not in self._phases:
            return None
        try:
            metric = self.of(phase).find(name, "a tracker")
        except PluginError:
            return None
        slot = _judges(self._phases[phase]).get(name)
        return replace(metric, name=name, formula=_described(slot)) if slot and "*" in metric.name else metric


def _judges(phase: PlannedPhase) -> dict[str, Slot]:
    """`reward/NAME` and `eval/NAME` → the component behind it."""
    found = {f"reward/{slot.instance}": slot for slot in phase.rewards}
    for evaluation in phase.evaluations:
        found |= {figure_name(evaluation.spec.name, slot.instance): slot for slot in evaluation.rewards}
    return found


def _described(slot: Slot) -> str:
    """What a component's class says of itself, and the options it was given."""
    text = " ".join((slot.cls.__doc__ or "").split())
    options = {k: v for k, v in slot.config.model_dump(exclude_unset=True, by_alias=True).items() if v}
    chosen = ", ".join(f"{key}: {value}" for key, value in options.items())
    return f"{text} ({chosen})" if chosen else text
