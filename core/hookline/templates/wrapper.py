"""NAME: a wrapper for Hookline. A wrapper runs around a hook, for any component that answers the hook."""

import hookline
from hookline import Component, Metric, hookimpl, put_last
from pydantic import Field


class Example(Component):
    """Wraps the score: subtracts the rewards' running mean over earlier steps."""

    metrics = (Metric("running_mean", "mean of rewards over the steps so far, decayed"),)

    class Config(hookline.Config):
        keep: float = Field(0.9, ge=0, lt=1)
        """Share of the old mean that is kept at each step. Near 1, the mean changes slowly and is less noisy."""

    mean = 0.0

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx):
        scored = yield
        if not len(scored):
            return scored
        price_B = scored.reward_B.new_full((len(scored),), self.mean)
        self.mean += (1 - self.config.keep) * (ctx.mean(scored.reward_B) - self.mean)
        ctx.log("running_mean", self.mean)
        return scored.with_reward(scored.reward_BT - put_last(price_B, scored.mask_BT))

    def state_dict(self):
        return {"mean": self.mean}

    def load_state_dict(self, state):
        self.mean = float(state["mean"])
