"""CPU tensors through the compiled module. Each function has the signature and meaning of its namesake in `reference`.

Input that the module does not support (float64) goes to the reference. The reference also raises every error about an
argument: the module only reports that something is wrong, and the reference finds the message.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import native, pool, reference
from .reference import KL_ROWS, RANK, ROWS, TOP_P_MASS, Kept, flat, kept_rows, wants, wide

Descriptor = tuple[int, tuple[int, ...], tuple[int, ...], int]

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int64: 3, torch.bool: 4, torch.float64: 5}

STATES = 7
STATE_PEAK, STATE_CHOSEN = 0, 6
KL_STATES = 5
LOWEST = torch.finfo(torch.float32).min

TILE = 1 << 17
"""Logits in a tile of the head's product: 512 KiB, which a core's own cache keeps until they are read. More threads use
larger tiles, as long as there are `LEAST_TILES`.
"""

LEAST_TILES = 128

TILE_ROWS = 2048
"""Tokens in a tile, at most."""

LEAST_WIDTH = 256
"""Columns in a tile, at least: narrower products are slow."""


def describe(tensor: Tensor | None) -> Descriptor | None:
    """The form in which a tensor is passed to C++. The caller keeps the tensor alive."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride(), _DTYPES[tensor.dtype]


def rows(tensor: Tensor) -> Tensor:
    """[..., width] with at most three dimensions, the last one dense; a view if the strides allow it.

    For example, logits[:, :-1] is not copied.
    """
    strides = tensor.stride()
    if strides[-1] == 1 and len(strides) <= 3:
        return tensor
    if strides[-1] != 1 and not (tensor.dim() == 3 and tensor.shape[2] == 1):
        tensor = tensor.contiguous()
    return tensor.reshape(-1, *tensor.shape[-2:]) if tensor.dim() > 3 else tensor


OWN_MAPPING = 32 << 20
"""From this size on, the C library maps fresh pages for every tensor, and the page faults cost more than filling them."""


def fresh(shape: torch.Size, dtype: torch.dtype) -> Tensor:
    """A new tensor that will be written from end to end."""
    tensor = torch.empty(shape, dtype=dtype)
    if tensor.nbytes >= OWN_MAPPING:
        kernels().use_huge_pages(describe(tensor))
    return tensor


def kernels() -> Any:
    return native.module


@functools.cache
def torch_multiplies_as_fast() -> bool:
    """Whether torch's float32 product is as fast as ours: MKL is on Intel's processors, and without ours it is all there is."""
    if native.module is None or not native.module.has_product(_DTYPES[torch.float32]):
        return True
    path = Path("/proc/cpuinfo")
    return path.exists() and "GenuineIntel" in path.read_text(encoding="utf-8", errors="replace")


def _ids(token_ids: Tensor) -> Tensor:
    return (token_ids if token_ids.dtype == torch.int64 else token_ids.long()).contiguous()


def _kept(kept: Kept) -> tuple[Descriptor | None, Descriptor | None]:
    return (None, None) if kept is None else (describe(kept[0]), describe(kept[1]))


# ------------------------------------------------------------------------------------------------- token statistics


def token_stats(logits: Tensor, token_ids: Tensor, kept: Kept, temperature: float, softcap: float, want: int) -> Tensor:
    if logits.dtype == torch.float64:
        return reference.token_stats(logits, token_ids, kept, temperature, softcap, want)
    stats = torch.zeros(ROWS, *token_ids.shape)
    if not token_ids.numel():
        return stats
    x, ids, kept = rows(logits), _ids(token_ids), _dense(kept)
    fine = kernels().token_stats(
        describe(x), describe(ids), *_kept(kept), temperature, softcap, want, describe(stats), torch.get_num_threads()
    )
    return stats if fine else _complain(token_ids, kept, logits.shape[-1], "token_stats")


def _dense(kept: Kept) -> Kept:
    return None if kept is None else (kept[0].contiguous(), kept[1].contiguous())


