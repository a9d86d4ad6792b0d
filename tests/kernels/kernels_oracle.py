"""What the kernels shall say, once more and by the shortest road: whole tensors, float64, torch.autograd."""

from __future__ import annotations

import torch
from torch import Tensor


def bent(logits: Tensor, temperature: float = 1.0, softcap: float | None = None) -> Tensor:
    z = logits.double()
    if softcap:
        z = torch.where(z == -torch.inf, z, softcap * torch.tanh(z / softcap))
    return z / temperature


def token_stats(
    logits: Tensor,
    token_ids: Tensor,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    keep: Tensor | None = None,
) -> dict[str, Tensor]:
    """Every statistic by name; `keep` is the support as a mask [..., V]."""
    z = bent(logits, temperature, softcap)
    if keep is not None:
        z = z.masked_fill(~keep, -torch.inf)
    asked = token_ids != -100
    y = token_ids.clamp(min=0).long().unsqueeze(-1)
    logp = torch.log_softmax(z, -1)
    p = logp.exp()
    above = z > z.gather(-1, y)
    stats = {
        "logprobs": logp.gather(-1, y).squeeze(-1),
        "entropy": -(p * logp.masked_fill(logp == -torch.inf, 0)).sum(-1),
        "logsumexp": z.logsumexp(-1),
        "sum_sq_probs": p.square().sum(-1),
        "top_p_mass": torch.where(above, p, 0).sum(-1),
        "rank": above.sum(-1).double(),
    }
    return {name: torch.where(asked, value, 0) for name, value in stats.items()}


def gae(
    rewards: list[float], values: list[float], mask: list[bool], gamma: float, lam: float, bootstrap: float
) -> tuple[list[float], list[float]]:
    """One row, by the recurrence, in Python floats."""
    advantages, returns = [0.0] * len(rewards), [0.0] * len(rewards)
    carry, next_value = 0.0, bootstrap
    for t in reversed(range(len(rewards))):
        if mask[t]:
            carry = rewards[t] + gamma * next_value - values[t] + gamma * lam * carry
            next_value = values[t]
            advantages[t], returns[t] = carry, carry + values[t]
    return advantages, returns


def kl(logits: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> Tensor:
    log_p = torch.log_softmax(logits.double() / temperature, -1)
    log_q = torch.log_softmax(ref_logits.double() / temperature, -1)
    return torch.where(log_p == -torch.inf, 0, log_p.exp() * (log_p - log_q)).sum(-1)


def ragged(keep: Tensor) -> tuple[Tensor, Tensor]:
    """A support mask [..., V] in the form the kernels take: (ids, offsets)."""
    flat = keep.reshape(keep.shape[:-1].numel(), keep.shape[-1])
    lengths = flat.sum(-1)
    return flat.nonzero()[:, 1], torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
