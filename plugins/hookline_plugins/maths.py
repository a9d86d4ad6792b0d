"""The mathematics that policy-gradient methods share: functions from tensors to tensors, without config or models.

Suffixes are shapes: B rows, T tokens. `mask_BT` is true where the policy chose the token. Rows of one prompt share a number
in `group_B`, and rows of one episode share a number in `episode_B`.
Statistics are computed in float64, so that a group of equal rewards has a standard deviation of exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hookline import kernels

__all__ = [
    "bounded_exp",
    "clipped",
    "compared",
    "end_to_end",
    "ends_episode",
    "episode_share",
    "falling",
    "first_true",
    "gae",
    "group_equal",
    "group_mean",
    "group_size",
    "group_std",
    "group_whiten",
    "last_true",
    "leave_one_out",
    "log_ratio",
    "macro_ngram",
    "macro_perplexity",
    "macro_random",
    "masked_mean",
    "ordered",
    "over_episodes",
    "per_episode",
    "pick",
    "places",
    "reward_to_go",
    "segment_spread",
    "segment_sum",
    "soft_gate",
    "whiten",
]

LARGEST_LOG_RATIO = 20.0


# -- groups: one number per row in, one per row out


def group_size(group_B: Tensor) -> Tensor:
    """How many rows each row's group has, itself included; float64."""
    return _group_sum(torch.ones_like(group_B, dtype=torch.float64), group_B)


def group_mean(x_B: Tensor, group_B: Tensor) -> Tensor:
    """Mean over each row's group, itself included."""
    return (_group_sum(x_B.double(), group_B) / group_size(group_B)).to(x_B.dtype)


def group_std(x_B: Tensor, group_B: Tensor, correction: int = 1) -> Tensor:
    """Standard deviation over each row's group, divided by n − correction; 0 where n ≤ correction."""
    x = x_B.double()
    size_B = group_size(group_B)
    square_B = _group_sum((x - _group_sum(x, group_B) / size_B).square(), group_B)
    return (square_B / (size_B - correction).clamp(min=1)).sqrt().to(x_B.dtype)


def group_equal(x_B: Tensor, group_B: Tensor) -> Tensor:
    """Whether all values of a row's group are equal up to float32 rounding: they are the same number or neighbours.

    The largest and the smallest differ by at most float32's spacing at the larger |x|, whatever they have in common.
    """
    groups, index_B = torch.unique(group_B, return_inverse=True)
    empty_G = x_B.new_zeros(len(groups), dtype=torch.float64)
    x = x_B.double()
    high_G = empty_G.scatter_reduce(0, index_B, x, "amax", include_self=False)
    low_G = empty_G.scatter_reduce(0, index_B, x, "amin", include_self=False)
    largest_G = high_G.abs().maximum(low_G.abs()).float()
    spacing_G = torch.nextafter(largest_G, torch.full_like(largest_G, torch.inf)).double() - largest_G.double()
    return (high_G - low_G <= spacing_G)[index_B]


def group_whiten(x_B: Tensor, group_B: Tensor, floor: float = 1e-6, correction: int = 1) -> Tensor:
    """(x − mean) / (std + floor) within each group; exactly 0 where all values of a group are equal (`group_equal`)."""
    centred_B = x_B.double() - _group_sum(x_B.double(), group_B) / group_size(group_B)
    white_B = centred_B / (group_std(x_B, group_B, correction).double() + floor)
    return torch.where(group_equal(x_B, group_B), 0.0, white_B).to(x_B.dtype)


def leave_one_out(x_B: Tensor, group_B: Tensor) -> Tensor:
    """x minus the mean of the *other* rows of its group, which is n/(n−1) times (x − group mean); 0 for a group of one row."""
    size_B = group_size(group_B)
    centred_B = x_B.double() - _group_sum(x_B.double(), group_B) / size_B
    return (centred_B * size_B / (size_B - 1).clamp(min=1)).to(x_B.dtype)


