"""Answers guided by values (Snell et al. 2022, eq. 5): drawn from π(a|s) ∝ π_β(a|s) exp(β (min_i Q_i(s, a) − V(s))).

π_β is the policy as it cloned the data, so what the data never do stays unlikely whatever Q says of it. V is the same for
all a and leaves the distribution as it is, so it is not computed. The recorded log-probs are those of this distribution.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from hookline import Completions, Context, DataError, ExperimentError, NextToken, PhaseName, Process, Sampling
from hookline_plugins.algorithms.values import q_head
from hookline_plugins.rollouts.generate import Generate
from hookline_plugins.tasks.exact import Policy, ordered


class Guided(Generate):
    """`generate`, drawing from the policy tilted by its Q heads, or from an earlier phase's policy by its own."""

    class Config(Generate.Config):
        beta: float = Field(1.0, ge=0)
        """How far values outweigh the cloned policy. 0 is the policy itself, large is greedy in Q on its support."""
        from_: PhaseName | None = Field(None, alias="from")
        """The phase whose policy and Q heads draw. None: the policy of this phase, whose update learns the heads."""

    @property
    def needs(self) -> set[str]:
        return {*super().needs, "engine:combine"}

    gives = property(
        lambda self: {"behaviour", "off-policy"} | ({"groups"} if self.config.samples_per_prompt > 1 else set())
    )

    def setup(self, ctx: Context) -> None:
        super().setup(ctx)
        self.guide = guide_role(ctx, self.config.from_)

    def draw(
        self, ctx: Context, prompts: Sequence[Sequence[int]], sample_B: Tensor, sampling: Sampling, greedy_B: Tensor
    ) -> Completions:
        return ctx.draw(
            prompts,
            sample_B,
            sampling_=sampling,
            max_new_tokens=self.config.max_new_tokens,
            greedy_B=greedy_B,
            model=self.guide,
            combine=guided(self.guide, q_names(ctx, self.guide), self.config.beta),
        )


def guide_role(ctx: Context, phase: str | None) -> str:
    """The role that has Q heads: the policy, or, in `setup`, the end of an earlier phase with the heads it learned."""
    if phase is None:
        return "policy"
    name = f"guide:{phase}"
    saved = ctx.run.phase_folder(phase) / "model" / "role.json"
    heads = [head for head in json.loads(saved.read_text(encoding="utf-8"))["heads"] if is_q(head)]
    tokens = len(ctx.role_named("policy").head[0])
    return ctx.role(name, phase=phase, frozen=True, heads={head: partial(q_head, tokens=tokens) for head in heads}).name


def is_q(head: str) -> bool:
    return head.startswith("q") and not head.endswith("_slow")


def q_names(ctx: Context, role: str) -> list[str]:
    """The role's Q heads; refuses one that has none."""
    names = [head for head in ctx.role_named(role).heads if is_q(head)]
    if not names:
        raise ExperimentError(
            f"'{ctx.instance}' is guided by values, but role '{role}' has no Q head",
            "name the phase that learned them (`from`), or an update that does: ilql, sarsa, q-learning",
        )
    return names


def lowest(outlook: NextToken, heads: Sequence[str]) -> Tensor:
    """min_i Q_i(s, ·), [B, V]."""
    return torch.stack([outlook.head(name) for name in heads]).amin(0)


def guided(role: str, heads: Sequence[str], beta: float) -> Callable[[Mapping[str, NextToken]], Tensor]:
    """log π_β + β min_i Q_i, as `ctx.draw` takes it."""

    def combine(said: Mapping[str, NextToken]) -> Tensor:
        outlook = said[role]
        return torch.log_softmax(outlook.logits_BV, -1) + beta * lowest(outlook, heads)

    return combine


def guided_policy(ctx: Context, process: Process, role: str, beta: float) -> Policy:
    """What `guided` draws from in every state of a process, as `hookline_plugins.tasks.exact` reads policies.

    Exact where the model looks at the state alone, as tables do; else each state is read on one way that leads there.
    """
    ways = {start: ctx.tokenizer.prompt(process.prompt(start)) for _, start in process.starts()}
    states = [state for state in ordered(process) if process.actions(state)]
    actions = {action for state in states for action in process.actions(state)}
    tokens = {action: one_token(ctx, action, f"the action '{action}'") for action in actions}
    for state in states:
        for action in process.actions(state):
            for _, after, _ in process.step(state, action):
                shown = ctx.tokenizer.encode(process.shows(state, action, after))
                ways.setdefault(after, [*ways[state], tokens[action], *shown])
    tilt, said = guided(role, q_names(ctx, role), beta), []

    def listen(outlooks: Mapping[str, NextToken]) -> Tensor:
        logits_BV = tilt(outlooks)
        said.append(torch.softmax(logits_BV.double(), -1))
        return logits_BV

    prompts = [ways[state] for state in states]
    ctx.draw(
        prompts, torch.arange(len(prompts)), sampling_=Sampling(), max_new_tokens=1, model=role, combine=listen
    )  # fmt: skip
    found = {
        state: {action: float(probs_V[tokens[action]]) for action in process.actions(state)}
        for state, probs_V in zip(states, said[0])
    }
    return lambda state: found.get(state, {})


def one_token(ctx: Context, word: str, what: str) -> int:
    """The token of a word that must be one."""
    ids = ctx.tokenizer.encode(word)
    if len(ids) != 1 or ctx.tokenizer.decode(ids).strip() != word:
        raise DataError(
            f"{what} is {f'{len(ids)} tokens' if len(ids) != 1 else 'unknown'} to this tokenizer, an action is one",
            "tokenizer: {train: words, on: a split of the task that holds all its words}",
        )
    return ids[0]