def _complain(token_ids: Tensor, kept: Kept, vocabulary: int, op: str) -> Any:
    reference.check_token_ids(token_ids, vocabulary, op)
    if kept is not None:
        reference.check_support(token_ids, *kept, vocabulary, op)
    raise AssertionError(f"{op}: the compiled module refuses ids that the reference accepts")


def token_stats_backward(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    token_ids: Tensor,
    kept: Kept,
    temperature: float,
    softcap: float,
    want: int,
    out: Tensor | None = None,
) -> Tensor:
    """`out`, dense or the logits themselves, receives the gradient; without it, a new tensor."""
    if wide(logits) == torch.float64:
        return reference.token_stats_backward(upstream, stats, logits, token_ids, kept, temperature, softcap, want, out)
    grad = fresh(logits.shape, logits.dtype) if out is None else out
    if not grad.numel():
        return grad
    upstream, stats, ids, kept = upstream.float().contiguous(), stats.contiguous(), _ids(token_ids), _dense(kept)
    x, to = rows(logits), rows(grad)
    kernels().token_stats_backward(
        describe(upstream),
        describe(stats),
        describe(x),
        describe(ids),
        *_kept(kept),
        temperature,
        softcap,
        want,
        0,
        describe(to),
        torch.get_num_threads(),
    )
    return grad


# ----------------------------------------------------------------------------- token statistics from hidden states


