"""NAME: an algorithm for Hookline.

    loss = mean over tokens of −(r − mean r) log π(token) − entropy_bonus · H(π)

Replace this text with your paper: the formula, the citation, and what each figure looks like in a healthy run.
"""

from hookline import Component, Metric, Scored, UpdateConfig, hookimpl
from pydantic import Field


class Example(Component):
    """Follow answers that earned more than the batch's average."""

    needs = frozenset({"before", "behaviour"})
    takes = Scored
    metrics = (Metric("entropy", "mean over tokens of the policy's entropy", "nats"),)

    class Config(UpdateConfig):
        entropy_bonus: float = Field(0.01, ge=0)
        """Weight of the entropy. Large values keep the policy random, 0 lets it become deterministic."""

    @hookimpl
    def hookline_update(self, ctx, batch):
        better_B = batch.reward_B - ctx.mean(batch.reward_B)
        ctx.train(batch.with_extra(better_B=better_B), self.loss)

    def loss(self, mb):
        stats = mb.stats(want=("logprobs", "entropy"))
        entropy = mb.token_mean(stats.entropy_BT)
        mb.log("entropy", entropy)
        return mb.token_mean(-mb["better_B"][:, None] * stats.logprobs_BT) - entropy * self.config.entropy_bonus
