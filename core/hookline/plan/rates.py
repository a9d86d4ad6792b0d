"""The learning rate, schedule and warm-up that an experiment leaves out, by what is trained: a model that is built here
learns with the defaults; the weights of a given model want far smaller steps, and an adapter's larger ones than those."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hookline.config.experiment import Experiment, Phase
from hookline.contract.fields import Config, UpdateConfig, Use
from hookline.models.folder import parameters

__all__ = ["Rates", "rates_of"]

SMALL = 20_000_000
"""Folders with fewer parameters are toys: they are trained as models that are built here."""


@dataclass(frozen=True)
class Rates:
    """How the update of a phase learns where its options do not say."""

    trained: str
    """What is trained, as `explain` says it."""
    given: bool = False
    """Whether these are weights of a given model."""
    adapter: bool = False
    before: Mapping[str, Any] | None = None
    """The options of this update in the run that is resumed, which are kept."""

    def settle(self, config: Config) -> Config:
        """The config with values for what the experiment leaves out."""
        if not isinstance(config, UpdateConfig):
            return config
        usual = config.usual(adapter=self.adapter)
        if self.before is not None:
            usual = {key: self.before[key] for key in usual if key in self.before}
        elif not self.given:
            return config
        return config.model_copy(update={key: v for key, v in usual.items() if key not in config.model_fields_set})

    def written(self, use: Use, config: Config) -> Use:
        """The component by name, with the values that `settle` chose among its options."""
        called = {name: field.alias or name for name, field in type(config).model_fields.items()}
        said = {called[name]: getattr(config, name) for name in sorted(config.model_fields_set)}
        chosen = {key: value for key, value in said.items() if key not in use.options}
        return use.model_copy(update={"options": {**use.options, **chosen}}) if chosen else use

    def said(self, use: Use, config: Config) -> str:
        """One line about the learning rate and its reason; empty for an update without one."""
        if not isinstance(config, UpdateConfig):
            return ""
        falls = "" if config.schedule == "constant" else f", {config.schedule}"
        grows = f", warmup {config.warmup:g}" if config.warmup else ""
        kept = "as this run began" if self.before is not None and "lr" in self.before else self.trained
        return f"lr {config.lr:g}{falls}{grows}: {'as written' if 'lr' in use.options else kept}"


def rates_of(experiment: Experiment, spec: Phase, begun: Mapping[str, Any] | None) -> Rates:
    """How the update of a phase learns. begun: the resolved experiment of a resumed run, or of one that is only read."""
    path, adapter = experiment.model.path, spec.model.adapter or experiment.model.adapter
    before = None if begun is None else _options(begun, spec.name)
    what = f"the adapter '{adapter.instance}' of" if adapter else "all weights of"
    if path is None:
        return Rates(f"{what} a model that is built here", False, adapter is not None, before)
    size = parameters(path)
    small = size is not None and size < SMALL
    toy = f", trained as if it were built here: it has {_many(size)} parameters" if size and small else ""
    return Rates(f"{what} the folder {path}{toy}", not small, adapter is not None, before)


def _many(count: int) -> str:
    """`12.3 million`, `84 thousand`, `512`."""
    if count < 999_500:
        return f"{count / 1e3:.0f} thousand" if count >= 1e3 else str(count)
    return f"{count / 1e6:.1f} million"


def _options(begun: Mapping[str, Any], phase: str) -> Mapping[str, Any]:
    phases = begun.get("phases")
    found = next((p for p in phases or () if isinstance(p, Mapping) and p.get("name") == phase), {})
    update = found.get("update")
    options = update.get("options") if isinstance(update, Mapping) else None
    return options if isinstance(options, Mapping) else {}
