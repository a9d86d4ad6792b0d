"""Proximal policy optimisation (Schulman et al. 2017) with a critic, as in RLHF (Stiennon et al. 2020).

    policy, eq. 7, mean over tokens:    −min(ρ A, clip(ρ, 1 ± clip_range) A),   ρ = exp(log π(a|s) − log π_old(a|s))
    critic, clipped like the policy:    ½ max((V − R)², (V_clip − R)²),         V_clip = V_old + clip(V − V_old, ± value_clip)
    ptx (Ouyang et al. 2022, eq. 2):    −weight · mean over tokens of log π(text), on other rows, in the same optimiser step

A and R come from GAE (`gamma`, `lam`). When the phase names another `advantage`, that component provides A, and the critic is
trained only if the component also provides returns (`gae` does; `leave-one-out` does not, so the second line is dropped). A price
on the KL, fixed or steered to a target, belongs in the reward: `wrap: kl-penalty`. Healthy: `clip_fraction` is below 0.2,
`approx_kl` below 0.05, `explained_variance` rises towards 1, and `ptx_loss` is not higher than at the start.

    update: {use: ppo, lr: 0.1, epochs: 2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

import hookline
from hookline import Advantaged, Batch, Context, DataName, ExperimentError, Loss, Metric, MicroBatch, hookimpl
from hookline_plugins.algorithms.policy_gradient import ActorCritic, Clipped
from hookline_plugins.rollouts.dataset import Dataset
from hookline_plugins.rollouts.text import Text


class Ptx(hookline.Config):
    """Text that the policy continues to learn while it is optimised for reward."""

    path: DataName
    """Rows with `text`, or with `prompt` and `completion`: a .jsonl file, or builtin:NAME/SPLIT."""
    weight: float = Field(1.0, ge=0)
    """Weight of the loss on this text. Large preserves the language and slows the reward; 0 is plain PPO."""
    rows: int = Field(16, ge=1)
    """Rows per step, spread over the minibatches."""
    length: int = Field(64, ge=2)
    """Tokens per row, where the rows are plain text."""


class PPO(Clipped, ActorCritic):
    """Clipped policy gradient, with a learned value for every token when the advantage needs one."""

    metrics = (
        *ActorCritic.metrics,
        Metric("ptx_loss", "mean over ptx tokens of −log p(token)", "nats per token", better="lower"),
    )

    class Config(Clipped.Config, ActorCritic.Config):
        value_clip: float = Field(0.2, gt=0)
        """How far the critic's value may move from its old value before it is clipped, in units of reward."""
        ptx: Ptx | None = None
        """Other text whose likelihood is added to each optimiser step: {path: …, weight: …}; none: no such text."""

    def value_loss(self, value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor) -> Tensor:
        clip = self.config.value_clip
        clipped_BT = old_value_BT + (value_BT - old_value_BT).clamp(-clip, clip)
        return 0.5 * torch.maximum((value_BT - return_BT).square(), (clipped_BT - return_BT).square())

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        ptx: Ptx | None = self.config.ptx
        self.text: Text | Dataset | None = None
        if ptx and ptx.weight:
            if any("text" in record for record in ctx.rows(ptx.path).records[:1]):
                room = ctx.role_named("policy").context
                if ptx.length >= room:  # one more token precedes them
                    raise ExperimentError(
                        f"'{self.instance}' would learn ptx text {ptx.length} tokens at a time, but the model has {room} positions",
                        f"lower ptx.length to {room - 1}, or build the model with a larger context",
                    )
                self.text = Text(Text.Config(path=ptx.path, rows=ptx.rows, length=ptx.length))
            else:
                self.text = Dataset(Dataset.Config(path=ptx.path, rows=ptx.rows))
            self.text.setup(ctx)

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Advantaged) -> None:
        beside = (self.text.hookline_rollout(ctx), self.ptx_loss) if self.text else None
        ctx.train(self.prepared(ctx, batch), self.loss, beside=beside)

    def ptx_loss(self, mb: MicroBatch[Batch]) -> Loss:
        nll = mb.token_mean(-mb.stats(want=("logprobs",)).logprobs_BT)
        mb.log("ptx_loss", nll)
        weight: float = self.config.ptx.weight
        return nll * weight
