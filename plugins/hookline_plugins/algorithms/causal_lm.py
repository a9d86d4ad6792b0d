"""Next-token prediction (Bengio et al. 2003; Radford et al. 2019): mean over tokens of −log p(token | what came before)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from hookline import Batch, Component, Context, Loss, Metric, MicroBatch, Rollout, Term, UpdateConfig, hookimpl


class CausalLM(Component):
    """Maximise the likelihood of every token where the mask is true."""

    needs = frozenset({"before"})
    takes = Batch
    off_policy = True
    metrics = (
        Metric("nll", "mean over tokens of −log p(token)", "nats per token", better="lower"),
        Metric("perplexity", "in an evaluation: exp of the mean over tokens of −log p(token)", better="lower"),
        Metric("token_accuracy", "in an evaluation: share of tokens that are the likeliest one", better="higher"),
    )

    class Config(UpdateConfig):
        usual_lr: ClassVar[float] = 5e-5

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Batch) -> None:
        ctx.train(as_data(batch), self.loss)

    def loss(self, mb: MicroBatch[Batch]) -> Loss:
        nll = mb.token_mean(-mb.stats(want=("logprobs",)).logprobs_BT)
        mb.log("nll", nll)
        return nll

    def held_out(self, ctx: Context, batch: Batch) -> Mapping[str, Term]:
        batch = as_data(batch)
        found = ctx.measure(batch, self.loss)["loss"]
        tokens_B = batch.mask_BT.sum(1)
        best_BT = ctx.stats(batch, want=("rank",))["rank"] == 0
        right_B = (best_BT & batch.mask_BT).sum(1) / tokens_B.clamp(min=1)
        return {
            "loss": found,
            "perplexity": Term(found.value.double().exp(), found.ok_B, found.weight_B, "perplexity"),
            "token_accuracy": Term(right_B, tokens_B > 0, tokens_B),
        }


def as_data(batch: Batch) -> Batch:
    """Drawn rows as data: normalised over all tokens, not over those that top_k or top_p kept."""
    return replace(batch, behaviour=None) if isinstance(batch, Rollout) else batch
