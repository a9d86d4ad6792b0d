"""GSPO, group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071): one ratio per answer.

    s_i = exp( 1/|y_i| Σ_t (log π − log π_old) ),     maximise  1/G Σ_i min(s_i A_i, clip(s_i, 1 − clip_range, 1 + clip_high) A_i)

A_i as in GRPO. Rewards belong to whole answers, so GSPO weighs and clips whole answers. Dividing by the length keeps the
ratio near 1, so the clip ranges are very small (the defaults are the paper's). The only difference from GRPO is the definition
of an action: with `macro: {kind: ngram, n: 1}` it is GRPO. Healthy: a `clip_fraction` around .15, far above GRPO's, is usual.

    update: {use: gspo, lr: 0.2}   # walks as a table: 60 steps of 20 × 8 rows; small GPT-2: lr: 5.0e-4, 150 steps
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from hookline_plugins import maths
from hookline_plugins.algorithms.grpo import GRPO
from hookline_plugins.algorithms.policy_gradient import Macro, Minibatch


class GSPO(GRPO):
    """GRPO with one length-normalised ratio per answer."""

    exempt: Mapping[str, str] = {
        "gradcheck": "a ratio is clipped beyond 3e-4, and a finite difference moves it further than that"
    }

    class Config(GRPO.Config):
        clip_range: float = Field(3e-4, gt=0, lt=1)
        """How far an answer's ratio may fall below 1 before it is clipped. The ratio is a mean per token, so ranges are small."""
        clip_high: float | None = Field(4e-4, gt=0)
        """How far an answer's ratio may rise above 1 before it is clipped."""
        macro: Macro | None = Macro(kind="answer")
        """The tokens that form one action; default: the whole answer."""

    def joined(self, x_BT: Tensor, mb: Minibatch) -> Tensor:
        first_BT, mask = self.acts(mb), mb.batch.mask_BT
        tokens_BT = maths.segment_sum(mask.to(x_BT.dtype), first_BT, mask)
        return maths.segment_sum(x_BT, first_BT, mask) / tokens_BT.clamp(min=1)
