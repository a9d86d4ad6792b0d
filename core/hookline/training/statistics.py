"""Token statistics of a role over a batch. No path here holds [B, T, V]: the vocabulary is met inside `hookline.kernels`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hookline import kernels
from hookline.batch.stages import Batch, KeptIds, Rollout
from hookline.contract.loss import Stats
from hookline.errors import PluginError, nearest
from hookline.models.role import ReadHead, Role

if TYPE_CHECKING:
    pass

__all__ = ["statistics"]


TOKEN_STATISTICS = ("logprobs", "entropy", "logsumexp", "sum_sq_probs", "top_p_mass", "rank")


def sequences(batch: Batch) -> Tensor:
    """Prompt and response of each row side by side, without a gap: [B, L], right-padded with 0."""
    B, P = batch.prompt_ids_BP.shape
    T = batch.token_ids_BT.shape[1]
    device = batch.token_ids_BT.device
    L = int((batch.prompt_length_B + batch.length_B).max()) if B else 0
    out_BL = torch.zeros(B, max(L, 1), dtype=torch.long, device=device)
    at_P, at_T = torch.arange(P, device=device), torch.arange(T, device=device)
    row, column = (at_P < batch.prompt_length_B[:, None]).nonzero(as_tuple=True)
    out_BL[row, column] = batch.prompt_ids_BP[row, column]
    row, column = (at_T < batch.length_B[:, None]).nonzero(as_tuple=True)
    out_BL[row, batch.prompt_length_B[row] + column] = batch.token_ids_BT[row, column]
    return out_BL


def split_by_tokens(batch: Batch, micro_tokens: int, units: Sequence[Sequence[int]] | None = None) -> list[list[int]]:
    """Rows in parts of at most `micro_tokens` tokens, padding included; longest first, units kept whole."""
    total_B = (batch.prompt_length_B + batch.length_B).tolist()
    every = [list(unit) for unit in units] if units is not None else [[row] for row in range(len(batch))]
    every.sort(key=lambda unit: -max(total_B[row] for row in unit))
    parts: list[list[int]] = []
    width = 0
    for unit in every:
        longest = max(total_B[row] for row in unit)
        if parts and (len(parts[-1]) + len(unit)) * max(width, longest) <= micro_tokens:
            parts[-1] += unit
            width = max(width, longest)
        else:
            parts.append(list(unit))
            width = longest
    return parts


def forward(role: Role, batch: Batch, want: Sequence[str]) -> dict[str, Tensor]:
    """One pass of a role over a batch. Statistics come as [B, T]."""
    tokens = tuple(name for name in want if name in TOKEN_STATISTICS)
    heads = [name for name in want if name not in TOKEN_STATISTICS]
    for name in heads:
        head_name, dot, figure = name.partition(".")
        if head_name not in role.heads or (dot and figure not in TOKEN_STATISTICS):
            known = [*TOKEN_STATISTICS, *role.heads, *(f"{head_name}.{figure}" for figure in TOKEN_STATISTICS if dot)]
            raise PluginError(
                f"role '{role.name}' has no statistic or head '{name}'{nearest(name, known)}",
                "make it in setup: ctx.head",
            )
    ids_BL = sequences(batch)
    rows_N, at_N = batch.mask_BT.nonzero(as_tuple=True)
    after_N = batch.prompt_length_B[rows_N] + at_N
    found: dict[str, Tensor] = {}

    def place(values_N: Tensor) -> Tensor:
        shape = (*batch.mask_BT.shape, *values_N.shape[1:])
        empty = torch.zeros(shape, dtype=torch.float32, device=values_N.device)
        return empty.index_put((rows_N, at_N), values_N.float())

    if role.check_fused(ids_BL) or not tokens:
        hidden_BLH = role.trunk(input_ids=ids_BL, use_cache=False).last_hidden_state
        before_NH = hidden_BLH[rows_N, after_N - 1]
        if tokens:
            weight, bias = role.head
            if weight.dtype != before_NH.dtype:
                before_NH, weight = before_NH.float(), weight.float()
            temperature, support = _definition(batch, rows_N, at_N)
            stats = kernels.linear_token_stats(
                before_NH,
                weight,
                batch.token_ids_BT[rows_N, at_N],
                bias=bias,
                temperature=temperature,
                support=support,
                want=tokens,
            )
            found |= {name: place(getattr(stats, name)) for name in tokens}
        for head_name in dict.fromkeys(name.partition(".")[0] for name in heads):
            head = cast(ReadHead, role.heads[head_name])
            read_NH = hidden_BLH[rows_N, after_N] if head.reads == "after" else before_NH
            if head_name in heads:
                found[head_name] = place(head(read_NH))
            figures = tuple(name.partition(".")[2] for name in heads if name.startswith(f"{head_name}."))
            if figures:
                own = _vocabulary_stats(head, read_NH, batch.token_ids_BT[rows_N, at_N], figures, head_name)
                found |= {f"{head_name}.{figure}": place(getattr(own, figure)) for figure in figures}
        return found
    if heads:
        found |= forward(role, batch, heads)
    parts = [_logits_part(role, batch, row, tokens) for row in range(len(batch))]
    joined = [torch.cat(column) for column in zip(*parts)]
    return {**found, **{name: place(values) for name, values in zip(tokens, joined)}}


def _vocabulary_stats(head: ReadHead, read_NH: Tensor, ids_N: Tensor, want: tuple[str, ...], name: str) -> Any:
    """Figures of a head over the vocabulary, such as Q values, tile by tile: its figure for the token itself is
    logprobs + logsumexp."""
    layers = list(head.inner) if isinstance(head.inner, nn.Sequential) else [head.inner]
    last = layers.pop()
    if not isinstance(last, nn.Linear):
        raise PluginError(
            f"head '{name}' does not end in a linear layer over the vocabulary, so it has no {', '.join(want)}",
            f"read it whole: want=('{name}',)",
        )
    hidden_NH = read_NH.float()
    for layer in layers:
        hidden_NH = layer(hidden_NH)
    return kernels.linear_token_stats(hidden_NH, last.weight, ids_N, bias=last.bias, want=want)


def _logits_part(role: Role, batch: Batch, row: int, want: tuple[str, ...]) -> tuple[Tensor, ...]:
    """One row through the model's own output layer, recomputed in the backward pass so that no logits stay."""
    some = batch.rows([row])
    rows_N, at_N = some.mask_BT.nonzero(as_tuple=True)
    temperature, support = _definition(some, rows_N, at_N)
    ids_BL = sequences(some)

    def compute(ids: Tensor) -> tuple[Tensor, ...]:
        logits_NV = role.logits(ids)[rows_N, some.prompt_length_B[rows_N] + at_N - 1]
        stats = kernels.token_stats(
            logits_NV, some.token_ids_BT[rows_N, at_N], temperature=temperature, support=support, want=want
        )
        return tuple(getattr(stats, name) for name in want)

    if torch.is_grad_enabled():
        return cast("tuple[Tensor, ...]", checkpoint(compute, ids_BL, use_reentrant=False))
    return compute(ids_BL)