def over_episodes(
    statistic: Callable[[Tensor, Tensor], Tensor], x_B: Tensor, group_B: Tensor, episode_B: Tensor
) -> Tensor:
    """A statistic over groups, `statistic(x, group)`, that counts an episode once. Its input is the sum over the episode's rows,
    and each row gets the result. Where every row is an episode of its own, it is the plain statistic.
    """
    episodes, where_B = torch.unique(episode_B, return_inverse=True)
    if len(episodes) == len(episode_B):
        return statistic(x_B, group_B)
    x_E = per_episode(x_B, episode_B)
    group_E = group_B.new_zeros(len(episodes)).index_put((where_B,), group_B)
    return statistic(x_E, group_E)[where_B]


def per_episode(x_B: Tensor, episode_B: Tensor) -> Tensor:
    """The sum over each episode's rows [E]; `x_B` itself where every row is an episode of its own."""
    episodes, where_B = torch.unique(episode_B, return_inverse=True)
    if len(episodes) == len(episode_B):
        return x_B
    return x_B.new_zeros(len(episodes), dtype=torch.float64).index_add(0, where_B, x_B.double()).to(x_B.dtype)


def episode_share(counted_BT: Tensor, episode_B: Tensor) -> Tensor:
    """1 / the number of an episode's counted tokens, on each of these tokens [B, T], so that every episode counts once."""
    episodes, where_B = torch.unique(episode_B, return_inverse=True)
    tokens_E = counted_BT.new_zeros(len(episodes), dtype=torch.float64).index_add(0, where_B, counted_BT.sum(1).double())
    return (counted_BT / tokens_E[where_B].clamp(min=1)[:, None]).float()


def end_to_end(of_rows: Callable[..., Tensor], episode_B: Tensor, sample_B: Tensor, *columns_BT: Tensor) -> Tensor:
    """Apply `of_rows(*columns)` to whole episodes, whose rows are joined end to end in the order of their samples.

    columns_BT: [B, T] each; the result [E, …] is split into the rows again, [B, T]. Joined rows are padded with 0 (false), so
    `of_rows` must skip masked tokens. Where every row is an episode of its own, it is `of_rows(*columns_BT)`.
    """
    episodes, where_B = torch.unique(episode_B, return_inverse=True)
    B, T = columns_BT[0].shape
    if len(episodes) == B or not T:
        return of_rows(*columns_BT)
    in_order = torch.argsort(sample_B, stable=True)
    place_B = torch.zeros_like(where_B)
    place_B[in_order] = places(where_B[in_order])
    width = (int(place_B.max()) + 1) * T
    at_BT = place_B[:, None] * T + torch.arange(T, device=sample_B.device)
    long = [x_BT.new_zeros(len(episodes), width).index_put((where_B[:, None], at_BT), x_BT) for x_BT in columns_BT]
    return of_rows(*long)[where_B[:, None], at_BT]


def ends_episode(episode_B: Tensor, sample_B: Tensor) -> Tensor:
    """True on the row of each episode whose sample is the latest."""
    episodes, where_B = torch.unique(episode_B, return_inverse=True)
    last_E = sample_B.new_full((len(episodes),), -1).scatter_reduce(0, where_B, sample_B, "amax")
    return sample_B == last_E[where_B]


def compared(group_B: Tensor, episode_B: Tensor) -> Tensor:
    """[B, B]: true where two rows answer the same prompt and are not of the same episode."""
    return (group_B[:, None] == group_B) & (episode_B[:, None] != episode_B)


def _group_sum(x_B: Tensor, group_B: Tensor) -> Tensor:
    groups, index_B = torch.unique(group_B, return_inverse=True)
    return x_B.new_zeros(len(groups)).index_add(0, index_B, x_B)[index_B]


# -- masks


def masked_mean(x: Tensor, weight: Tensor, dim: int | None = None) -> Tensor:
    """Σ w·x / Σ w, over all elements or one dimension; 0 where all weights are 0. Values of weight 0 may be NaN."""
    weighed = torch.where(weight != 0, x * weight, 0.0)
    weight = weight.to(x.dtype)
    if dim is None:
        return weighed.sum() / weight.sum().clamp(min=1e-12)
    return weighed.sum(dim) / weight.sum(dim).clamp(min=1e-12)


