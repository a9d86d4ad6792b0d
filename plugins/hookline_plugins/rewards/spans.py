"""Rewards per token from marked spans (fine-grained feedback, Wu et al. 2023)."""

from __future__ import annotations

from hookline import Component, Rollout, Term, hookimpl
from hookline_plugins.likelihoods import KINDS


class Spans(Component):
    """The worth of the spans that a token is part of, as the rollout `judgements` reads them; 0 for tokens that no span marks.

    Rows of other judgements are not judged.
    """

    needs = frozenset({"worth_BT", "kind_B"})

    @hookimpl
    def hookline_reward(self, rollout: Rollout) -> Term:
        return Term(rollout.extra["worth_BT"] * rollout.mask_BT, rollout.extra["kind_B"] == KINDS.index("spans"))
