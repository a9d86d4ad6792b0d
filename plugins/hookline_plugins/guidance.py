"""Values that tilt a policy: Q heads, and the distribution π_β(a|s) exp(β min_i Q_i(s, a)) that they and a policy make.

Shared by the algorithms that learn the heads, the rollouts that draw from the distribution, and the reward that judges it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hookline import Context, DataError, ExperimentError, NextToken, Process, Sampling
from hookline_plugins.tasks.exact import Policy, ordered

__all__ = ["guide_role", "guided", "guided_policy", "is_q", "lowest", "one_token", "q_head", "q_names"]


def q_head(hidden_size: int, tokens: int, std: float = 0.0, initial: float = 0.0) -> nn.Module:
    """Q of every token, linear in the hidden state. The bias stays `initial`: what situations share would couple the rows
    of a table."""
    head = nn.Linear(hidden_size, tokens)
    nn.init.normal_(head.weight, std=std) if std else nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, initial)
    head.bias.requires_grad_(False)
    return head


def guide_role(ctx: Context, phase: str | None) -> str:
    """The role that has Q heads: the policy, or, in `setup`, the end of an earlier phase with the heads it learned."""
    if phase is None:
        return "policy"
    name = f"guide:{phase}"
    make = partial(q_head, tokens=len(ctx.role_named("policy").head[0]))
    return ctx.role(name, phase=phase, frozen=True, heads=lambda head: make if is_q(head) else None).name


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
