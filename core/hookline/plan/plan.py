"""The plan of a run, frozen: which component answers which hook of which phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from hookline.config import rounds
from hookline.config.experiment import Evaluation, Experiment, ModelSpec, Phase
from hookline.config.yaml import Place
from hookline.contract.fields import marked
from hookline.contract.kinds import of_phase
from hookline.data.sources import Catalogue
from hookline.registry.offers import Offer
from hookline.registry.slot import Slot

__all__ = ["Place", "Plan", "PlannedEvaluation", "PlannedPhase"]


@dataclass(frozen=True)
class PlannedEvaluation:
    spec: Evaluation
    rollout: Slot
    rewards: tuple[Slot, ...]
    at: Place
    """The evaluation's place in the experiment."""
    update: Slot | None = None
    """The phase's update, if the evaluation names no reward and the update has figures of its own for it."""

    @property
    def figures(self) -> list[str]:
        """The names of the figures that it may give: those of its rewards, or those of the update."""
        if self.update is None:
            return [slot.instance for slot in self.rewards]
        return list(dict.fromkeys(["loss", *(metric.name for metric in self.update.metrics)]))

    @property
    def every(self) -> list[Slot]:
        """The evaluation's components, and the components inside these."""
        return [slot for top in (self.rollout, *self.rewards) for slot in top.every()]


@dataclass(frozen=True)
class PlannedPhase:
    spec: Phase
    named: Mapping[str, tuple[Slot, ...]]
    """The components that the phase names, by kind."""
    evaluations: tuple[PlannedEvaluation, ...]
    start: str | None
    """The phase whose policy this one starts from; None: the experiment's model."""
    head: Slot | None
    adapter: Slot | None
    at: Place
    """The phase's place in the experiment."""
    before: tuple[str, ...] = ()
    """The names of the phases that run before it."""
    length: str = ""
    """How its steps were counted, if it says `epochs`."""
    rates: str = ""
    """The learning rate of its update, and why it is that."""

    @property
    def whole(self) -> bool:
        """Whether every component that the experiment names here was found: what is absent is then absent in the experiment."""
        found = all(len(self.of(kind.name)) == len(self.spec.uses(kind.name)) for kind in of_phase())
        return found and (self.head is None) == (self.spec.model.head is None)

    def latest(self, name: str) -> str:
        """The earlier phase that a name means where weights are needed: the latest of several rounds."""
        return rounds.latest(name, self.before) or name

    def rounds(self, name: str) -> tuple[str, ...]:
        """The earlier phases that a name means where data is needed: all rounds so far."""
        return rounds.every(name, self.before) or (name,)

    def of(self, kind: str) -> tuple[Slot, ...]:
        """The components of a kind, in the experiment's order."""
        return self.named.get(kind, ())

    def one(self, kind: str) -> Slot | None:
        """The component of a kind of which a phase has at most one; None if the phase names none."""
        return next(iter(self.of(kind)), None)

    @property
    def rollout(self) -> Slot:
        return self.of("rollout")[0]

    @property
    def rewards(self) -> tuple[Slot, ...]:
        return self.of("reward")

    @property
    def wraps(self) -> tuple[Slot, ...]:
        """The components that only wrap hooks: wrappers, and kinds like them."""
        return tuple(slot for kind in of_phase() if kind.around for slot in self.of(kind.name))

    @property
    def advantage(self) -> Slot | None:
        return self.one("advantage")

    @property
    def update(self) -> Slot | None:
        return self.one("update")

    @property
    def feedback(self) -> tuple[Slot, ...]:
        return self.of("feedback")

    @property
    def engine(self) -> Slot:
        return self.of("engine")[0]

    @property
    def advantage_by(self) -> Slot | None:
        """The component that answers hookline_advantage: the one named for it, or an update that has its own."""
        own = self.update if self.update and "hookline_advantage" in self.update.hooks else None
        return self.advantage or own

    @property
    def slots(self) -> list[Slot]:
        """Every component that answers or wraps a hook in the loop, in order."""
        return [slot for kind in of_phase() if kind.in_loop for slot in self.of(kind.name)]

    @property
    def beside(self) -> list[Slot]:
        """Every component that the phase names and that has no hook in the loop, such as the engine."""
        return [slot for kind in of_phase() if not kind.in_loop for slot in self.of(kind.name)]

    @property
    def every(self) -> list[Slot]:
        """Every component of the phase, including those without a hook and those inside others; not the evaluations'."""
        tops = (slot for kind in of_phase() for slot in self.of(kind.name))
        return [slot for top in tops for slot in top.every()]

    @property
    def with_evaluations(self) -> list[Slot]:
        """Every component of the phase, including those of its evaluations."""
        return [*self.every, *(slot for evaluation in self.evaluations for slot in evaluation.every)]

    @property
    def gives(self) -> frozenset[str]:
        """What the components in the loop give. The engine's abilities are not included: ask the engine."""
        return frozenset(given for top in self.slots for slot in top.every() for given in slot.gives)

    @property
    def complete(self) -> bool:
        """Whether every component that the phase names was found; laws about missing needs are checked only then."""
        return all(len(self.of(kind.name)) == len(self.spec.uses(kind.name)) for kind in of_phase())


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
    """What the user should know before the run, although nothing needs fixing."""

    def every(self) -> Iterator[Slot]:
        """Every component of the experiment, including those inside others."""
        for phase in self.phases:
            yield from phase.every
            for top in filter(None, (phase.head, phase.adapter)):
                yield from top.every()
        for phase in self.phases:
            for evaluation in phase.evaluations:
                yield from evaluation.every
        for top in filter(None, (self.architecture, self.family, *self.trackers)):
            yield from top.every()

    def read_with(self, phase: str) -> tuple[str, ...]:
        """The phases whose feedback a later phase reads together with this one's; empty if none reads it."""
        places = [one.spec.name for one in self.phases]
        for other in self.phases[places.index(phase) + 1 :]:
            for slot in other.every:
                names = marked(slot.config, "phase").values() if "feedback" in slot.needs else ()
                for read in map(other.rounds, names):
                    if phase in read:
                        return read
        return ()

    def data(self) -> list[tuple[Place, str]]:
        """Every data name that the experiment gives, the tokenizer's and its components', with their places."""
        tokenizer = self.experiment.tokenizer
        named: list[tuple[Place, str]] = [(("tokenizer", "on"), tokenizer.on)] if tokenizer and tokenizer.on else []
        for slot in self.every():
            named += [((*slot.path, key), name) for key, name in marked(slot.config, "data").items()]
        return named

    def model_of(self, phase: PlannedPhase) -> ModelSpec:
        """The experiment's model with the phase's own `dtype`, `autocast`, … in place of the experiment's."""
        own = phase.spec.model.model_dump(exclude_none=True, include={"dtype", "autocast", "attention", "gradient_checkpointing"})
        return self.experiment.model.model_copy(update=own)

    @property
    def offers(self) -> list[Offer]:
        """The distinct offers the experiment uses: its components, and the offers that its data names use."""
        behind = [self.catalogue.offers(name) for _, name in self.data()]
        return list(dict.fromkeys([*(slot.offer for slot in self.every()), *chain.from_iterable(behind)]))

    @cached_property
    def catalogue(self) -> Catalogue:
        """Where the experiment's data names lead; a name is looked up once for a plan."""
        return Catalogue(self.loose, self.experiment.data, self.experiment.folder)
