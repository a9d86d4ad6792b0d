"""Five bugs that shipped in other frameworks, as plugins: each must be caught, under the law it breaks.

Each class is right but for the line that the comment names; `Sound` is the same component without it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field

from hookline import Component, UpdateConfig, hookimpl


class Sound(Component):
    """The policy gradient with a price on leaving the reference, as it should be."""

    class Config(UpdateConfig):
        kl_coef: float = Field(0.1, ge=0)
        """Price of a nat. Large stays at the reference."""

    def setup(self, ctx):
        ctx.role("reference", frozen=True)

    @hookimpl
    def hookline_update(self, ctx, batch):
        reference_BT = ctx.stats(batch, model="reference").logprobs_BT
        ctx.train(batch.with_extra(reference_BT=reference_BT), self.loss)

    def loss(self, mb):
        logprobs_BT = mb.stats().logprobs_BT
        gap_BT = mb["reference_BT"] - logprobs_BT
        kl = mb.token_mean(gap_BT.exp() - 1 - gap_BT)
        return self.mean(mb, -mb.batch.advantage_BT * logprobs_BT) + kl * self.config.kl_coef

    def mean(self, mb, x_BT):
        return mb.token_mean(x_BT)


class PerMicroBatch(Sound):
    """ms-swift#10117 and its kin: the loss is normalised by the micro-batch, not by the whole optimiser step."""

    def mean(self, mb, x_BT):
        mask_BT = mb.batch.mask_BT
        share = (x_BT * mask_BT).sum() / mask_BT.sum()  # of these rows alone
        return mb.row_mean(share.expand(len(mask_BT)))


class MaskedSum(Sound):
    """SkyRL's own sample loss: where a masked sum was agreed on, it takes a mean, padding included."""

    def mean(self, mb, x_BT):
        return mb.row_mean((x_BT * mb.batch.mask_BT).mean(1))  # over every column there is


class IgnoredCoefficient(Sound):
    """slime#399: `kl_coef` is accepted, and the KL logged, but nothing is ever charged for it."""

    def loss(self, mb):
        return self.mean(mb, -mb.batch.advantage_BT * mb.stats().logprobs_BT)


class AdvantagesAsMask(Component):
    """verl-tool#128: `response_mask = advantages`."""

    @hookimpl
    def hookline_advantage(self, scored):
        early_T = torch.arange(scored.mask_BT.shape[1]) < 2
        result = scored.advantaged((scored.reward_B - scored.reward_B.mean())[:, None] * early_T * scored.mask_BT)
        return replace(result, mask_BT=result.advantage_BT.bool())


class PaidOnPad(Component):
    """trl#3750: the reward lands one token behind the answer's last, on PAD, and is gone."""

    @hookimpl
    def hookline_reward(self, rollout):
        paid_BT = torch.zeros(rollout.token_ids_BT.shape)
        behind_B = rollout.length_B.clamp(max=paid_BT.shape[1] - 1)  # length_B - 1 is the last token
        paid_BT[torch.arange(len(rollout)), behind_B] = 1.0 + rollout.length_B.float()
        return paid_BT


BUGS = {
    # bug: (the plugin, every law it breaks, the one that names it first)
    "ms-swift#10117": (PerMicroBatch, ["micro-batches"]),
    "verl-tool#128": (AdvantagesAsMask, ["mask-kept"]),
    "trl#3750": (PaidOnPad, ["paid-where-chosen", "padding"]),
    "slime#399": (IgnoredCoefficient, ["options"]),
    "SkyRL": (MaskedSum, ["padding", "micro-batches"]),
}
