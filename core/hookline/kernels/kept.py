"""Logits that are kept from forward to backward where that is cheaper than computing them again.

On a CPU where torch's float32 product is as fast as ours, tiles save memory but cost a fourth product. Up to `MOST` bytes of
logits are therefore kept: those of as many tokens as fit. The others' are computed in tiles, twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import cpu, ops, reference

__all__ = ["MOST", "kept_token_stats", "tokens_kept"]

MOST = 128 << 20
"""The most bytes of logits that are kept for one backward pass."""
AT_ONCE = 4 << 20
"""Logits up to this size, which a cache holds, are one product where no gradient is wanted, too."""
_ops = ops._ops


def tokens_kept(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> int:
    """How many tokens' logits are computed at once, and kept if a gradient is wanted: none where tiles are as fast or more exact."""
    every = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
    plain = all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in every)
    if not plain or torch.compiler.is_compiling() or not cpu.torch_multiplies_as_fast():
        return 0
    tokens, fit = hidden.shape[:-1].numel(), MOST // (4 * len(weight))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in every):
        return min(tokens, fit)
    return tokens if tokens <= fit and 4 * tokens * len(weight) <= AT_ONCE else 0


def kept_token_stats(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, token_ids: Tensor, kept: reference.Kept, *options: Any
) -> Tensor:
    """`ops.linear_token_stats` with the logits of the first `tokens_kept` tokens in memory. options: temperature, softcap, want."""
    reference.check_token_ids(token_ids, len(weight), "linear_token_stats")
    if kept is not None:
        reference.check_support(token_ids, *kept, len(weight), "linear_token_stats")
    n, ids = tokens_kept(hidden, weight, bias), token_ids.flatten()
    support = (None, None) if kept is None else kept
    stats = _Kept.apply(reference.flat(hidden), weight, bias, ids, *support, n, options)  # type: ignore[no-untyped-call]
    return stats.view(len(stats), *token_ids.shape)  # type: ignore[no-any-return]


def _parts(
    ids: Tensor, kept: reference.Kept, n: int
) -> list[tuple[slice, tuple[Tensor, Tensor | None, Tensor | None]]]:
    """Rows whose logits are kept, and the others, each with their ids and support."""
    found = []
    for rows in (slice(0, n), slice(n, len(ids))):
        support = reference.kept_rows(kept, rows.start, rows.stop)
        found.append((rows, (ids[rows], *((None, None) if support is None else support))))
    return found


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, ids: Tensor, kept_ids: Tensor | None,
        kept_offsets: Tensor | None, n: int, options: tuple[Any, ...],
    ) -> Tensor:  # fmt: skip
        kept = None if kept_ids is None or kept_offsets is None else (kept_ids, kept_offsets)
        (held, held_tokens), (rest, rest_tokens) = _parts(ids, kept, n)
        with torch.autocast("cpu", enabled=False):
            logits = torch.nn.functional.linear(hidden[held], weight, bias)
        stats: Tensor = _ops.token_stats(logits, *held_tokens, *options, "pooled")
        if n < len(ids):
            stats = torch.cat([stats, _ops.linear_token_stats(hidden[rest], weight, bias, *rest_tokens, *options)], 1)
        ctx.n, ctx.options = n, options
        ctx.save_for_backward(stats, logits, hidden, weight, bias, ids, kept_ids, kept_offsets)
        return stats

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        stats, logits, hidden, weight, bias, ids, kept_ids, kept_offsets = ctx.saved_tensors
        kept = None if kept_ids is None else (kept_ids, kept_offsets)
        [up] = upstream
        (held, held_tokens), (rest, rest_tokens) = _parts(ids, kept, ctx.n)
        needs = list(ctx.needs_input_grad[:3])
        grads: list[Tensor | None] = [None, None, None]
        if ctx.n < len(ids):
            found = _ops.linear_token_stats_backward(
                up[:, rest], stats[:, rest], hidden[rest], weight, bias, *rest_tokens, *ctx.options, needs
            )
            grads = [grad if need else None for grad, need in zip(found, needs)]
        grad_logits = _ops.token_stats_backward(
            up[:, held], stats[:, held], logits, *held_tokens, *ctx.options, True
        )
        of_hidden, of_weight, of_bias = grads
        if needs[0]:
            own = grad_logits @ weight
            of_hidden = own if of_hidden is None else torch.cat([own, of_hidden])
        if needs[1]:  # added to the others' where it is, for it may be larger than the logits
            own = grad_logits.t()
            of_weight = own @ hidden[held] if of_weight is None else of_weight.addmm_(own, hidden[held])
        if needs[2]:
            own = grad_logits.sum(0)
            of_bias = own if of_bias is None else of_bias.add_(own)
        return of_hidden, of_weight, of_bias, *[None] * 5
