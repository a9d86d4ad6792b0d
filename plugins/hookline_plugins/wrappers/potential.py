"""Potential-based shaping (Ng, Harada & Russell 1999): r_t + γ Φ(s_{t+1}) − Φ(s_t), with Φ = 0 after the last token.

For any Φ, the sum over an answer telescopes to −Φ(s_0), which no action can change. The optimal policy therefore stays the same,
and Q_shaped(s, a) = Q(s, a) − Φ(s). Shaping only moves reward towards the tokens that earn it; any other bonus per token would
change the goal. Use the γ of the advantage, otherwise the sums do not cancel. Φ comes from one of two sources:

- `from: PHASE`: the output of that phase's reward model for the answer so far. For the prompt without an answer it counts as 0.
- `task: builtin:NAME`: the exact future reward of the task's reference policy, computed from the task's process.

A subclass of `Potential` can define another Φ by overriding `potential`. Healthy: `shaping` is near −Φ(s_0), a constant.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

import hookline
from hookline import (
    Component,
    Context,
    DataError,
    DataName,
    ExperimentError,
    Metric,
    PhaseName,
    Process,
    Rollout,
    Scored,
    hookimpl,
)
from hookline_plugins.tasks.exact import State, ordered


class Potential(Component):
    """Adds to each token's reward the rise in Φ that the token caused."""

    needs = property(lambda self: frozenset({"head:reward"} if self.config.from_ else ()))
    metrics = (Metric("shaping", "mean over answers of the sum of γΦ(s') − Φ(s); −Φ(s_0) when γ is 1"),)

    class Config(hookline.Config):
        from_: PhaseName | None = Field(None, alias="from")
        """The phase that trained the reward model whose value is Φ."""
        task: DataName | None = None
        """Alternatively, the task for which Φ is the value of the reference policy."""
        gamma: float = Field(1.0, ge=0, le=1)
        """Discount per token. Use the same value as in the advantage."""

        @model_validator(mode="after")
        def _one(self) -> Self:
            if (self.from_ is None) == (self.task is None):
                raise ValueError("needs a source of the potential: either `from` (a reward model's phase) or `task`")
            return self

    def setup(self, ctx: Context) -> None:
        if self.config.from_:
            self.role = f"reward-model:{self.config.from_}"
            ctx.role(self.role, phase=self.config.from_, frozen=True)
        else:
            process = ctx.task(self.config.task).process()
            if process is None:
                raise ExperimentError(
                    f"{self.config.task} has no process to take a potential from", "give `from: PHASE`"
                )
            self.process, self.values = process, reference_values(process)
            self.starts = {process.prompt(state): state for _, state in process.starts()}

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx: Context, rollout: Rollout) -> Generator[None, Scored, Scored]:
        scored = yield
        bonus_BT = shaping(self.potential(ctx, scored), scored.mask_BT, self.config.gamma)
        ctx.log("shaping", ctx.mean(bonus_BT.sum(1)), len(scored))
        return scored.with_reward(scored.reward_BT + bonus_BT, shaping=bonus_BT.sum(1))

    def potential(self, ctx: Context, scored: Scored) -> Tensor:
        """Φ of the state before each chosen token [B, T]: a function of only the prompt and the tokens so far."""
        if self.config.from_:
            return before(ctx.stats(scored, model=self.role, want=("reward",))["reward"], scored.mask_BT)
        value_BT = torch.zeros(scored.mask_BT.shape)
        for row in range(len(scored)):
            prompt, chosen = scored.records[row].get("prompt"), list[int]()
            if prompt not in self.starts:
                raise DataError(
                    f"the prompt '{prompt}' is not a start of {self.config.task}", "draw prompts from that task"
                )
            for t in scored.mask_BT[row].nonzero()[:, 0].tolist():
                value_BT[row, t] = self._value(self.starts[prompt], scored.decode(chosen).split())
                chosen.append(int(scored.token_ids_BT[row, t]))
        return value_BT

    def _value(self, state: State, words: Sequence[str]) -> float:
        """The reference policy's future reward after these words; 0 after a word that is not an action."""
        for word in words:
            if word not in self.process.actions(state):
                return 0.0
            [(_, state, _)] = self.process.step(state, word)
        return self.values[state]


def shaping(potential_BT: Tensor, mask_BT: Tensor, gamma: float) -> Tensor:
    """γ Φ(s_{t+1}) − Φ(s_t) on each chosen token, from Φ before each; tokens between them are skipped, and Φ is 0 after the end."""
    out_BT = torch.zeros_like(potential_BT)
    after_B = potential_BT.new_zeros(len(potential_BT))
    for t in reversed(range(potential_BT.shape[1])):
        here_B, chosen_B = potential_BT[:, t], mask_BT[:, t]
        out_BT[:, t] = torch.where(chosen_B, gamma * after_B - here_B, 0.0)
        after_B = torch.where(chosen_B, here_B, after_B)
    return out_BT


def before(value_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The value after the previous chosen token; 0 for the first one of a row."""
    out_BT = torch.zeros_like(value_BT)
    last_B = value_BT.new_zeros(len(value_BT))
    for t in range(value_BT.shape[1]):
        out_BT[:, t] = torch.where(mask_BT[:, t], last_B, 0.0)
        last_B = torch.where(mask_BT[:, t], value_BT[:, t], last_B)
    return out_BT


def reference_values(process: Process) -> dict[State, float]:
    """The exact future reward of the reference policy from each state. The process must be deterministic."""
    value: dict[State, float] = {}
    for state in reversed(ordered(process)):
        value[state] = 0.0
        for action, chance in process.actions(state).items():
            outcomes = process.step(state, action)
            if len(outcomes) != 1:
                raise ExperimentError(
                    f"'{action}' in {state} may lead to {len(outcomes)} states, so the words do not determine the state",
                    "use the potential of a reward model: `from: PHASE`",
                )
            [(_, after, paid)] = outcomes
            value[state] += chance * (paid + value[after])
    return value
