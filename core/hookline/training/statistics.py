"""Token statistics of a role over a batch. No path holds [B, T, V]: only `hookline.kernels` sees the vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hookline import kernels
from hookline.batch.laid import Places
from hookline.batch.penalties import penalised, seen_before
from hookline.batch.stages import Batch, KeptIds, Rollout, Sampling
from hookline.contract.loss import Stats, Support
from hookline.errors import PluginError, nearest
from hookline.models.role import ReadHead, Role
from hookline.training.packing import compare_once

__all__ = ["forward", "split_by_tokens", "statistics", "truncated"]

ENOUGH, SHORTER = 1024, 7 / 8
"""Tokens that keep a processor busy, and the share of a part's width below which a row is not padded to it."""
TOKEN_STATISTICS = ("logprobs", "entropy", "logsumexp", "sum_sq_probs", "top_p_mass", "rank")
RESHAPED = 1 << 24
"""Logits that are held at a time where penalties or a minimum length change them."""


def split_by_tokens(
    batch: Batch, micro_tokens: int, units: Sequence[Sequence[int]] | None = None, packing: int = 0
) -> list[list[int]]:
    """Rows in parts of at most `micro_tokens` tokens, padding included; longest first, units kept whole.

    A part of at least `ENOUGH` tokens ends where the next unit is much shorter, so that little is computed on padding; if
    rows are packed, where it is more than `packing` tokens shorter, so that attention is not much wider than a row.
    """
    total_B = (batch.prompt_length_B + batch.length_B).tolist()
    every = [list(unit) for unit in units] if units is not None else [[row] for row in range(len(batch))]
    every.sort(key=lambda unit: -max(total_B[row] for row in unit))
    if packing:
        return _split_packed(every, total_B, micro_tokens, packing)
    parts: list[list[int]] = []
    width = 0
    for unit in every:
        longest = max(total_B[row] for row in unit)
        fits = bool(parts) and (len(parts[-1]) + len(unit)) * max(width, longest) <= micro_tokens
        if fits and (longest >= SHORTER * width or len(parts[-1]) * width < ENOUGH):
            parts[-1] += unit
            width = max(width, longest)
        else:
            parts.append(list(unit))
            width = longest
    return parts


def _split_packed(
    units: Sequence[Sequence[int]], total_B: Sequence[int], micro_tokens: int, packing: int
) -> list[list[int]]:
    """The same for rows that are laid end to end as `hookline.batch.laid.lay` does; units come longest first."""
    parts: list[list[int]] = []
    places = Places(1)
    for unit in units:
        lengths = sorted((total_B[row] for row in unit), reverse=True)
        joined = places.with_rows(lengths) if parts and lengths[0] <= places.width else None
        near = lengths[0] >= places.width - packing or places.tokens < ENOUGH
        if joined is not None and joined.tokens <= micro_tokens and near:
            parts[-1] += unit
            places = joined
        else:
            parts.append(list(unit))
            places = Places(lengths[0]).with_rows(lengths)
    return parts


def truncated(batch: Batch, want: Sequence[str]) -> bool:
    """Whether one of the figures depends on the tokens that top-k or top-p kept."""
    behaviour = batch.behaviour if isinstance(batch, Rollout) else None
    return behaviour is not None and behaviour.support is not None and any(name in TOKEN_STATISTICS for name in want)


