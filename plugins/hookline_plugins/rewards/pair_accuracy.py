"""How well the reward model in training orders answers. For evaluations on `preferences`."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

import hookline
from hookline import Component, Context, Rollout, Term, hookimpl, read_last
from hookline_plugins.maths import ordered


class PairAccuracy(Component):
    """Share of a judgement's pairs that the model's head `reward` orders correctly, recorded on the judgement's first row.

    A pair to which the model gives equal rewards counts ½, so a model without an opinion has .5; a pair that the judge left
    tied is not counted. `recorded` compares with the judged order, which contains unpredictable noise. `gold` compares with
    the order by the gold reward that a simulated annotator recorded, without ties. `ceiling` is the accuracy that the gold
    reward itself would reach against the judged order: E[σ(|Δgold| / temperature)] for Bradley–Terry noise.
    """

    better = property(lambda self: None if self.config.against == "ceiling" else "higher")
    needs = property(lambda self: {"pairs"} if self.config.against == "ceiling" else {"pairs", "head:reward"})

    class Config(hookline.Config):
        against: Literal["recorded", "gold", "ceiling"] = "recorded"
        """The order that the model is compared with."""
        temperature: float = Field(0.1, gt=0)
        """The annotator's temperature, for `ceiling`."""

    @hookimpl
    def hookline_reward(self, ctx: Context, rollout: Rollout) -> Term:
        recorded_B, gold_B = rollout.extra["recorded_B"], rollout.extra["gold_B"]
        reward_B = recorded_B
        if self.config.against != "ceiling":
            reward_B = read_last(ctx.stats(rollout, want=("reward",))["reward"], rollout.mask_BT)
        value_B = torch.zeros(len(rollout))
        ok_B = torch.zeros(len(rollout), dtype=torch.bool)
        for group in dict.fromkeys(rollout.group_B.tolist()):
            rows = (rollout.group_B == group).nonzero()[:, 0]
            a, b = torch.combinations(rows).unbind(1)
            gold, order = gold_B[a] - gold_B[b], recorded_B[a] - recorded_B[b]
            match self.config.against:
                case "recorded":
                    right = ordered((reward_B[a] - reward_B[b]) * order.sign())[order != 0]
                case "gold":
                    right = ordered((reward_B[a] - reward_B[b]) * gold.sign())[(gold != 0) & gold.isfinite()]
                case _:
                    right = torch.sigmoid(gold.abs() / self.config.temperature)[gold.isfinite()]
            if len(right):
                value_B[rows[0]], ok_B[rows[0]] = right.mean(), True
        return Term(value_B, ok_B)
