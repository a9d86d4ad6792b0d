"""One component of an experiment: its offer, class and validated config, asked once."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hookline.contract.check import hook_methods
from hookline.contract.component import Component
from hookline.contract.fields import Config
from hookline.registry.offers import Offer

__all__ = ["Slot"]


@dataclass(frozen=True)
class Slot:
    """One component of an experiment: its offer, class and validated config."""

    kind: str
    instance: str
    offer: Offer
    cls: type[Component]
    config: Config
    weight: float
    path: tuple[str | int, ...]

    def make(self) -> Component:
        component = self.cls(self.config)
        component.config = self.config
        component.instance = self.instance
        return component

    @property
    def source(self) -> str:
        """file:line of the class."""
        import inspect

        try:
            return f"{inspect.getsourcefile(self.cls)}:{inspect.getsourcelines(self.cls)[1]}"
        except (OSError, TypeError):
            return self.offer.target

    @functools.cached_property  # asked at every step
    def hooks(self) -> list[str]:
        return list(hook_methods(self.cls))
