"""Generalised advantage estimation (Schulman et al. 2016, eq. 16): A_t = Σ_k (γλ)^k δ_{t+k}, δ_t = r_t + γV_{t+1} − V_t.

The update's critic is evaluated once per step, before the first epoch, and is then trained towards `return_BT` = A + V. Healthy:
the update's `explained_variance` rises towards 1. While it is near 0, a λ near 1 limits the influence of the critic's errors.
"""

from __future__ import annotations

import torch
from pydantic import Field

import hookline
from hookline import Advantaged, Component, Context, ExperimentError, Scored, hookimpl
from hookline_plugins import maths


class Options(hookline.Config):
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount per token. 1.0 is usual for one-turn text; lower values prefer early reward."""
    lam: float = Field(0.95, ge=0, le=1)
    """0 is one-step TD (biased, quiet), 1 is Monte Carlo (unbiased, noisy)."""


class GAE(Component[Options]):
    """Advantages from a critic's values. Masked tokens are skipped and are 0; an episode's last token is terminal."""

    needs = frozenset({"critic"})
    gives = frozenset({"value_BT", "return_BT"})

    def setup(self, ctx: Context) -> None:
        if "paused" in ctx.given:
            raise ExperimentError(
                f"'{self.instance}' treats a paused episode as finished and would not bootstrap from its last state",
                "play whole episodes (turns: 0)",
            )

    @hookimpl
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Advantaged:
        value_BT = ctx.stats(scored, model=ctx.role_with("value"), want=("value",))["value"]
        rows = scored.episode_B, scored.sample_B
        advantage_BT, return_BT = maths.gae(
            scored.reward_BT, value_BT, scored.mask_BT, *rows, gamma=self.config.gamma, lam=self.config.lam
        )
        return_BT = torch.where(scored.mask_BT, return_BT, 0.0)
        return scored.advantaged(advantage_BT, value_BT=value_BT, return_BT=return_BT)
