"""How well the reward model in training orders comparisons. For evaluations on `preferences`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Rollout, Term, hookimpl, read_last


class PairAccuracy(Component):
    """1 where the model's head `reward` orders a comparison right, 0 where it does not, judged on the chosen row.

    `recorded` asks for the order that was judged, whose noise nobody can predict; `gold` for the order by the gold
    reward that a simulated annotator noted; `ceiling` is the share of judgements that knowing gold would predict
    (preferences by Bradley–Terry: E[σ(|Δ|)]).
    """

    needs = frozenset({"pairs"})

    class Config(hookline.Config):
        against: Literal["recorded", "gold", "ceiling"] = Field("recorded")
        """Whose order counts."""

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        chosen_B = rollout.extra["recorded_B"] > 0
        detail = rollout.records
        gold_B = torch.tensor([float(r.get("gold_chosen", 0.0)) - float(r.get("gold_rejected", 0.0)) for r in detail])
        if self.config.against == "ceiling":
            certainty_B = torch.tensor([float(r.get("certainty", 1.0)) for r in detail])
            return Term(certainty_B, chosen_B)
        reward_B = read_last(ctx.stats(rollout, want=("reward",))["reward"], rollout.mask_BT)
        # comparisons lie as (chosen, rejected) side by side
        right_B = torch.zeros(len(rollout))
        right_B[0::2] = (reward_B[0::2] > reward_B[1::2]).float()
        if self.config.against == "gold":
            right_B = torch.where(gold_B > 0, right_B, 1 - right_B)
            return Term(right_B, chosen_B & (gold_B != 0))
        return Term(right_B, chosen_B)
