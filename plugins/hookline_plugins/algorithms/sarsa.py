"""SARSA (Rummery & Niranjan 1994; Sutton & Barto 2018, §6.4, 12.7): the value of actions under the policy that takes them.

    Q(s, a) ← Q(s, a) + α (r + γ Q(s', a') − Q(s, a)),    or, with λ, towards the λ-return

Online, with a policy that is ε-greedy in Q, SARSA is a control method whose values include the cost of exploration. On data of
another policy it evaluates that policy, and acting by the best Q (`guided` decoding) is one step of policy improvement: better than
cloning, worse than Q-learning. Its fixed point is that of ILQL with expectile ½.

Healthy: `q_loss` falls to the noise of the returns and stays there; `q_value` settles near the mean return.
"""

from __future__ import annotations

from torch import Tensor

from hookline import MicroBatch, Scored, Stats
from hookline_plugins.algorithms.values import ValueLearner


class SARSA(ValueLearner):
    """Policy evaluation by temporal differences, TD(λ), for tables and networks."""

    def next_value(self, mb: MicroBatch[Scored], stats: Stats) -> Tensor:
        return self.slow_value(mb, stats)
