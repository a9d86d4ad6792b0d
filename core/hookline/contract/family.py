"""A family: how a kind of network computes states for scored tokens, and how one decodes from it."""

from __future__ import annotations

from typing import ClassVar

from hookline.contract.component import Component, ConfigT

__all__ = ["Family"]


class Family(Component[ConfigT]):
    """How networks of one kind compute: kind `model`, named by `model: {family: NAME}`; `causal` unless said otherwise."""

    sides: ClassVar[frozenset[str]] = frozenset()
    """What it has: `before` and `after` (a state on each side of a scored token), `row` (one state per row), `decodes`."""
