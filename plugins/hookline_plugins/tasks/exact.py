"""Exact figures of a small `Process`: a policy's expected reward, its KL to the reference, and the best possible reward.

All figures are summed over all outcomes, backwards from the end (dynamic programming), without sampling. The best
expected reward at each KL is reached by the soft optimum: V(s) = β log Σ_a π_ref(a|s) exp(Q(s,a)/β),
π(a|s) = π_ref(a|s) exp((Q(s,a) − V(s))/β) (Ziebart 2010; Levine 2018, §2), so its (KL, reward) over all β is the
frontier, and no policy is above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import exp, inf, log

import torch

from hookline import Context, DataError, Encoded, Process, Rollout, State, Task

__all__ = [
    "ExactTask",
    "Policy",
    "State",
    "best_of_n",
    "ceiling",
    "evaluate",
    "frontier",
    "greedy",
    "ordered",
    "policy_of",
    "reference",
    "soft_optimum",
    "tangents",
]

Policy = Callable[[State], Mapping[str, float]]
"""State → word → probability. The rest up to 1 belongs to words that are not an action; they end the episode without reward."""

ROUNDING = 1e-4
"""A rest smaller than this is a rounding error of single precision."""


class ExactTask(Task):
    """A task defined by its process, so its expected reward and frontier are known exactly."""

    def frontier(self, figure: str) -> Sequence[tuple[float, float]] | None:
        process = self.process()
        return frontier(process) if process and figure in ("task", "return") else None


BETAS = tuple(0.005 * 1.3**i for i in range(36))


@lru_cache(maxsize=8)
def ordered(process: Process) -> tuple[State, ...]:
    """Every reachable state, each before its successors. Raises an error if the process can return to a state."""
    done: dict[State, bool] = {}
    order: list[State] = []
    for _, start in process.starts():
        stack: list[tuple[State, Iterator[State]]] = []
        if start not in done:
            done[start] = False
            stack.append((start, _next(process, start)))
        while stack:
            state, rest = stack[-1]
            after = next((s for s in rest if not done.get(s, False)), None)
            if after is None:
                done[state] = True
                order.append(stack.pop()[0])
            elif after in done:
                raise DataError(f"the process may come back to {after}", "exact sums need a process without cycles")
            else:
                done[after] = False
                stack.append((after, _next(process, after)))
    return tuple(order[::-1])


def _next(process: Process, state: State) -> Iterator[State]:
    for action in process.actions(state):
        for _, after, _ in process.step(state, action):
            yield after


def reference(process: Process) -> Policy:
    """The task's reference policy."""
    return process.actions


def greedy(policy: Policy) -> Policy:
    """The policy that always takes the likeliest action."""

    def likeliest(state: State) -> Mapping[str, float]:
        said = policy(state)
        return {max(said, key=lambda word: said[word]): 1.0} if said else {}

    return likeliest


def evaluate(process: Process, policy: Policy, against: Policy | None = None) -> tuple[float, float]:
    """(expected reward, KL to `against` in nats per episode); `against`: the reference unless given.

    Words that are not an action count together as one word: the KL is infinite if only the policy says them.
    """
    against = against or reference(process)
    value: dict[State, float] = {}
    price: dict[State, float] = {}
    for state in reversed(ordered(process)):
        said, other = policy(state), against(state)
        total = kl = 0.0
        for action in process.actions(state):
            p = said.get(action, 0.0)
            if p > 0:
                q = other.get(action, 0.0)
                outcomes = process.step(state, action)
                total += p * sum(chance * (paid + value[after]) for chance, after, paid in outcomes)
                kl += p * (log(p / q) if q > 0 else inf) + p * sum(c * price[after] for c, after, _ in outcomes)
        leak = 1.0 - sum(said.values()) if said else 0.0
        if leak > ROUNDING:
            known = 1.0 - sum(other.values())
            kl += leak * log(leak / known) if known > 1e-12 else inf
        value[state], price[state] = total, kl
    starts = process.starts()
    return sum(p * value[s] for p, s in starts), sum(p * price[s] for p, s in starts)


def soft_optimum(process: Process, beta: float, against: Policy | None = None) -> Policy:
    """The policy that maximises E[reward] − β KL; β = 0 is the plain optimum."""
    against = against or reference(process)
    soft: dict[State, float] = {}
    best: dict[State, dict[str, float]] = {}
    for state in reversed(ordered(process)):
        known = {action: p for action, p in against(state).items() if p > 0}
        q = {a: sum(c * (paid + soft[s]) for c, s, paid in process.step(state, a)) for a in known}
        top = max(q.values(), default=0.0)
        if beta == 0:
            winners = [a for a in q if q[a] == top]
            best[state] = {a: 1 / len(winners) for a in winners}
            soft[state] = top
        else:
            weight = {a: known[a] * exp((q[a] - top) / beta) for a in q}
            whole = sum(weight.values())
            best[state] = {a: w / whole for a, w in weight.items()}
            soft[state] = top + beta * log(whole) if q else 0.0
    return best.__getitem__


