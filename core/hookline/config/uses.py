"""One spelling for each component that an experiment names, so that two experiments are compared by what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hookline.config.yaml import COMPONENTS

__all__ = ["normal_form"]

OURS = "hookline:"
"""What may stand before a built-in name. Since nobody else can take such a name, it means the same without."""


def normal_form(value: Any, key: str = "") -> Any:
    """An experiment, or a part of it that stands under `key`, with built-in components named without their distribution.

    Experiments are kept as they were written; only what compares them, or makes labels of them, reads this form.
    """
    if isinstance(value, Mapping):
        return {name: normal_form(item, str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [normal_form(item, key) for item in value]
    named = isinstance(value, str) and (key == "use" or key in COMPONENTS)
    return value.removeprefix(OURS) if named else value
