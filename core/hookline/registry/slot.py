"""One component of an experiment: its offer, class and validated config, and what it needs and gives."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from hookline.contract.check import hook_methods
from hookline.contract.component import Component
from hookline.contract.fields import Config
from hookline.contract.metrics import Metric
from hookline.errors import HooklineError, PluginError, cause
from hookline.registry.construct import construct, source_of
from hookline.registry.offers import Offer

__all__ = ["Slot"]


@dataclass(frozen=True)
class Slot:
    """One component of an experiment: its offer, class and validated config.

    A slot is a place in a phase and has one component. The planner constructs this component to ask what it needs and
    gives, and the run that follows the plan uses the same component. A second run of a phase therefore needs a plan of its own.
    """

    kind: str
    instance: str
    offer: Offer
    cls: type[Component]
    config: Config
    weight: float
    path: tuple[str | int, ...]
    """The slot's place in the experiment."""
    label: str
    """The name for saved state and for errors: `rollout/turns`; a component inside it: `rollout/turns/environment`."""
    inner: Mapping[str, Slot] = field(default_factory=dict)
    """The components that its config names, by field."""

    @functools.cached_property
    def component(self) -> Component:
        """The component, constructed when first asked for and then kept. Raises PluginError when that fails."""
        component = construct(self.cls, self.config, str(self.offer))
        component.instance = self.instance
        component.parts = {key: slot.component for key, slot in self.inner.items()}
        return component

    def every(self) -> Iterator[Slot]:
        """This slot, then the slots inside it, depth first."""
        yield self
        for slot in self.inner.values():
            yield from slot.every()

    def ask(self) -> None:
        """Construct the component and ask what it needs, gives, claims and logs. Raises PluginError when that fails."""
        try:
            _ = self.component, self.needs, self.gives, self.claims, self.metrics, self.positions
        except (HooklineError, KeyboardInterrupt):
            raise
        except BaseException as err:  # SystemExit too
            raise PluginError(
                f"{self.offer} failed when asked for its needs, gives and metrics: {cause(err)}",
                f"its source: {self.source}",
            ) from err

    @property
    def source(self) -> str:
        """file:line of the code that the component calls, if it says so, or of the class."""
        with suppress(Exception):  # code that cannot be imported is reported by `ask`
            if said := self.component.code_line:
                return str(said)
        return source_of(self.cls)

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
