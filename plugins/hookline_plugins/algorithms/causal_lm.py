"""Next-token prediction (Bengio et al. 2003; Radford et al. 2019): mean over tokens of −log p(token | what came before)."""

from __future__ import annotations

from dataclasses import replace

from hookline import Batch, Component, Context, Loss, Metric, MicroBatch, Rollout, UpdateConfig, hookimpl


class CausalLM(Component):
    """Maximise the likelihood of every token where the mask is true."""

    needs = frozenset({"before"})
    takes = Batch
    off_policy = True
    metrics = (Metric("nll", "mean over tokens of −log p(token)", "nats per token", better="lower"),)

    class Config(UpdateConfig):
        pass

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Batch) -> None:
        def loss(mb: MicroBatch[Batch]) -> Loss:
            nll = mb.token_mean(-mb.stats(want=("logprobs",)).logprobs_BT)
            mb.log("nll", nll)
            return nll

        # drawn rows are data here: normalised over all tokens, not over those that top_k or top_p kept
        ctx.train(replace(batch, behaviour=None) if isinstance(batch, Rollout) else batch, loss)
