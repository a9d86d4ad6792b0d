"""One spelling for each component that an experiment names, so that two experiments are compared by what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hookline.config.yaml import COMPONENTS

__all__ = ["normal_form"]

OURS = "hookline:"
"""The optional prefix of a built-in name. No plugin can use a built-in name, so the name means the same without it."""


def normal_form(value: Any, key: str = "") -> Any:
    """An experiment, or the part of one under `key`, with built-in components named without their distribution.

    Experiments are stored as they were written; only code that compares them or makes labels reads this form.
    """
    if isinstance(value, Mapping):
        return {name: normal_form(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [normal_form(item, key) for item in value]
    named = isinstance(value, str) and (key == "use" or key in COMPONENTS)
    return value.removeprefix(OURS) if named else value