def first_true(mask_BT: Tensor) -> Tensor:
    """True only on each row's first true token."""
    return mask_BT & (mask_BT.cumsum(1) == 1)


def last_true(mask_BT: Tensor) -> Tensor:
    """True only on each row's last true token."""
    return mask_BT & (mask_BT.flip(1).cumsum(1).flip(1) == 1)


def _mean(x: Tensor) -> float:
    return float(x.double().mean()) if x.numel() else 0.0


def whiten(
    x_BT: Tensor,
    mask_BT: Tensor,
    *,
    shift: bool = True,
    floor: float = 1e-8,
    mean: Callable[[Tensor], float] = _mean,
) -> Tensor:
    """Scale to standard deviation 1, and with `shift` to mean 0, where the mask is true; 0 elsewhere.

    Values with a standard deviation below `floor` are only shifted. mean: `ctx.mean`, for a batch spread over several ranks.
    """
    x = x_BT[mask_BT].double()
    centre = mean(x)
    std = mean((x - centre).square()) ** 0.5
    white = (x_BT.double() - (centre if shift else 0.0)) / (std if std > floor else 1.0)
    return torch.where(mask_BT, white, 0.0).to(x_BT.dtype)


# -- time


def reward_to_go(reward_BT: Tensor, mask_BT: Tensor, gamma: float = 1.0) -> Tensor:
    """G_t = r_t + γ G_{t+1} over the chosen tokens; tokens between them are skipped: they are 0, and their rewards do not count."""
    reward_BT = torch.where(mask_BT, reward_BT, 0.0)
    if gamma == 1.0:
        return torch.where(mask_BT, reward_BT.flip(1).cumsum(1).flip(1), 0.0)
    out_BT = torch.zeros_like(reward_BT)
    carry_B = reward_BT.new_zeros(len(reward_BT))
    for t in reversed(range(reward_BT.shape[1])):
        carry_B = torch.where(mask_BT[:, t], reward_BT[:, t] + gamma * carry_B, carry_B)
        out_BT[:, t] = torch.where(mask_BT[:, t], carry_B, 0.0)
    return out_BT