def _definition(batch: Batch, rows_N: Tensor, at_N: Tensor) -> tuple[float, tuple[Tensor, Tensor] | None]:
    """Temperature and kept ids under which the batch's tokens were drawn: every log-prob of them is taken alike."""
    behaviour = batch.behaviour if isinstance(batch, Rollout) else None
    if behaviour is None:
        return 1.0, None
    support: KeptIds | None = behaviour.support
    if support is not None:
        support = support.select(rows_N * batch.token_ids_BT.shape[1] + at_N)
    return behaviour.sampling.temperature, None if support is None else (support.ids, support.offsets)


@torch.no_grad()
def statistics(role: Role, batch: Batch, want: Sequence[str], micro_tokens: int) -> Stats:
    """The figures without gradient, in parts of at most `micro_tokens` tokens."""
    T = batch.token_ids_BT.shape[1]
    found: dict[str, Tensor] = {}
    for part in split_by_tokens(batch, micro_tokens):
        some = batch.rows(part)
        for name, value in forward(role, some, want).items():
            whole = found.setdefault(name, value.new_zeros(len(batch), T, *value.shape[2:]))
            whole[torch.tensor(part, device=value.device), : value.shape[1]] = value
    empty = torch.zeros(len(batch), T, device=batch.token_ids_BT.device)
    return Stats({name: found.get(name, empty) for name in want})
