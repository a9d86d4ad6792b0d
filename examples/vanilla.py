"""The plain policy gradient (Williams 1992): mean over tokens of −A log π(token). Try it: `-p examples/vanilla.py`."""

from hookline import Component, UpdateConfig, hookimpl


class Vanilla(Component):
    """Policy gradient on the advantages of any component, without ratio and clipping, so for one epoch per rollout."""

    needs = frozenset({"behaviour"})
    Config = UpdateConfig

    @hookimpl
    def hookline_update(self, ctx, batch):
        ctx.train(batch, lambda mb: mb.token_mean(-mb.batch.advantage_BT * mb.stats().logprobs_BT))
