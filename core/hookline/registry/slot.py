"""One component of an experiment: its offer, class and validated config, asked once."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

from hookline.contract.check import hook_methods
from hookline.contract.component import Component
from hookline.contract.fields import Config
from hookline.contract.metrics import Metric
from hookline.registry.offers import Offer

__all__ = ["Slot"]


@dataclass(frozen=True)
class Slot:
    """One component of an experiment: its offer, class and validated config.

    A slot is a place in a phase, and has one component: the planner makes it to ask what it needs and gives, and the run
    that follows the plan uses the same one. A second run of a phase therefore needs a plan of its own.
    """

    kind: str
    instance: str
    offer: Offer
    cls: type[Component]
    config: Config
    weight: float
    path: tuple[str | int, ...]

    @functools.cached_property
    def component(self) -> Component:
        """The component, constructed when first asked for and then kept."""
        component = self.cls(self.config)
        component.config = self.config
        component.instance = self.instance
        return component

    @property
    def label(self) -> str:
        """What its state is saved and its errors are told under, e.g. `rollout/turns`."""
        return f"{self.kind}/{self.instance}"

    def every(self) -> Iterator[Slot]:
        """Itself, then the slots nested in it."""
        yield self

    @property
    def source(self) -> str:
        """file:line of the class."""
        import inspect

        try:
            return f"{inspect.getsourcefile(self.cls)}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):
            return self.offer.target

    @functools.cached_property
    def needs(self) -> frozenset[str]:
        return frozenset(self.component.needs)

    @functools.cached_property
    def gives(self) -> frozenset[str]:
        return frozenset(self.component.gives)

    @functools.cached_property
    def claims(self) -> frozenset[str]:
        return frozenset(self.component.claims)

    @functools.cached_property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(self.component.metrics)

    @functools.cached_property
    def positions(self) -> int:
        return int(self.component.positions)

    @functools.cached_property
    def hooks(self) -> list[str]:
        return list(hook_methods(self.cls))