def _column_tiles(tokens: int, vocabulary: int) -> list[tuple[int, int]]:
    one = TILE // max(1, min(tokens, TILE_ROWS))
    width = max(LEAST_WIDTH, one, min(one * torch.get_num_threads(), vocabulary // LEAST_TILES))
    return [(first, min(first + width, vocabulary)) for first in range(0, vocabulary, width)]


def _row_blocks(tokens: int) -> list[slice]:
    return [slice(start, min(start + TILE_ROWS, tokens)) for start in range(0, tokens, TILE_ROWS)]


class Head:
    """A head whose logits exist one tile at a time, in a buffer that every tile of one call shares.

    Products are accumulated in float32. bfloat16 is multiplied directly if the CPU can, and otherwise converted to float32
    first, a tile at a time, because the library's own bfloat16 product would round the logits.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None):
        self.narrow = (
            hidden.dtype == weight.dtype == torch.bfloat16
            and hidden.shape[-1] % 2 == 0
            and kernels().has_product(_DTYPES[torch.bfloat16])
        )
        self.dtype = torch.bfloat16 if self.narrow else torch.float32
        self.hidden = flat(hidden).to(self.dtype).contiguous()
        self.weight = weight.contiguous() if self.narrow else weight
        self.bias = None if bias is None else bias.float()
        tokens, vocabulary = len(self.hidden), len(weight)
        first, last = _column_tiles(tokens, vocabulary)[0]
        self.buffer = torch.empty(min(tokens, TILE_ROWS) * (last - first))

    def columns(self, first: int, last: int) -> Tensor:
        """The weight of some tokens of the vocabulary, [width, H]."""
        columns = self.weight[first:last].to(self.dtype)
        return columns if columns.stride(-1) == 1 else columns.contiguous()

    def tile(self, block: slice, columns: Tensor, first: int) -> Tensor:
        """Logits [rows of the block, columns of the tile]."""
        n, width = block.stop - block.start, len(columns)
        logits = self.buffer[: n * width].view(n, width)
        product(self.hidden[block], columns.t(), logits)
        return logits if self.bias is None else logits.add_(self.bias[first : first + width])


def product(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """out (+)= a @ b, summed in float32; a and b, both float32 or both bfloat16, have dense rows or dense columns.

    If a is bfloat16 with dense rows, it is as deep as b or, padded with a zero, one deeper. `out` is float32, or
    bfloat16 like a and b.
    """
    if kernels().has_product(_DTYPES[a.dtype]):
        (a, a_transposed), (b, b_transposed) = _dense_rows(a), _dense_rows(b)
        kernels().product(
            describe(a), a_transposed, describe(b), b_transposed, describe(out), add, torch.get_num_threads()
        )
    elif add:
        out.addmm_(a, b)
    else:
        torch.mm(a, b, out=out)


def _dense_rows(matrix: Tensor) -> tuple[Tensor, bool]:
    """Whichever of the matrix and its transpose has dense rows; and whether this is the transpose."""
    return (matrix, False) if matrix.stride(1) == 1 else (matrix.t(), True)


class HeadGrads:
    """Gradients to hidden, weight and bias, tile by tile: float32 until a number is final, and then rounded once."""

    def __init__(self, head: Head, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: list[bool]):
        bias_like = weight if bias is None else bias
        self.head, self.needs, self.shape = head, needs, hidden.shape
        self.dtypes = (hidden.dtype, bias_like.dtype)
        self.hidden = torch.zeros(head.hidden.shape) if needs[0] else torch.empty(0)
        self.weight = fresh(weight.shape, weight.dtype) if needs[1] else weight.new_empty(0)
        self.bias = torch.zeros(len(weight)) if needs[2] else torch.empty(0)
        self.sum = torch.empty(0)
        self.narrowed = torch.empty(0, dtype=torch.bfloat16)

    def add(self, block: slice, grad_logits: Tensor, columns: Tensor, first: int) -> None:
        last, hidden = first + len(columns), self.head.hidden[block]
        if self.needs[2]:
            self.bias[first:last] += grad_logits.sum(0)
        if self.head.narrow:
            grad_logits = self._narrow(grad_logits)
        if self.needs[0]:
            product(grad_logits, columns, self.hidden[block], add=True)
        if self.needs[1]:
            begins, ends = block.start == 0, block.stop == len(self.head.hidden)
            final = self.weight[first:last]
            if begins:
                written_once = ends and final.dtype in (torch.float32, self.head.dtype)
                self.sum = final if written_once else torch.empty(final.shape)
            product(grad_logits[:, : last - first].t(), hidden, self.sum, add=not begins)
            if ends and self.sum is not final:
                final.copy_(self.sum)

    def _narrow(self, grad_logits: Tensor) -> Tensor:
        """The values in bfloat16, with a column of zeros if the number of columns is odd."""
        n, width = grad_logits.shape
        even = width + width % 2
        if self.narrowed.numel() < n * even:
            self.narrowed = torch.empty(n * even, dtype=torch.bfloat16)
        narrowed = self.narrowed[: n * even].view(n, even)
        narrowed[:, :width] = grad_logits
        narrowed[:, width:] = 0
        return narrowed

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.hidden.view(self.shape) if self.needs[0] else self.hidden
        return hidden.to(self.dtypes[0]), self.weight, self.bias.to(self.dtypes[1])


def _blocks(tokens: int, ids: Tensor, kept: Kept) -> list[tuple[slice, Tensor, Kept]]:
    return [(block, ids[block], _dense(kept_rows(kept, block.start, block.stop))) for block in _row_blocks(tokens)]


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    kept: Kept,
    temperature: float,
    softcap: float,
    want: int,
) -> Tensor:
    if wide(hidden, weight, bias) == torch.float64:
        return reference.linear_token_stats(hidden, weight, bias, token_ids, kept, temperature, softcap, want)
    stats = torch.zeros(ROWS, *token_ids.shape)
    tokens, vocabulary = token_ids.numel(), len(weight)
    if not tokens:
        return stats
    ids, kept, threads = _ids(token_ids).flatten(), _dense(kept), torch.get_num_threads()
    if not kernels().ids_are_fine(describe(ids), *_kept(kept), tokens, vocabulary):
        return _complain(token_ids, kept, vocabulary, "linear_token_stats")  # type: ignore[no-any-return]
    head = Head(hidden, weight, bias)
    blocks = _blocks(tokens, ids, kept)
    states = [_new_state(len(block_ids)) for _, block_ids, _ in blocks]
    if wants(want, TOP_P_MASS) or wants(want, RANK):  # comparing with the chosen logit needs it before the first tile
        for (block, block_ids, block_kept), state in zip(blocks, states):
            state[STATE_CHOSEN] = _chosen_logits(head, block, block_ids, block_kept)
    for first, last in _column_tiles(tokens, vocabulary):
        columns = head.columns(first, last)
        for (block, block_ids, block_kept), state in zip(blocks, states):
            tile = head.tile(block, columns, first)
            kernels().update(
                describe(tile),
                describe(block_ids),
                *_kept(block_kept),
                temperature,
                softcap,
                want,
                first,
                describe(state),
                threads,
            )
    all_stats = stats.view(ROWS, tokens)
    for (block, block_ids, _), state in zip(blocks, states):
        finished = torch.zeros(ROWS, len(block_ids))
        kernels().finish(describe(state), describe(block_ids), temperature, softcap, want, describe(finished))
        all_stats[:, block] = finished
    return stats


def _new_state(tokens: int) -> Tensor:
    state = torch.zeros(STATES, tokens)
    state[STATE_PEAK] = LOWEST
    state[STATE_CHOSEN] = -torch.inf
    return state


def _chosen_logits(head: Head, block: slice, ids: Tensor, kept: Kept) -> Tensor:
    y = ids.clamp(min=0)
    chosen = (head.hidden[block].float() * head.weight[y].float()).sum(-1)
    if head.bias is not None:
        chosen += head.bias[y]
    if kept is not None:
        owner = torch.repeat_interleave(torch.arange(len(ids)), kept[1].diff())
        inside = torch.zeros(len(ids), dtype=torch.bool).index_put_((owner,), kept[0] == ids[owner], accumulate=True)
        chosen = chosen.masked_fill(~inside, -torch.inf)
    return chosen


def linear_token_stats_backward(
    upstream: Tensor,
    stats: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    kept: Kept,
    temperature: float,
    softcap: float,
    want: int,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    tokens, vocabulary = token_ids.numel(), len(weight)
    if wide(hidden, weight, bias) == torch.float64 or not tokens:
        return reference.linear_token_stats_backward(
            upstream, stats, hidden, weight, bias, token_ids, kept, temperature, softcap, want, needs
        )
    ids, upstream, stats = (
        _ids(token_ids).flatten(),
        upstream.float().reshape(len(upstream), -1),
        stats.reshape(len(stats), -1),
    )
    head = Head(hidden, weight, bias)
    grads = HeadGrads(head, hidden, weight, bias, needs)
    blocks = [
        (block, upstream[:, block].contiguous(), stats[:, block].contiguous(), block_ids, block_kept)
        for block, block_ids, block_kept in _blocks(tokens, ids, kept)
    ]
    for first, last in _column_tiles(tokens, vocabulary):
        columns = head.columns(first, last)
        for block, block_upstream, block_stats, block_ids, block_kept in blocks:
            logits = head.tile(block, columns, first)
            tile = describe(logits)
            kernels().token_stats_backward(
                describe(block_upstream),
                describe(block_stats),
                tile,
                describe(block_ids),
                *_kept(block_kept),
                temperature,
                softcap,
                want,
                first,
                tile,
                torch.get_num_threads(),
            )
            grads.add(block, logits, columns, first)
    return grads.result()


# --------------------------------------------------------------------------------------------------------------- GAE


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor | None,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None,
    offsets: Tensor | None,
) -> Tensor:
    numbers = rewards.numel()
    if rewards.dtype != torch.float32 or values.dtype != torch.float32:
        if wide(rewards, values) == torch.float64:
            return reference.gae(rewards, values, mask, gamma, lam, bootstrap, offsets)
        if rewards.dtype != values.dtype:
            rewards, values = rewards.float(), values.float()
    if not numbers:
        return reference.gae(rewards, values, mask, gamma, lam, bootstrap, offsets)
    shape = (2, *rewards.shape)
    both = torch.empty(shape) if 8 * numbers <= pool.SMALL else pool.advantages.take(torch.Size(shape), torch.float32)
    r, v = rows(rewards), rows(values)
    m = None if mask is None else rows(mask)
    start = None if bootstrap is None else bootstrap.float().contiguous()
    cuts = None if offsets is None else offsets.contiguous()
    fine = kernels().gae(
        describe(r),
        describe(v),
        describe(m),
        describe(start),
        describe(cuts),
        gamma,
        lam,
        describe(both),
        torch.get_num_threads(),
    )
    if not fine and offsets is not None:
        reference.check_offsets(offsets, len(rewards))
    return both


# ---------------------------------------------------------------------------------------------------------------- KL


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (a, b) if a.dtype == b.dtype else (a.float(), b.float())


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    if wide(logprobs, ref_logprobs) == torch.float64:
        return reference.kl_estimate(logprobs, ref_logprobs, which)
    a, b = _alike(logprobs.contiguous(), ref_logprobs.contiguous())
    out = torch.empty(which.bit_count(), *logprobs.shape)
    kernels().kl_estimate(describe(a), describe(b), which, describe(out), torch.get_num_threads())
    return out


def kl_estimate_backward(upstream: Tensor, logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    if wide(logprobs, ref_logprobs) == torch.float64:
        return reference.kl_estimate_backward(upstream, logprobs, ref_logprobs, which)
    a, b = _alike(logprobs.contiguous(), ref_logprobs.contiguous())
    up, grad = upstream.float().contiguous(), torch.empty(logprobs.shape)
    kernels().kl_estimate_backward(
        describe(up), describe(a), describe(b), which, describe(grad), torch.get_num_threads()
    )
    return grad


def kl_divergence(logits: Tensor, ref_logits: Tensor, temperature: float) -> Tensor:
    if wide(logits, ref_logits) == torch.float64:
        return reference.kl_divergence(logits, ref_logits, temperature)
    stats = torch.zeros(KL_ROWS, *logits.shape[:-1])
    if stats.numel():
        p, q = (rows(t) for t in _alike(logits, ref_logits))
        kernels().kl_divergence(describe(p), describe(q), temperature, describe(stats), torch.get_num_threads())
    return stats


def kl_divergence_backward(
    upstream: Tensor, stats: Tensor, logits: Tensor, ref_logits: Tensor, temperature: float, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    if wide(logits, ref_logits) == torch.float64:
        return reference.kl_divergence_backward(upstream, stats, logits, ref_logits, temperature, needs)
    p, q = _alike(logits, ref_logits)
    grads = [fresh(p.shape, p.dtype) if need else None for need in needs]
    if p.numel():
        up, known, p, q = upstream.float().contiguous(), stats.contiguous(), rows(p), rows(q)
        grad, ref_grad = (None if g is None else rows(g) for g in grads)
        kernels().kl_backward(
            describe(up),
            describe(known),
            describe(p),
            describe(q),
            temperature,
            describe(grad),
            describe(ref_grad),
            torch.get_num_threads(),
        )
    empty = logits.new_empty(0)
    grad, ref_grad = (empty if g is None else g for g in grads)
    return grad.to(logits.dtype), ref_grad.to(ref_logits.dtype)


def linear_kl_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    temperature: float,
) -> Tensor:
    tensors = (hidden, weight, bias, ref_hidden, ref_weight, ref_bias)
    tokens = hidden.shape[:-1].numel()
    if wide(*tensors) == torch.float64 or not tokens:
        return reference.linear_kl_divergence(*tensors, temperature)
    head, ref_head = Head(hidden, weight, bias), Head(ref_hidden, ref_weight, ref_bias)
    blocks = _row_blocks(tokens)
    states = [_new_kl_state(block.stop - block.start) for block in blocks]
    for _, block, _, p, q in _pairs_of_tiles(head, ref_head, blocks):
        state = states[block.start // TILE_ROWS]
        kernels().kl_update(describe(p), describe(q), temperature, describe(state), torch.get_num_threads())
    stats = torch.zeros(KL_ROWS, tokens)
    for block, state in zip(blocks, states):
        finished = torch.zeros(KL_ROWS, state.shape[1])
        kernels().kl_finish(describe(state), describe(finished))
        stats[:, block] = finished
    return stats.view(KL_ROWS, *hidden.shape[:-1])


def _new_kl_state(tokens: int) -> Tensor:
    state = torch.zeros(KL_STATES, tokens)
    state[0] = state[2] = LOWEST
    return state


def _pairs_of_tiles(
    head: Head, ref_head: Head, blocks: list[slice]
) -> Iterator[tuple[int, slice, tuple[Tensor, Tensor], Tensor, Tensor]]:
    """(first column, rows, both weights' columns, both tiles of logits [n, width])."""
    for first, last in _column_tiles(len(head.hidden), len(head.weight)):
        columns, ref_columns = head.columns(first, last), ref_head.columns(first, last)
        for block in blocks:
            p, q = head.tile(block, columns, first), ref_head.tile(block, ref_columns, first)
            yield first, block, (columns, ref_columns), p, q


def linear_kl_divergence_backward(
    upstream: Tensor,
    stats: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    temperature: float,
    needs: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    tensors = (hidden, weight, bias, ref_hidden, ref_weight, ref_bias)
    tokens = hidden.shape[:-1].numel()
    if wide(*tensors) == torch.float64 or not tokens:
        return reference.linear_kl_divergence_backward(upstream, stats, *tensors, temperature, needs)
    head, ref_head = Head(hidden, weight, bias), Head(ref_hidden, ref_weight, ref_bias)
    grads = HeadGrads(head, hidden, weight, bias, needs[:3])
    ref_grads = HeadGrads(ref_head, ref_hidden, ref_weight, ref_bias, needs[3:])
    upstream, stats = upstream.float().flatten(), stats.reshape(len(stats), -1)
    for first, block, (columns, ref_columns), p, q in _pairs_of_tiles(head, ref_head, _row_blocks(tokens)):
        up, known = upstream[block].contiguous(), stats[:, block].contiguous()
        grad = describe(p) if any(needs[:3]) else None
        ref_grad = describe(q) if any(needs[3:]) else None
        kernels().kl_backward(
            describe(up),
            describe(known),
            describe(p),
            describe(q),
            temperature,
            grad,
            ref_grad,
            torch.get_num_threads(),
        )
        if grad is not None:
            grads.add(block, p, columns, first)
        if ref_grad is not None:
            ref_grads.add(block, q, ref_columns, first)
    return *grads.result(), *ref_grads.result()


# ------------------------------------------------------------------------------------------------------------ draws


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Tensor, Tensor, Kept]:
    if wide(logits) == torch.float64 or not len(logits):
        return reference.draw(logits, uniform, temperature, top_k, top_p, min_p)
    x, uniform, N, at = rows(logits), uniform.contiguous(), len(logits), logits.device
    ids, logprobs = torch.empty(N, dtype=torch.int64, device=at), torch.empty(N, device=at)
    cut = top_k > 0 or top_p < 1 or min_p > 0
    cuts = torch.empty(N, 2, device=at) if cut else None
    counts = torch.empty(N, 2, dtype=torch.int64, device=at) if cut else None
    threads = torch.get_num_threads()
    scratch = torch.empty(threads * kernels().draw_scratch(x.shape[-1]))
    kernels().draw(
        describe(x), describe(uniform), temperature, top_k, top_p, min_p,
        describe(ids), describe(logprobs), describe(cuts), describe(counts), describe(scratch), threads,
    )  # fmt: skip
    if counts is None:
        return ids, logprobs, None
    offsets = torch.cat([counts.new_zeros(1), counts[:, 0].cumsum(0)])
    kept = torch.empty(int(offsets[-1]), dtype=torch.int64, device=at)
    kernels().kept_by_draw(
        describe(x), temperature, describe(cuts), describe(counts), describe(offsets), describe(kept), threads
    )
    return ids, logprobs, (kept, offsets)
