"""Off-policy correction: multiplies the advantage of a row drawn by μ by w = π_old(a|s) / μ(a|s), where π_old is the current policy.

Weighting the advantage weights PPO's whole objective, since w ≥ 0: w · min(ρA, clip(ρ)A) with ρ = π/π_old. This is exactly
decoupled PPO (Hilton, Cobbe & Schulman 2022, §3) with π_old as the proximal policy; with an unclipped policy gradient it is plain
importance sampling (Precup et al. 2000). The variance of raw weights is unbounded, so they are cut:

- `truncate`: w ← min(w, high), as in V-trace with ρ̄ (Espeholt et al. 2018, eq. 1) and in truncated importance sampling
  between an inference engine and a trainer (Yao et al. 2025). A small bias gives a bounded variance.
- `mask`: w ← 0 outside [low, high]: tokens that are very unlikely under the policy or under the sampler are not learned from.

`token` weights each token by its own ratio and does not correct the distribution of the states before it. `sequence` weights by the
product over the answer, which is unbiased where no weight is cut, but has a high variance for long answers. Returns that a critic
learns from are not corrected. List it after `whiten`, because whitening afterwards would undo part of it. Healthy: `importance_mean`
near 1, `importance_ess` above .5, `importance_cut` below .1; otherwise the rows are too old to use.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import Advantaged, Component, Context, Metric, PluginError, Scored, hookimpl
from hookline_plugins.maths import LARGEST_LOG_RATIO, log_ratio


class ImportanceWeights(Component):
    """Wraps the advantage and corrects it for rows drawn with older weights or by another sampler."""

    needs = frozenset({"before", "behaviour"})
    gives = property(lambda self: {"correction"} | ({"token-weights"} if self.config.level == "token" else set()))
    claims = frozenset({"correction"})
    metrics = (
        Metric("importance_mean", "mean of the weights before they are cut; 1 in expectation", healthy=(0.5, 2.0)),
        Metric(
            "importance_ess",
            "effective sample size (Σw)² / (n Σw²) of the uncut weights, per weight",
            healthy=(0.2, 1.01),
        ),
        Metric("importance_cut", "share of weights outside [low, high]", healthy=(0.0, 0.5)),
    )

    class Config(hookline.Config):
        synonyms: ClassVar[Mapping[str, str]] = {
            "vllm_importance_sampling_cap": "high", "vllm_importance_sampling_clip_max": "high",
            "vllm_importance_sampling_mode": "cut", "tis_imp_ratio_cap": "high", "rollout_is_threshold": "high",
            "rollout_is": "level", "truncated_importance_sampling_ratio": "high", "vllm_is_truncated_threshold": "high",
        }  # fmt: skip
        cut: Literal["truncate", "mask"] = "truncate"
        """What replaces a weight outside [low, high]: the nearer bound (`truncate`) or 0 (`mask`)."""
        level: Literal["token", "sequence"] = "token"
        """The ratio of each token, or the product over the answer, which actions of several tokens (`macro`) require."""
        high: float = Field(2.0, ge=1)
        """The maximum weight. Large is less biased and noisier."""
        low: float = Field(0.0, ge=0, le=1)
        """The minimum weight; 0 means without a lower bound."""

        @model_validator(mode="after")
        def _apart(self) -> Self:
            if self.low == self.high:
                raise ValueError("has low = high = 1, which makes every weight 1 and corrects nothing")
            return self

    @hookimpl(wrapper=True)
    def hookline_advantage(self, ctx: Context, scored: Scored) -> Generator[None, Advantaged, Advantaged]:
        result = yield
        if result.behaviour is None:
            raise PluginError(
                f"'{self.instance}' received rows without the sampler's log-probs", "use a rollout that samples"
            )
        c, mask_BT = self.config, result.mask_BT
        log_BT = log_ratio(ctx.stats(result).logprobs_BT, result.behaviour.logprobs_BT, mask_BT)
        raw_BT = weights(log_BT, mask_BT, c.level)
        kept_BT = cut(raw_BT, c.low, c.high, c.cut)
        raw = raw_BT[mask_BT] if c.level == "token" else torch.where(mask_BT, raw_BT, 0.0).amax(1)[mask_BT.any(1)]
        ctx.log("importance_mean", ctx.mean(raw), len(raw))
        spread = ctx.sum(len(raw)) * ctx.sum(raw.double().square())
        ctx.log("importance_ess", ctx.sum(raw) ** 2 / max(spread, 1e-300), len(raw))
        ctx.log("importance_cut", ctx.mean((raw < c.low) | (raw > c.high)), len(raw))
        return replace(result, advantage_BT=result.advantage_BT * kept_BT)


def weights(log_ratio_BT: Tensor, mask_BT: Tensor, level: str) -> Tensor:
    """π/μ of each chosen token, or of the whole answer on each of its tokens; 0 elsewhere."""
    if level == "sequence":
        log_ratio_BT = log_ratio_BT.sum(1, keepdim=True).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).expand_as(mask_BT)
    return torch.where(mask_BT, log_ratio_BT.exp(), 0.0)


def cut(weight: Tensor, low: float, high: float, how: str) -> Tensor:
    """`truncate`: the nearer bound outside [low, high]. `mask`: 0 there."""
    if how == "truncate":
        return weight.clamp(low, high)
    return torch.where((weight >= low) & (weight <= high), weight, 0.0)