def gae(
    reward_BT: Tensor,
    value_BT: Tensor,
    mask_BT: Tensor,
    episode_B: Tensor,
    sample_B: Tensor,
    *,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """`kernels.gae` of whole episodes (advantages, returns): a row's last token is followed by the episode's next row."""

    def of_rows(*columns_BT: Tensor) -> Tensor:
        reward_BT, value_BT, mask_BT = columns_BT
        return torch.stack(kernels.gae(reward_BT, value_BT, mask=mask_BT, gamma=gamma, lam=lam), -1)

    advantage_BT, return_BT = end_to_end(of_rows, episode_B, sample_B, reward_BT, value_BT, mask_BT).unbind(-1)
    return advantage_BT.contiguous(), return_BT.contiguous()


# -- comparisons


def ordered(margin: Tensor) -> Tensor:
    """1 where a margin is positive, ½ where it is 0 (chance, since nothing was said), 0 where it is negative."""
    return torch.heaviside(margin, margin.new_tensor(0.5))


# -- ratios


def log_ratio(logprobs_BT: Tensor, old_logprobs_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log π − log π_old per chosen token, 0 elsewhere."""
    return torch.where(mask_BT, logprobs_BT - old_logprobs_BT, 0.0)


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp of a value clamped to ±20: larger ratios are meaningless and must not overflow."""
    return log_ratio.clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO).exp()


def clipped(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """min(ρA, clip(ρ, 1 − low, 1 + high) A): a ratio gains nothing by leaving the range, but always by returning to it."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - low, 1 + high) * advantage)


def soft_gate(ratio: Tensor, tau: Tensor | float) -> Tensor:
    """σ(τ(ρ − 1)) · 4/τ: slope 1 at ρ = 1, falling smoothly on both sides, faster for a larger τ."""
    return torch.sigmoid(tau * (ratio - 1)) * (4 / tau)


# -- macro actions: several tokens as one action, marked by their first token


def macro_ngram(mask_BT: Tensor, n: int) -> Tensor:
    """First tokens of macros of n chosen tokens each; the last may be shorter. n = 1: every chosen token."""
    return mask_BT & ((mask_BT.cumsum(1) - 1) % n == 0)


def macro_random(mask_BT: Tensor, n: int, generators: Sequence[torch.Generator]) -> Tensor:
    """First tokens of macros whose lengths are drawn evenly from 1 … n. generators: one for each row."""
    B, T = mask_BT.shape
    length_BT = torch.ones(B, T, dtype=torch.long)
    for row, generator in enumerate(generators):
        chosen = int(mask_BT[row].sum())
        length_BT[row, :chosen] = torch.randint(1, n + 1, (chosen,), generator=generator)
    length_BT = length_BT.to(mask_BT.device)
    ends_BT = length_BT.cumsum(1).clamp(max=T)
    starts = torch.zeros(B, T + 1, dtype=torch.bool, device=mask_BT.device).scatter(1, ends_BT, True)
    starts[:, 0] = True
    return mask_BT & starts.gather(1, (mask_BT.cumsum(1) - 1).clamp(min=0))


def macro_perplexity(logprobs_BT: Tensor, mask_BT: Tensor, n: int) -> Tensor:
    """First tokens of macros that continue while the next token lowers the macro's perplexity, up to n tokens."""
    first_BT = torch.zeros_like(mask_BT)
    total_B = logprobs_BT.new_zeros(len(mask_BT), dtype=torch.float64)
    count_B = torch.zeros_like(total_B)
    for t in range(mask_BT.shape[1]):
        here_B, chosen_B = logprobs_BT[:, t].double(), mask_BT[:, t]
        worse_B = here_B * count_B < total_B  # less likely than the macro's mean: its perplexity would rise
        starts_B = (count_B == 0) | (count_B == n) | worse_B
        first_BT[:, t] = starts_B & chosen_B
        total_B = torch.where(chosen_B, torch.where(starts_B, here_B, total_B + here_B), total_B)
        count_B = torch.where(chosen_B, torch.where(starts_B, 1.0, count_B + 1), count_B)
    return first_BT


def segment_sum(x_BT: Tensor, first_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum over each macro's chosen tokens, placed on its first token; 0 elsewhere. For macros of one token: x, bit for bit."""
    index_BT = (first_BT.cumsum(1) - 1).clamp(min=0)
    total_BT = torch.zeros_like(x_BT).scatter_add(1, index_BT, torch.where(mask_BT, x_BT, 0.0))
    return torch.where(first_BT, total_BT.gather(1, index_BT), 0.0)


def segment_spread(x_BT: Tensor, first_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Copy the value on each macro's first token to all of its chosen tokens; 0 elsewhere."""
    at_BT = torch.where(first_BT, torch.arange(x_BT.shape[1], device=x_BT.device), 0).cummax(1).values
    return torch.where(mask_BT, x_BT.gather(1, at_BT), 0.0)


# -- chance


def pick(chances: Sequence[tuple[Any, ...]], u: float) -> int:
    """The index of the entry of (probability, …) that u in [0, 1) falls on."""
    total = 0.0
    for which, (chance, *_) in enumerate(chances):
        total += chance
        if u < total:
            return which
    return len(chances) - 1


def places(group_B: Tensor) -> Tensor:
    """The position of each row in its group, from 0."""
    earlier_BB = (group_B[:, None] == group_B).tril(-1)
    return earlier_BB.sum(1)


def falling(first: float, last: float | None, step: int, steps: int) -> float:
    """A value that changes linearly from the phase's first step to its last; without `last` it is constant."""
    if last is None or steps < 2:
        return first
    return first + (last - first) * min(1.0, step / (steps - 1))
