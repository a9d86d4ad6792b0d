"""Q-learning (Watkins 1989; Sutton & Barto 2018, §6.5): the value of actions when the best actions follow.

    Q(s, a) ← Q(s, a) + α (r + γ max_a' Q(s', a') − Q(s, a))

The max is over the actions that a row declares (`actions_BT`, which `episodes` provides), otherwise over all tokens. An action
that was never tried keeps its initial value, 0. On fixed data the result is therefore correct only if rewards are not negative or
every action occurs. Otherwise, and with networks, use `conservative` to keep untried actions low, or use `ilql`, which reads only
actions in its data. With `lam` above 0 this is Peng's Q(λ) (Peng & Williams 1996), which is biased towards the acting policy.

Healthy: `q_loss` falls, and `q_value` stays below the best possible return. If it rises above that, the max selects errors.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hookline import MicroBatch, Scored, Stats
from hookline_plugins.algorithms.values import ValueLearner


class QLearning(ValueLearner):
    """Off-policy control by temporal differences, for tables and networks."""

    def wants(self) -> tuple[str, ...]:
        heads = dict.fromkeys((*self.q_heads, *self.slow_heads))
        spread = tuple(f"{name}.logsumexp" for name in self.q_heads if self.config.conservative)
        return (*heads, *spread, *(("logprobs",) if self.config.clone else ()))

    def chosen(self, mb: MicroBatch[Scored], stats: Stats, head: str) -> Tensor:
        return stats[head].gather(-1, mb.batch.token_ids_BT[..., None])[..., 0]

    def next_value(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor:
        q_BTV = torch.stack([stats[name] for name in self.slow_heads]).amin(0)
        actions_BTA = mb.batch.extra.get("actions_BT")
        if actions_BTA is None:
            return q_BTV.amax(-1)
        q_BTA = q_BTV.gather(-1, actions_BTA.clamp(min=0)).masked_fill(actions_BTA < 0, -torch.inf)
        return torch.where(mb.batch.mask_BT, q_BTA.amax(-1), 0.0)
