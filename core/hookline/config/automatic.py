"""Resolve what a model leaves open once, at the start, so that a run keeps it to its end: `auto` in its types, an adapter's base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline.config.experiment import Experiment, ModelSpec, TokenizerSpec
from hookline.errors import ExperimentError
from hookline.storage.paths import adapter_base
from hookline.world import devices

__all__ = ["settled"]


def settled(experiment: Experiment, begun: Mapping[str, Any] | None = None) -> tuple[Experiment, list[str]]:
    """The experiment without `auto` in `dtype` and `autocast`, and notes for the user about the choice.

    begun: the resolved experiment of a resumed run, which keeps the types that it started with on any machine.
    """
    notes: list[str] = []
    experiment = _on_its_base(experiment)

    def settle(spec: ModelSpec, before: Any) -> ModelSpec:
        before = before if isinstance(before, Mapping) else {}
        update: dict[str, Any] = {}
        if spec.dtype == "auto":
            update["dtype"] = before.get("dtype") or _own_type(experiment.model.path, notes)
        if spec.autocast == "auto":
            update["autocast"] = before.get("autocast") or _fast_type(experiment.device)
        return spec.model_copy(update=update)

    then = begun or {}
    phases = then.get("phases")
    of_phases = {p["name"]: p.get("model") for p in phases or () if isinstance(p, Mapping) and "name" in p}
    model = settle(experiment.model, then.get("model"))
    each = tuple(
        phase.model_copy(update={"model": settle(phase.model, of_phases.get(phase.name))})
        for phase in experiment.phases
    )
    return experiment.model_copy(update={"model": model, "phases": each}), list(dict.fromkeys(notes))


def _on_its_base(experiment: Experiment) -> Experiment:
    """The folder of an adapter as its base's folder, into which it is merged."""
    model = experiment.model
    if model.path and not model.merge and (base := adapter_base(model.path)):
        model = model.model_copy(update={"path": base, "merge": model.path})
    tokenizer = experiment.tokenizer
    if tokenizer is None and model.merge and (Path(model.merge) / "tokenizer.json").is_file():
        tokenizer = TokenizerSpec(path=model.merge)
    return experiment.model_copy(update={"model": model, "tokenizer": tokenizer})


def _fast_type(device: str) -> str:
    try:
        return "bfloat16" if devices.computes_in_bfloat16(devices.resolve(device)) else "none"
    except ExperimentError:  # the device does not exist; a law of the plan reports that
        return "none"


def _own_type(path: str | None, notes: list[str]) -> str:
    """The type in which a folder stores its weights; float32 for a model that is built."""
    try:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8")) if path else {}
        parts = [part for part in (config, config.get("text_config")) if isinstance(part, dict)]
    except (OSError, ValueError, AttributeError, RecursionError):  # the plan reports what is wrong with the folder
        return "float32"
    named = [part.get(key) for part in parts for key in ("dtype", "torch_dtype")]
    own = next((str(name).removeprefix("torch.") for name in named if name), "float32")
    if own == "bfloat16":
        return own
    if own != "float32":
        notes.append(
            f"model.dtype: auto: {path} is stored in {own}, which is not suitable for training; float32 is used"
        )
    return "float32"
