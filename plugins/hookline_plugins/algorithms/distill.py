"""Distillation (Hinton et al. 2015; policy distillation, Rusu et al. 2015): make the policy say what another one drew.

    L = mean over tokens of −log π(a|s),   a drawn by the teacher: KL(teacher ‖ policy) up to the teacher's own entropy

The rollout draws from the teacher, e.g. `guided`, and records how likely its tokens were; so the loss is `sft`'s and the
KL is known. Healthy: `teacher_kl` falls towards 0 and crosses it by chance at times, being an estimate.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from hookline import Component, Context, ExperimentError, Loss, Metric, MicroBatch, Rollout, UpdateConfig, hookimpl


class Distill(Component):
    """Put a policy that needs more than its weights to draw, back into weights."""

    needs = frozenset({"before", "behaviour"})
    takes = Rollout
    off_policy = True
    metrics = (
        Metric("nll", "mean over tokens of −log p(token)", "nats per token", better="lower"),
        Metric("teacher_kl", "mean over rows of Σ_t (log teacher − log policy), before the update", "nats per answer"),
    )

    class Config(UpdateConfig):
        pass

    def setup(self, ctx: Context) -> None:
        if "greedy" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' would learn from greedy answers as if they had been drawn", "leave out greedy: true"
            )

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Rollout) -> None:
        assert batch.behaviour is not None
        # likelihood among all tokens: among those a top_k or top_p kept, the mass outside would stay where it is
        plain = replace(batch, behaviour=None)
        if len(batch):
            gap_BT = batch.behaviour.logprobs_BT - ctx.stats(plain).logprobs_BT
            ctx.log("teacher_kl", ctx.mean(torch.where(batch.mask_BT, gap_BT, 0.0).sum(1)), len(batch))

        def loss(mb: MicroBatch[Rollout]) -> Loss:
            nll = mb.token_mean(-mb.stats(want=("logprobs",)).logprobs_BT)
            mb.log("nll", nll)
            return nll

        ctx.train(plain, loss)
