"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, A2C): the policy gradient with a learned baseline.

    actor:   maximise  A_t log π(a_t|s_t) + entropy_bonus · H(π(·|s_t)),      A_t = G^λ_t − V(s_t)
    critic:  minimise  ½ (V(s_t) − G^λ_t)²,       G^λ the TD(λ) return: λ = 0 one step of TD, λ = 1 the whole return

A_t equals the GAE advantage. A2C takes one optimiser step per rollout; PPO adds a clipped ratio and takes several steps.
Healthy: `explained_variance` rises towards 1, `value_loss` falls, `entropy` stays well above 0 until `reward` is high.

    update: {use: a2c, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2, 150 steps:
    update: {use: a2c, lr: 1.0e-3, critic_lr: 2.0e-3, entropy_bonus: 0}
"""

from __future__ import annotations

from pydantic import Field

from hookline_plugins.algorithms.policy_gradient import ActorCritic


class A2C(ActorCritic):
    """Policy gradient with a critic and an entropy bonus, without clipping."""

    class Config(ActorCritic.Config):
        entropy_bonus: float = Field(0.01, ge=0)
        """Weight of the entropy bonus. Large keeps the policy random."""