def forward(role: Role, batch: Batch, want: Sequence[str], support: Support = "kept") -> dict[str, Tensor]:
    """One pass of a role over a batch. Statistics come as [B, T]."""
    tokens = tuple(name for name in want if name in TOKEN_STATISTICS)
    heads = [name for name in want if name not in TOKEN_STATISTICS]
    for name in heads:
        head_name, dot, figure = name.partition(".")
        if head_name not in role.heads or (dot and figure not in TOKEN_STATISTICS):
            known = [*TOKEN_STATISTICS, *role.heads, *(f"{head_name}.{figure}" for figure in TOKEN_STATISTICS if dot)]
            raise PluginError(
                f"role '{role.name}' has no statistic or head '{name}'{nearest(name, known)}",
                "make the head in setup: ctx.head",
            )
    if tokens:
        role.family.require({"before"}, f"'{tokens[0]}' of role '{role.name}'")
    fused = bool(tokens) and role.check_fused()
    reading = {name.partition(".")[0]: cast(ReadHead, role.heads[name.partition(".")[0]]) for name in heads}
    sides = sorted({head.reads for head in reading.values()} | ({"before"} if fused else set()))
    states = dict(role.states(batch, sides)) if sides else {}
    compare_once(role, batch, states)
    rows_N, at_N = batch.mask_BT.nonzero(as_tuple=True)
    found: dict[str, Tensor] = {}

    def place(values: Tensor, at: tuple[Tensor, Tensor] = (rows_N, at_N)) -> Tensor:
        shape = (*batch.mask_BT.shape, *values.shape[1:])
        return torch.zeros(shape, dtype=torch.float32, device=values.device).index_put(at, values.float())

    if fused:
        weight, bias = role.head_over_tokens
        if weight.dtype != states["before"].dtype:
            states["before"], weight = states["before"].float(), weight.float()
        if reshaping(batch):
            stats = _reshaped_stats(states["before"], weight, bias, batch, (rows_N, at_N), tokens, support)
        else:
            temperature, kept = _definition(batch, rows_N, at_N, support)
            stats = kernels.linear_token_stats(
                states["before"],
                weight,
                batch.token_ids_BT[rows_N, at_N],
                bias=bias,
                temperature=temperature,
                support=kept,
                want=tokens,
            )
        found |= {name: place(getattr(stats, name)) for name in tokens}
    for head_name, head in reading.items():
        if head.reads == "row":
            found |= _row_figures(head, head_name, states["row"], batch, heads, place)
            continue
        if head_name in heads:
            found[head_name] = place(head(states[head.reads]))
        figures = tuple(name.partition(".")[2] for name in heads if name.startswith(f"{head_name}."))
        if figures:
            own = _vocabulary_stats(head, states[head.reads], batch.token_ids_BT[rows_N, at_N], figures, head_name)
            found |= {f"{head_name}.{figure}": place(getattr(own, figure)) for figure in figures}
    if tokens and not fused:
        parts = [_logits_part(role, batch, row, tokens, support) for row in range(len(batch))]
        joined = [torch.cat(column) for column in zip(*parts)]
        found |= {name: place(values) for name, values in zip(tokens, joined)}
    return found


def _row_figures(
    head: ReadHead,
    name: str,
    state_BH: Tensor,
    batch: Batch,
    asked: Sequence[str],
    place: Callable[[Tensor, tuple[Tensor, Tensor]], Tensor],
) -> dict[str, Tensor]:
    """A head's figure of the whole row, placed on the row's last chosen token."""
    if name not in asked:
        raise PluginError(
            f"head '{name}' reads a row, so it has no figures per token", f"read the head itself: want=('{name}',)"
        )
    chosen_B = batch.mask_BT.any(1)
    at_T = torch.arange(batch.mask_BT.shape[1], device=batch.mask_BT.device)
    rows_N = chosen_B.nonzero()[:, 0]
    last_N = torch.where(batch.mask_BT, at_T, -1)[rows_N].amax(1) if len(rows_N) else rows_N
    return {name: place(head(state_BH[rows_N]), (rows_N, last_N))}


def _vocabulary_stats(head: ReadHead, read_NH: Tensor, ids_N: Tensor, want: tuple[str, ...], name: str) -> Any:
    """Figures of a head over the vocabulary, such as Q values, tile by tile. The head's figure for the token itself is
    logprobs + logsumexp."""
    layers = list(head.inner) if isinstance(head.inner, nn.Sequential) else [head.inner]
    last = layers.pop()
    if not isinstance(last, nn.Linear):
        raise PluginError(
            f"head '{name}' does not end in a linear layer over the vocabulary, so it has no {', '.join(want)}",
            f"read the head itself: want=('{name}',)",
        )
    hidden_NH = read_NH.float()
    for layer in layers:
        hidden_NH = layer(hidden_NH)
    return kernels.linear_token_stats(hidden_NH, last.weight, ids_N, bias=last.bias, want=want)


def _logits_part(role: Role, batch: Batch, row: int, want: tuple[str, ...], support: Support) -> tuple[Tensor, ...]:
    """One row through the model's own output layer, recomputed in the backward pass so that no logits stay."""
    some = batch.rows([row])
    rows_N, at_N = some.mask_BT.nonzero(as_tuple=True)
    temperature, kept = _definition(some, rows_N, at_N, support)

    def compute() -> tuple[Tensor, ...]:
        logits_NV = role.only_tokens(role.logits(some))
        if reshaping(some):
            logits_NV = _reshaped(logits_NV, some, rows_N, at_N)
        stats = kernels.token_stats(
            logits_NV, some.token_ids_BT[rows_N, at_N], temperature=temperature, support=kept, want=want
        )
        return tuple(getattr(stats, name) for name in want)

    return _recomputed(compute)


