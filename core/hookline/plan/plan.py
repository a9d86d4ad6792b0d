"""The plan of a run, frozen: which component answers which hook of which phase."""

from __future__ import annotations

from dataclasses import dataclass

from hookline.config.experiment import Evaluation, Experiment, Phase
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot

__all__ = ["Plan", "PlannedEvaluation", "PlannedPhase"]


@dataclass(frozen=True)
class PlannedEvaluation:
    spec: Evaluation
    rollout: Slot
    rewards: tuple[Slot, ...]


@dataclass(frozen=True)
class PlannedPhase:
    spec: Phase
    rollout: Slot
    rewards: tuple[Slot, ...]
    wraps: tuple[Slot, ...]
    advantage: Slot | None
    update: Slot | None
    feedback: tuple[Slot, ...]
    evaluations: tuple[PlannedEvaluation, ...]
    start: str | None
    """The phase whose policy this one starts from; None: the experiment's model."""
    head: Slot | None
    adapter: Slot | None

    @property
    def advantage_by(self) -> Slot | None:
        """Who answers hookline_advantage: the component named for it, or an update that brings its own."""
        own = self.update if self.update and "hookline_advantage" in self.update.hooks else None
        return self.advantage or own

    @property
    def slots(self) -> list[Slot]:
        """Everything that answers or wraps a hook in the loop, in order."""
        single = [self.rollout, *self.rewards, *self.wraps, self.advantage, self.update, *self.feedback]
        return [slot for slot in single if slot]


@dataclass(frozen=True)
class Plan:
    experiment: Experiment
    phases: tuple[PlannedPhase, ...]
    architecture: Slot | None
    trackers: tuple[Slot, ...]
    loose: tuple[Offer, ...] = ()
    family: Slot | None = None
    """How the model computes; None: the core's `causal`."""
    notes: tuple[str, ...] = ()
    """What a person should know before it runs, though nothing needs fixing."""

    @property
    def offers(self) -> list[Offer]:
        """The distinct offers the experiment uses."""
        slots = [slot for phase in self.phases for slot in (*phase.slots, phase.head, phase.adapter) if slot]
        slots += [s for p in self.phases for e in p.evaluations for s in (e.rollout, *e.rewards)]
        slots += [slot for slot in (self.architecture, self.family, *self.trackers) if slot]
        return list(dict.fromkeys(slot.offer for slot in slots))
