"""The length of a phase that says `epochs`: how many steps its passes over the data take."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from hookline.config.experiment import Experiment, Phase
from hookline.contract.fields import marked
from hookline.data.sources import Catalogue
from hookline.errors import ExperimentError
from hookline.registry.blame import blame
from hookline.registry.slot import Slot
from hookline.tokens.encode import Encoding
from hookline.tokens.tokenizer import Tokenizer

__all__ = ["in_steps"]


class _Encoding(Encoding):
    """What encodes rows with the experiment's tokenizer, which is loaded or trained when a component asks for it."""

    def __init__(self, experiment: Experiment, catalogue: Catalogue) -> None:
        self.experiment, self.catalogue = experiment, catalogue

    @functools.cached_property
    def _tokenizer(self) -> Tokenizer:  # type: ignore[override]
        spec = self.experiment.tokenizer
        return Tokenizer.make(spec, self.experiment.model.path, self.catalogue.rows(spec.on) if spec and spec.on else None)


def in_steps(
    experiment: Experiment, spec: Phase, rollout: Slot, catalogue: Catalogue, begun: Mapping[str, Any] | None
) -> tuple[int, str]:
    """The steps of a phase that says `epochs`, and how they were counted. Reads the data, all of it.

    begun: the resolved experiment of a resumed run, which keeps the number that it began with. Raises ExperimentError for a rollout
    without passes and for `steps` that say another number, and DataError for data that cannot be read.
    """
    if spec.epochs is None:
        return spec.steps, ""
    phases = begun.get("phases") if begun else ()
    before = next((p for p in phases or () if isinstance(p, Mapping) and p.get("name") == spec.name), {})
    if before.get("epochs") == spec.epochs and isinstance(before.get("steps"), int):
        return before["steps"], f"epochs {spec.epochs:g}, counted when this run began"
    name = next(iter(marked(rollout.config, "data").values()), None)
    found = None
    if name is not None:
        rows = catalogue.rows(name)
        with blame(rollout, "one_pass"):
            found = rollout.component.one_pass(_Encoding(experiment, catalogue), rows.records)
    if found is None:
        raise ExperimentError(
            f"epochs: the rollout '{rollout.instance}' does not read data in passes"
            if name is None
            else f"epochs: the rollout '{rollout.instance}' does not say how long a pass over its data is",
            "say how many `steps` the phase takes",
        )
    total, each = found
    steps = max(1, math.ceil(round(spec.epochs * total / each, 6)))
    said = f"epochs {spec.epochs:g} × {total:,} rows / {each:,} per step = {steps:,} steps".replace(",", " ")
    if spec.steps and spec.steps != steps:
        both = f"a phase has either `steps` or `epochs`, but this has steps: {spec.steps} and {said}"
        raise ExperimentError(both, "leave one out (KEY=null)")
    return steps, said
