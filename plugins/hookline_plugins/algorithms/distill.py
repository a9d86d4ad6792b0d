"""Distillation (Hinton et al. 2015; policy distillation, Rusu et al. 2015): train the policy on answers drawn by a teacher.

    L = mean over tokens of −log π(a|s),   a drawn by the teacher: KL(teacher ‖ policy) up to the teacher's own entropy

The rollout draws from the teacher, e.g. `guided`, and records the log-probs of its tokens. The loss is therefore the loss of
`sft`, and the KL is known. Healthy: `teacher_kl` falls towards 0; it is an estimate, so it can be slightly negative by chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch

from hookline import Component, Context, ExperimentError, Loss, Metric, MicroBatch, Rollout, UpdateConfig, hookimpl


class Distill(Component):
    """Train plain weights to draw like a teacher that needs more than its weights, e.g. guided decoding."""

    needs = frozenset({"before", "behaviour"})
    takes = Rollout
    off_policy = True
    metrics = (
        Metric("nll", "mean over tokens of −log p(token)", "nats per token", better="lower"),
        Metric("teacher_kl", "mean over rows of Σ_t (log teacher − log policy), before the update", "nats per answer"),
    )

    class Config(UpdateConfig):
        usual_lr: ClassVar[float] = 2e-5

    def setup(self, ctx: Context) -> None:
        if "greedy" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' would learn from greedy answers as if they were sampled", "leave out greedy: true"
            )

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Rollout) -> None:
        assert batch.behaviour is not None
        # normalise over all tokens: normalised over those that top_k or top_p kept, the other tokens would keep their probability
        plain = replace(batch, behaviour=None)
        gap_BT = batch.behaviour.logprobs_BT - ctx.stats(plain).logprobs_BT
        ctx.log("teacher_kl", ctx.mean(torch.where(batch.mask_BT, gap_BT, 0.0).sum(1)), len(batch))

        def loss(mb: MicroBatch[Rollout]) -> Loss:
            nll = mb.token_mean(-mb.stats(want=("logprobs",)).logprobs_BT)
            mb.log("nll", nll)
            return nll

        ctx.train(plain, loss)
