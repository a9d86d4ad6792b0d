"""Learn from the policy's own best answers: best-of-n distillation, RAFT (Dong et al. 2023), expert iteration (Anthony et al. 2017).

    L = mean over kept tokens of −log π(token)

The option `keep` selects the rows: `best` keeps the best row of each group (best-of-n with n = samples_per_prompt; RAFT), `share`
the best rows of the whole step (trlX's rejection fine-tuning), `threshold` all rows whose reward exceeds a fixed value (ReST,
Gulcehre et al. 2023). Each step fine-tunes once on answers of the current policy, so the effective n grows with the steps.
Healthy: `kept_reward` stays above `reward`, and `reward` rises with it; once the two are equal, nothing is left to select.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hookline import Component, Context, Loss, Metric, MicroBatch, Scored, UpdateConfig, hookimpl
from hookline_plugins.maths import ends_episode, per_episode


class BestOfN(Component):
    """Fine-tune on the rows that did best."""

    needs = property(lambda self: {"before", "groups"} if self.config.keep == "best" else {"before"})
    takes = Scored
    off_policy = True
    metrics = (
        Metric("nll", "mean over kept tokens of −log p(token)", "nats per token", better="lower"),
        Metric("kept", "share of rows that are kept"),
        Metric("kept_reward", "mean reward of the kept answers", better="higher"),
    )

    class Config(UpdateConfig):
        synonyms: ClassVar[Mapping[str, str]] = {"top_reward_percentage": "share"}
        usual_lr: ClassVar[float] = 2e-5
        keep: Literal["best", "share", "threshold"] = "best"
        """Which rows are kept, see above."""
        share: float = Field(0.1, gt=0, le=1)
        """For `share`: the share of rows that is kept. Small selects strictly and learns from few rows."""
        threshold: float = 0.0
        """For `threshold`: the reward that must be exceeded."""

    @hookimpl
    def hookline_update(self, ctx: Context, batch: Scored) -> None:
        kept = batch.rows(self.rows(ctx, batch))
        ctx.log("kept", len(kept) / max(1, len(batch)), len(batch))
        ctx.log("kept_reward", ctx.mean(per_episode(kept.reward_B, kept.episode_B)), len(kept))
        # normalise over all tokens: normalised over those that top_k or top_p kept, the other tokens would keep their probability
        ctx.train(replace(kept, behaviour=None), self.loss)

    def rows(self, ctx: Context, batch: Scored) -> Tensor:
        """Rows of this rank to keep, in order. An answer of several rows (an episode) is kept or left out as a whole."""
        c, last = self.config, ends_episode(batch.episode_B, batch.sample_B).nonzero()[:, 0]
        reward_E = batch.episode_reward_B[last]
        match c.keep:
            case "best":
                best = best_of_groups(reward_E, batch.group_B[last])
            case "share":
                every = [
                    (-reward, sample)
                    for part in ctx.gather(keys(reward_E, batch.sample_B[last]))
                    for reward, sample in part
                ]
                many = max(1, round(c.share * len(every)))
                chosen = {sample for _, sample in sorted(every)[:many]}
                best = torch.tensor([sample in chosen for sample in batch.sample_B[last].tolist()], dtype=torch.bool)
            case _:
                best = reward_E > c.threshold
        return torch.isin(batch.episode_B, batch.episode_B[last][best]).nonzero()[:, 0]

    def loss(self, mb: MicroBatch[Scored]) -> Loss:
        nll = mb.token_mean(-mb.stats(support="whole").logprobs_BT)
        mb.log("nll", nll)
        return nll


def keys(reward_E: Tensor, sample_E: Tensor) -> list[tuple[float, int]]:
    """(reward, sample id) of each answer."""
    return list(zip(reward_E.tolist(), sample_E.tolist()))


def best_of_groups(reward_B: Tensor, group_B: Tensor) -> Tensor:
    """The row with the highest reward in each group (the first one on a tie), in ascending order."""
    by_reward = reward_B.argsort(descending=True, stable=True)
    by_group = by_reward[group_B[by_reward].argsort(stable=True)]
    first = torch.ones(len(by_group), dtype=torch.bool)
    first[1:] = group_B[by_group][1:] != group_B[by_group][:-1]
    return by_group[first].sort().values