def _recomputed(compute: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """The same, computed again in the backward pass instead of kept for it."""
    if torch.is_grad_enabled():
        return cast("tuple[Tensor, ...]", checkpoint(compute, use_reentrant=False))
    return compute()


def reshaping(batch: Batch) -> Sampling | None:
    """How the batch was drawn, if penalties or a minimum length changed its logits."""
    behaviour = batch.behaviour if isinstance(batch, Rollout) else None
    return behaviour.sampling if behaviour is not None and behaviour.sampling.reshapes else None


def _reshaped(logits_NV: Tensor, batch: Batch, rows_N: Tensor, at_N: Tensor) -> Tensor:
    """The logits from which the batch's tokens were drawn: those of a role, with the penalties and the minimum length."""
    assert isinstance(batch, Rollout)
    assert batch.behaviour is not None
    sampling, ends = batch.behaviour.sampling, batch.behaviour.ends
    by_answer = replace(sampling, repetition_penalty=1.0).reshapes
    if by_answer and bool((batch.mask_BT[:, 1:] & ~batch.mask_BT[:, :-1]).any()):
        raise PluginError(
            "a row has tokens that the policy did not choose before some that it did, but presence_penalty, frequency_penalty "
            "and min_new_tokens count the tokens of one answer",
            "make a row of each answer, or draw with repetition_penalty alone",
        )
    if sampling.min_new_tokens and not ends:
        raise PluginError("rows were drawn with min_new_tokens, but do not say which tokens end an answer", "set Behaviour.ends")
    seen = seen_before(batch, rows_N, at_N, sampling, logits_NV.shape[1])
    return penalised(logits_NV, sampling, seen, at_N < sampling.min_new_tokens, ends)


def _reshaped_stats(
    hidden_NH: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    batch: Batch,
    tokens: tuple[Tensor, Tensor],
    want: tuple[str, ...],
    support: Support,
) -> kernels.TokenStats:
    """`linear_token_stats` of changed logits: of a few tokens at a time, recomputed in the backward pass so that none stay."""
    weight, bias, hidden_NH = weight.float(), None if bias is None else bias.float(), hidden_NH.float()

    def part(hidden: Tensor, rows: Tensor, at: Tensor) -> tuple[Tensor, ...]:
        def compute() -> tuple[Tensor, ...]:
            logits = _reshaped(nn.functional.linear(hidden, weight, bias), batch, rows, at)
            temperature, kept = _definition(batch, rows, at, support)
            stats = kernels.token_stats(logits, batch.token_ids_BT[rows, at], temperature=temperature, support=kept, want=want)
            return tuple(getattr(stats, name) for name in want)

        return _recomputed(compute)

    with torch.autocast(hidden_NH.device.type, enabled=False):
        few = max(1, RESHAPED // weight.shape[0])
        parts = [part(*some) for some in zip(*(torch.split(whole, few) for whole in (hidden_NH, *tokens)))]
    return kernels.TokenStats(**{name: torch.cat(column) for name, column in zip(want, zip(*parts))})


def _definition(
    batch: Batch, rows_N: Tensor, at_N: Tensor, support: Support
) -> tuple[float, tuple[Tensor, Tensor] | None]:
    """Temperature with which the batch's tokens were drawn, and the ids among which their log-probs are taken."""
    behaviour = batch.behaviour if isinstance(batch, Rollout) else None
    if behaviour is None:
        return 1.0, None
    kept: KeptIds | None = behaviour.support if support == "kept" else None
    if kept is not None:
        kept = kept.select(rows_N * batch.token_ids_BT.shape[1] + at_N)
    return behaviour.sampling.temperature, None if kept is None else (kept.ids, kept.offsets)


@torch.no_grad()
def statistics(role: Role, batch: Batch, want: Sequence[str], micro_tokens: int, support: Support = "kept") -> Stats:
    """The figures without gradient, on the CPU, computed on the role's device in parts of at most `micro_tokens` tokens."""
    T = batch.token_ids_BT.shape[1]
    found: dict[str, Tensor] = {}
    for part in split_by_tokens(batch, micro_tokens, packing=role.packing):
        some = batch.rows(part)
        for name, on_device in forward(role, some.to(role.device), want, support).items():
            value = on_device.cpu()
            whole = found.setdefault(name, value.new_zeros(len(batch), T, *value.shape[2:]))
            whole[torch.tensor(part), : value.shape[1]] = value
    empty = torch.zeros(len(batch), T)
    return Stats({name: found.get(name, empty) for name in want})
