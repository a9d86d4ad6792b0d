"""Policies guided by values: Q heads, and the distribution π_β(a|s) exp(β min_i Q_i(s, a)) of a policy and its Q heads.

Shared by the algorithms that learn the heads, the rollouts that draw from the distribution, and the reward that evaluates it.
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
    """Q of every token, linear in the hidden state. The bias stays at `initial`, because a trained bias would couple the
    rows of a table."""
    head = nn.Linear(hidden_size, tokens)
    nn.init.normal_(head.weight, std=std) if std else nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, initial)
    head.bias.requires_grad_(False)
    return head


def guide_role(ctx: Context, phase: str | None) -> str:
    """The role that has Q heads: the policy, or the final model of an earlier phase with its heads. Call it in `setup`."""
    if phase is None:
        return "policy"
    name = f"guide:{phase}"
    make = partial(q_head, tokens=len(ctx.role_named("policy").head[0]))
    return ctx.role(name, phase=phase, frozen=True, heads=lambda head: make if is_q(head) else None).name


def is_q(head: str) -> bool:
    return head.startswith("q") and not head.endswith("_slow")


def q_names(ctx: Context, role: str) -> list[str]:
    """The role's Q heads. Raises ExperimentError if it has none."""
    names = [head for head in ctx.role_named(role).heads if is_q(head)]
    if not names:
        raise ExperimentError(
            f"'{ctx.instance}' is guided by values, but role '{role}' has no Q head",
            "set `from` to the phase that learned them, or use an update that learns them: ilql, sarsa, q-learning",
        )
    return names


def lowest(outlook: NextToken, heads: Sequence[str]) -> Tensor:
    """min_i Q_i(s, ·), [B, V]."""
    return torch.stack([outlook.head(name) for name in heads]).amin(0)


def guided(role: str, heads: Sequence[str], beta: float) -> Callable[[Mapping[str, NextToken]], Tensor]:
    """log π_β + β min_i Q_i, in the form that `ctx.draw` accepts as `combine`."""

    def combine(said: Mapping[str, NextToken]) -> Tensor:
        outlook = said[role]
        return torch.log_softmax(outlook.logits_BV, -1) + beta * lowest(outlook, heads)

    return combine


def guided_policy(ctx: Context, process: Process, role: str, beta: float) -> Policy:
    """The distribution that `guided` draws from in every state of a process, as a policy for `hookline_plugins.tasks.exact`.

    Exact for a model that sees only the state, as tables do. For other models each state is read after one path to it.
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
    """The token of a word, which must be a single token."""
    ids = ctx.tokenizer.encode(word)
    if len(ids) != 1 or ctx.tokenizer.decode(ids).strip() != word:
        raise DataError(
            f"{what} is {f'{len(ids)} tokens' if len(ids) != 1 else 'unknown'} to this tokenizer, but an action must be one token",
            "use tokenizer: {train: words, on: a split of the task that contains all its words}",
        )
    return ids[0]