def frontier(process: Process, betas: Sequence[float] = BETAS) -> list[tuple[float, float]]:
    """(KL, the best expected reward at that KL), by rising KL."""
    return sorted((kl, reward) for beta, kl, reward in tangents(process, tuple(betas)) if beta)


def ceiling(process: Process, kl: float) -> float:
    """The best expected reward at this KL: the lowest of the frontier's tangents, accurate to about a ten-thousandth.
    At infinite KL, the expected reward of the best policy."""
    kl = max(kl, 0.0)
    points = tangents(process)
    if kl == inf:
        return points[0][2]
    heights = [reward + beta * (kl - at) for beta, at, reward in points]
    lowest = heights.index(min(heights))
    low, high = (points[max(1, lowest - 1)][0], points[min(len(points) - 1, max(2, lowest + 1))][0])
    for _ in range(8):  # height is convex in β
        third = (high - low) / 3
        left, right = (_height(process, beta, kl) for beta in (low + third, high - third))
        low, high = (low, high - third) if left < right else (low + third, high)
        heights += [left, right]
    return min(heights)


def _height(process: Process, beta: float, kl: float) -> float:
    reward, at = _touches(process, beta)
    return reward + beta * (kl - at)


@lru_cache(maxsize=512)
def _touches(process: Process, beta: float) -> tuple[float, float]:
    """(reward, KL) where the tangent of slope β touches the frontier."""
    return evaluate(process, soft_optimum(process, beta))


@lru_cache(maxsize=8)
def tangents(process: Process, betas: Sequence[float] = BETAS) -> list[tuple[float, float, float]]:
    """(slope β, KL, reward) of the frontier's tangents, by rising β; the first has the level of the best policy."""
    found = []
    for beta in (0.0, *betas):
        reward, kl = _touches(process, beta)
        found.append((beta, kl, reward))
    return found


def best_of_n(process: Process, n: int, policy: Policy | None = None) -> float:
    """Expected reward of the best of n independent answers to each start (Stiennon et al. 2020)."""
    policy = policy or reference(process)
    total = 0.0
    for chance, start in process.starts():
        worth = sorted(_distribution(process, policy, start).items())
        below = 0.0
        for reward, p in worth:
            total += chance * reward * ((below + p) ** n - below**n)
            below += p
    return total


def _distribution(process: Process, policy: Policy, start: State) -> dict[float, float]:
    """Reward of an episode → probability."""
    found: dict[float, float] = {}
    level: dict[tuple[State, float], float] = {(start, 0.0): 1.0}
    while level:
        following: dict[tuple[State, float], float] = {}
        for (state, paid), p in level.items():
            said = policy(state) if process.actions(state) else {}
            left = 1.0 - sum(said.values())
            if left > 1e-12:
                found[paid] = found.get(paid, 0.0) + p * left
            for action, share in said.items():
                for chance, after, more in process.step(state, action):
                    place = (after, round(paid + more, 12))
                    following[place] = following.get(place, 0.0) + p * share * chance
        level = following
    return found


def policy_of(ctx: Context, process: Process, role: str = "policy") -> Policy:
    """The policy of a role in every state, computed with one row per state and action.

    Exact for a policy that sees only the state, such as a table. A network that also sees the earlier tokens is read after one
    path to each state.
    """
    rows: list[Encoded] = []
    asked: list[tuple[State, str]] = []
    ways: dict[State, tuple[list[int], list[int]]] = {
        start: (ctx.tokenizer.prompt(process.prompt(start)), []) for _, start in process.starts()
    }
    for state in ordered(process):
        prompt, so_far = ways[state]
        for action in process.actions(state):
            said = ctx.tokenizer.encode(action)
            learn = [False] * len(so_far) + [True] * len(said)
            rows.append(Encoded(prompt_ids=prompt, answer_ids=[*so_far, *said], learn=learn))
            asked.append((state, action))
            for _, after, _ in process.step(state, action):
                shown = ctx.tokenizer.encode(process.shows(state, action, after))
                ways.setdefault(after, (prompt, [*so_far, *said, *shown]))
    found: dict[State, dict[str, float]] = {}
    batch = Rollout.build(ctx, rows, source="exact", sample_B=torch.arange(len(rows)))
    logprob_B = ctx.stats(batch, model=role).logprobs_BT.double().sum(1)
    for (state, action), logprob in zip(asked, logprob_B.tolist()):
        found.setdefault(state, {})[action] = exp(logprob)
    return lambda state: found.get(state, {})
