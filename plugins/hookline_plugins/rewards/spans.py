"""Rewards per token from marked spans (fine-grained feedback, Wu et al. 2023)."""

from __future__ import annotations

from torch import Tensor

from hookline import Component, Rollout, hookimpl


class Spans(Component):
    """The worth of the spans that a token is part of, as the rollout `judgements` reads them; 0 for other tokens.

    With `kinds: [spans]` the rollout reads marked answers alone, also those in which nothing had to be marked.
    """

    needs = frozenset({"worth_BT"})

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> Tensor:
        return rollout.extra["worth_BT"]
