"""CUDA tensors through the compiled module. Each function has the signature and meaning of its namesake in `reference`.

These kernels are compiled for every commit, but were never run on this project's machines, which have no GPU; their
arithmetic is tested on an emulated GPU. Therefore each op is compared with the reference on this GPU before it is used, once per
process (`trusted`). If an op differs, the reference is used instead, with a warning.

Only the search for token ids out of range waits for the GPU. A call inside a graph capture omits this search: the
statistics of such a token are then NaN. Input that the module does not support (float64, `support`) goes to the
reference.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from . import native, reference
from .reference import KL_ROWS, RANK, ROWS, TOP_P_MASS, Kept, flat, wants, wide

Descriptor = tuple[int, tuple[int, ...], tuple[int, ...], int]

_DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.int64: 3, torch.bool: 4}

STATES = 7
STATE_PEAK, STATE_CHOSEN = 0, 6
KL_STATES = 5
LOWEST = torch.finfo(torch.float32).min

TILE = 1 << 23
"""Logits in a tile of the head's product: 32 MiB, which the L2 cache keeps until the statistics have read them."""

TILE_ROWS = 2048
"""Tokens in a tile, at most."""


def describe(tensor: Tensor | None) -> Descriptor | None:
    """The form in which a tensor is passed to C++. The caller keeps the tensor alive."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride(), _DTYPES[tensor.dtype]


def rows(tensor: Tensor) -> Tensor:
    """[..., width] as [outer, inner, width] with a dense last dimension; a view if the strides allow it."""
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        tensor = tensor.contiguous()
    if tensor.dim() < 3:
        return tensor[None] if tensor.dim() == 2 else tensor[None, None]
    return tensor.reshape(-1, *tensor.shape[-2:]) if tensor.dim() > 3 else tensor


def kernels() -> Any:
    return native.cuda_module


Place = tuple[int, int]


def place(first: Tensor, *others: Tensor | None) -> Place:
    """The number of the device that holds all these tensors, and torch's current stream there.

    A kernel that receives an address of another device breaks every later call in this process, so it is refused here.
    """
    for other in others:
        if other is not None and other.device != first.device:
            raise ValueError(
                f"hookline.kernels: tensors are on {first.device} and {other.device}; move them to one device"
            )
    stream = torch.cuda.current_stream(first.device)
    return stream.device_index, stream.cuda_stream


def capturing() -> bool:
    return torch.cuda.is_current_stream_capturing()


# --------------------------------------------------------------------------------------- compared once, then trusted

_differs: dict[str, str] = {}
"""The result for each op that was compared: "" if the op agrees with the reference, else how it differs."""


def trusted(op: str, device: torch.device) -> ModuleType:
    """The module that computes `op` on this device: these kernels, or the reference if the comparison failed.

    The comparison is not possible while a graph is captured; the kernels are then used without a comparison.
    """
    found = _differs.get(op)
    if found is None:
        if capturing():
            return _this()
        found = _differs[op] = _compare(op, device)
        if found:
            warnings.warn(
                f"hookline: the CUDA kernel of {op} {found}; the torch reference is used instead. Please report "
                "this with the output of `hookline doctor`",
                RuntimeWarning,
                stacklevel=2,
            )
    return reference if found else _this()


def _this() -> ModuleType:
    return sys.modules[__name__]


def examine(device: torch.device) -> dict[str, str]:
    """Compare every op now: "" for each op that agrees with the reference on this device, else how it differs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for op in _QUESTIONS:
            trusted(op, device)
    return dict(_differs)


def distrusted() -> dict[str, str]:
    """Ops for which this process uses the reference, and why."""
    return {op: why for op, why in _differs.items() if why}


def _compare(op: str, device: torch.device) -> str:
    """Compare the results on small inputs: "", or how they differ."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return (3 * torch.randn(*shape, generator=generator)).to(device, dtype)

    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for ours, theirs in _QUESTIONS[op](random):
                if not _agree(ours, theirs):
                    error = (ours.double() - theirs.double()).abs().max().item()
                    return f"differs from the reference on this GPU by {error:.1e}"
    except Exception as err:
        return f"failed on this GPU ({type(err).__name__}: {(str(err).splitlines() or [''])[0]})"
    return ""


def _agree(ours: Tensor, theirs: Tensor) -> bool:
    tolerance = {torch.bfloat16: 1e-2, torch.float16: 2e-3}.get(theirs.dtype, 1e-4)
    scale = theirs.double().nan_to_num(0, 0, 0).abs().max().item() if theirs.numel() else 0.0
    return ours.dtype == theirs.dtype and torch.allclose(
        ours.double(), theirs.double(), rtol=tolerance, atol=tolerance * max(scale, 1e-6), equal_nan=True
    )


Pairs = Iterator[tuple[Tensor, Tensor]]
_EVERYTHING = (1 << len(reference.STATISTICS)) - 1


def _both(name: str, *args: Any) -> Iterator[tuple[Any, Any]]:
    """The results of both for one input, a pair per tensor. A gradient's input comes last, from the reference."""
    ours, theirs = getattr(_this(), name)(*args), getattr(reference, name)(*args)
    yield from [(ours, theirs)] if isinstance(ours, Tensor) else zip(ours, theirs)


def _ask_token_stats(random: Callable[..., Tensor]) -> Pairs:
    # A block per row and a warp per row; a vocabulary that no vector divides; with and without a softcap.
    for tokens, vocabulary, dtype, softcap in (
        (5, 2311, torch.float32, 0.0),
        (3, 4099, torch.bfloat16, 20.0),
        (70, 129, torch.float16, 0.0),
    ):
        logits = random(tokens, vocabulary, dtype=dtype)
        logits[0, : vocabulary // 2] = -torch.inf
        ids = (torch.arange(tokens, device=logits.device) * 7919 + vocabulary - 1) % vocabulary
        ids[1] = reference.IGNORE
        question = (logits, ids, None, 0.8, softcap, _EVERYTHING)
        yield from _both("token_stats", *question)
        stats, upstream = reference.token_stats(*question), random(ROWS, tokens)
        yield from _both("token_stats_backward", upstream, stats, *question)


def _ask_linear_token_stats(random: Callable[..., Tensor]) -> Pairs:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        hidden, weight, bias = random(33, 64, dtype=dtype) / 8, random(1000, 64, dtype=dtype) / 8, random(1000)
        ids = torch.arange(33, device=hidden.device) * 30
        # Without rank and nucleus: two products may round the chosen logit to different sides of another logit.
        question = (hidden, weight, bias.to(dtype), ids, None, 1.0, 0.0, _EVERYTHING >> 2)
        yield from _both("linear_token_stats", *question)
        stats, upstream = reference.linear_token_stats(*question), random(ROWS, 33)
        yield from _both("linear_token_stats_backward", upstream, stats, *question, [True, True, True])


def _ask_gae(random: Callable[..., Tensor]) -> Pairs:
    for rows_, steps in ((3, 1300), (9, 77)):
        rewards, values = random(rows_, steps), random(rows_, steps)
        yield from _both("gae", rewards, values, random(rows_, steps) > -2, 0.99, 0.9, random(rows_), None)
    offsets = torch.tensor([0, 5, 5, 300], device=rewards.device)
    rewards, values = random(300, dtype=torch.bfloat16), random(300, dtype=torch.bfloat16)
    yield from _both("gae", rewards, values, None, 1.0, 0.95, random(3), offsets)


def _ask_kl_estimate(random: Callable[..., Tensor]) -> Pairs:
    logprobs, ref_logprobs = random(3, 101), random(3, 101)
    yield from _both("kl_estimate", logprobs, ref_logprobs, 7)
    yield from _both("kl_estimate_backward", random(3, 3, 101), logprobs, ref_logprobs, 7)


def _ask_kl_divergence(random: Callable[..., Tensor]) -> Pairs:
    for tokens, vocabulary, dtype in ((3, 2311, torch.float32), (9, 130, torch.bfloat16), (3, 4099, torch.float16)):
        question = (random(tokens, vocabulary, dtype=dtype), random(tokens, vocabulary, dtype=dtype), 0.9)
        yield from _both("kl_divergence", *question)
        stats = reference.kl_divergence(*question)
        yield from _both("kl_divergence_backward", random(tokens), stats, *question, [True, True])


def _ask_linear_kl_divergence(random: Callable[..., Tensor]) -> Pairs:
    for dtype in (torch.float32, torch.bfloat16):
        h, w, b, ref_h, ref_w = (
            (random(*shape) / 8).to(dtype) for shape in ((17, 32), (500, 32), (500,), (17, 16), (500, 16))
        )
        question = (h, w, b, ref_h, ref_w, None, 1.0)
        yield from _both("linear_kl_divergence", *question)
        stats = reference.linear_kl_divergence(*question)
        needs = [True, True, True, True, True, False]
        yield from _both("linear_kl_divergence_backward", random(17), stats, *question, needs)


_QUESTIONS: dict[str, Callable[[Callable[..., Tensor]], Pairs]] = {
    "token_stats": _ask_token_stats,
    "linear_token_stats": _ask_linear_token_stats,
    "gae": _ask_gae,
    "kl_estimate": _ask_kl_estimate,
    "kl_divergence": _ask_kl_divergence,
    "linear_kl_divergence": _ask_linear_kl_divergence,
}


# ------------------------------------------------------------------------------------------------- token statistics


def check_token_ids(ids: Tensor, vocabulary: int, op: str, at: Place) -> None:
    """Raise ValueError for the first id out of range, unless a graph is captured."""
    if capturing():
        return
    first_bad = torch.full((1,), ids.numel(), dtype=torch.int64, device=ids.device)
    kernels().find_bad_id(describe(ids), vocabulary, describe(first_bad), *at)
    bad = int(first_bad)
    if bad < ids.numel():
        reference.complain_token_id(ids, vocabulary, op, bad)


def _ids(token_ids: Tensor) -> Tensor:
    return token_ids.to(torch.int64).contiguous()


def token_stats(logits: Tensor, token_ids: Tensor, kept: Kept, temperature: float, softcap: float, want: int) -> Tensor:
    if wide(logits) == torch.float64 or kept is not None or not token_ids.numel():
        return reference.token_stats(logits, token_ids, kept, temperature, softcap, want)
    ids, vocabulary, at = _ids(token_ids), logits.shape[-1], place(logits, token_ids)
    check_token_ids(ids, vocabulary, "token_stats", at)
    stats = logits.new_empty(ROWS, *token_ids.shape, dtype=torch.float32)
    _token_stats(rows(logits), ids, 0, vocabulary, temperature, softcap, want, None, stats.view(ROWS, -1), at)
    return stats


def _token_stats(
    tile: Tensor,
    ids: Tensor,
    first: int,
    vocabulary: int,
    temperature: float,
    softcap: float,
    want: int,
    state: Tensor | None,
    stats: Tensor | None,
    at: Place,
) -> None:
    kernels().token_stats(
        describe(tile),
        describe(ids),
        first,
        vocabulary,
        temperature,
        softcap,
        want,
        describe(state),
        describe(stats),
        *at,
    )


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
    if wide(logits) == torch.float64 or kept is not None:
        return reference.token_stats_backward(upstream, stats, logits, token_ids, kept, temperature, softcap, want, out)
    x = rows(logits)
    if out is not None and rows(out).data_ptr() != out.data_ptr():  # the last dimension is not dense
        return out.copy_(token_stats_backward(upstream, stats, logits, token_ids, kept, temperature, softcap, want))
    grad = logits.new_empty(logits.shape) if out is None else out
    if grad.numel():
        at = place(logits, token_ids, upstream, stats)
        upstream, stats = upstream.float().reshape(ROWS, -1), stats.reshape(ROWS, -1)
        options = (0, logits.shape[-1], temperature, softcap, want)
        _token_stats_backward(upstream, stats, x, _ids(token_ids), *options, rows(grad), at)
    return grad


def _token_stats_backward(
    upstream: Tensor,
    stats: Tensor,
    tile: Tensor,
    ids: Tensor,
    first: int,
    vocabulary: int,
    temperature: float,
    softcap: float,
    want: int,
    grad: Tensor,
    at: Place,
) -> None:
    kernels().token_stats_backward(
        describe(_table(upstream)),
        describe(_table(stats)),
        describe(tile),
        describe(ids),
        first,
        vocabulary,
        temperature,
        softcap,
        want,
        describe(grad),
        *at,
    )


def _table(tensor: Tensor) -> Tensor:
    """[statistics, N] with a dense last dimension, such as a slice of tokens."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


# ----------------------------------------------------------------------------- token statistics from hidden states


def product(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """out = a @ b in float32, never rounded to the inputs' dtype on the way."""
    if a.dtype == torch.float32:
        return torch.mm(a, b, out=out)
    return torch.mm(a, b, out_dtype=torch.float32, out=out)


class Head:
    """A head whose logits exist one tile at a time, in a buffer that every tile of one call shares."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None):
        alike = hidden.dtype == weight.dtype
        self.hidden = flat(hidden) if alike else flat(hidden).float()
        self.weight = weight if alike else weight.float()
        self.bias = None if bias is None else bias.float()
        width = _column_tiles(len(self.hidden), len(weight))[0].stop
        self.buffer = hidden.new_empty(min(len(self.hidden), TILE_ROWS) * width, dtype=torch.float32)

    def tile(self, block: slice, columns: slice) -> Tensor:
        """Logits [1, rows of the block, columns of the tile], float32."""
        hidden, weight = self.hidden[block], self.weight[columns]
        logits = self.buffer[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        product(hidden, weight.t(), logits)
        return (logits if self.bias is None else logits.add_(self.bias[columns])).unsqueeze(0)


class HeadGrads:
    """Gradients to hidden, weight and bias: float32 until a number is final, then rounded once.

    The tile's gradient is multiplied with tensors of the head's dtype, so it has this dtype, too. In float16 it is scaled by
    a power of two that lifts the largest upstream gradient to about 2^6; otherwise most entries would become 0.
    """

    def __init__(self, head: Head, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: list[bool]):
        self.head, self.needs, self.shape = head, needs, hidden.shape
        self.dtypes = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
        like = head.hidden
        empty = like.new_empty(0, dtype=torch.float32)
        self.hidden = torch.zeros_like(like, dtype=torch.float32) if needs[0] else empty
        self.weight = weight.new_empty(weight.shape if needs[1] else 0)
        self.bias = like.new_zeros(len(weight), dtype=torch.float32) if needs[2] else empty
        self.sum, self.scale = empty, cast(Tensor | None, None)

    def scaled(self, upstream: Tensor, temperature: float) -> Tensor:
        """The upstream gradient that is used."""
        if self.head.hidden.dtype != torch.float16:
            return upstream
        largest = upstream.abs().nan_to_num(0, 0, 0).amax().clamp(1e-30, 1e30) / temperature
        self.scale = torch.exp2(torch.floor(6 - torch.log2(largest)))
        return upstream * self.scale

    def buffer(self, tile: Tensor) -> Tensor:
        """Where the gradient to this tile is written: over its logits, or into a buffer of a narrower dtype."""
        return tile if self.head.hidden.dtype == torch.float32 else torch.empty_like(tile, dtype=self.head.hidden.dtype)

    def add(self, block: slice, columns: slice, grad: Tensor) -> None:
        hidden, weight, grad = self.head.hidden[block], self.head.weight[columns], grad[0]
        if self.needs[0]:
            self.hidden[block] += product(grad, weight, torch.empty_like(self.hidden[block]))
        if self.needs[1]:
            part = product(grad.t(), hidden, torch.empty_like(weight, dtype=torch.float32))
            self.sum = part if block.start == 0 else self.sum.add_(part)
            if block.stop == len(self.head.hidden):
                self.weight[columns] = self._unscaled(self.sum)
        if self.needs[2]:
            self.bias[columns] += grad.sum(0, dtype=torch.float32)

    def _unscaled(self, tensor: Tensor) -> Tensor:
        return tensor if self.scale is None else tensor / self.scale

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.hidden.view(self.shape) if self.needs[0] else self.hidden
        return self._unscaled(hidden).to(self.dtypes[0]), self.weight, self._unscaled(self.bias).to(self.dtypes[2])


def _column_tiles(tokens: int, vocabulary: int) -> list[slice]:
    width = max(1, TILE // max(1, min(tokens, TILE_ROWS)))
    return [slice(first, min(first + width, vocabulary)) for first in range(0, vocabulary, width)]


def _row_blocks(tokens: int) -> list[slice]:
    return [slice(start, min(start + TILE_ROWS, tokens)) for start in range(0, tokens, TILE_ROWS)]


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
    tokens, vocabulary = token_ids.numel(), len(weight)
    if wide(hidden, weight, bias) == torch.float64 or kept is not None or not tokens:
        return reference.linear_token_stats(hidden, weight, bias, token_ids, kept, temperature, softcap, want)
    ids, at = _ids(token_ids), place(hidden, weight, bias, token_ids)
    check_token_ids(ids, vocabulary, "linear_token_stats", at)
    ids = ids.flatten()
    head = Head(hidden, weight, bias)
    state = hidden.new_zeros(STATES, tokens, dtype=torch.float32)
    state[STATE_PEAK] = LOWEST
    state[STATE_CHOSEN] = -torch.inf
    if wants(want, TOP_P_MASS) or wants(want, RANK):  # comparing with the chosen logit needs it before the first tile
        y = ids.clamp(0, vocabulary - 1)
        state[STATE_CHOSEN] = torch.linalg.vecdot(head.hidden.float(), head.weight[y].float())
        if head.bias is not None:
            state[STATE_CHOSEN] += head.bias[y]
    stats = hidden.new_empty(ROWS, *token_ids.shape, dtype=torch.float32)
    finished = stats.view(ROWS, tokens)
    for columns in _column_tiles(tokens, vocabulary):
        for block in _row_blocks(tokens):
            tile, known = head.tile(block, columns), state[:, block]
            out = finished[:, block] if columns.stop == vocabulary else None
            _token_stats(tile, ids[block], columns.start, vocabulary, temperature, softcap, want, known, out, at)
    return stats


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
    if wide(hidden, weight, bias) == torch.float64 or kept is not None or not tokens:
        return reference.linear_token_stats_backward(
            upstream, stats, hidden, weight, bias, token_ids, kept, temperature, softcap, want, needs
        )
    at = place(hidden, weight, bias, token_ids, upstream, stats)
    ids, stats = _ids(token_ids).flatten(), stats.reshape(ROWS, -1)
    head = Head(hidden, weight, bias)
    grads = HeadGrads(head, hidden, weight, bias, needs)
    upstream = grads.scaled(upstream.float().reshape(ROWS, -1), temperature)
    for columns in _column_tiles(tokens, vocabulary):
        for block in _row_blocks(tokens):
            tile = head.tile(block, columns)
            grad, options = grads.buffer(tile), (columns.start, vocabulary, temperature, softcap, want)
            _token_stats_backward(upstream[:, block], stats[:, block], tile, ids[block], *options, grad, at)
            grads.add(block, columns, grad)
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
    if wide(rewards, values) == torch.float64 or not rewards.numel():
        return reference.gae(rewards, values, mask, gamma, lam, bootstrap, offsets)
    at = place(rewards, values, mask, bootstrap, offsets)
    if offsets is not None:
        offsets = offsets.contiguous()
        if not capturing():
            reference.check_offsets(offsets.cpu(), len(rewards))
    if rewards.dtype != values.dtype:
        rewards, values = rewards.float(), values.float()
    both = rewards.new_empty(2, *rewards.shape, dtype=torch.float32)
    start = None if bootstrap is None else bootstrap.float().contiguous()
    r, v, m = rows(rewards), rows(values), None if mask is None else rows(mask)
    kernels().gae(
        describe(r),
        describe(v),
        describe(m),
        describe(start),
        describe(offsets),
        gamma,
        lam,
        describe(both[0]),
        describe(both[1]),
        *at,
    )
    return both


# ---------------------------------------------------------------------------------------------------------------- KL


def _alike(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (a, b) if a.dtype == b.dtype else (a.float(), b.float())


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    if wide(logprobs, ref_logprobs) == torch.float64:
        return reference.kl_estimate(logprobs, ref_logprobs, which)
    at, (a, b) = place(logprobs, ref_logprobs), _alike(logprobs.contiguous(), ref_logprobs.contiguous())
    out = a.new_empty(which.bit_count(), *logprobs.shape, dtype=torch.float32)
    kernels().kl_estimate(describe(a), describe(b), which, describe(out), *at)
    return out


def kl_estimate_backward(upstream: Tensor, logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    if wide(logprobs, ref_logprobs) == torch.float64:
        return reference.kl_estimate_backward(upstream, logprobs, ref_logprobs, which)
    at, (a, b) = place(logprobs, ref_logprobs), _alike(logprobs.contiguous(), ref_logprobs.contiguous())
    up, grad = upstream.float().contiguous(), a.new_empty(logprobs.shape, dtype=torch.float32)
    kernels().kl_estimate_backward(describe(up), describe(a), describe(b), which, describe(grad), *at)
    return grad


def kl_divergence(logits: Tensor, ref_logits: Tensor, temperature: float) -> Tensor:
    if wide(logits, ref_logits) == torch.float64 or not logits.numel():
        return reference.kl_divergence(logits, ref_logits, temperature)
    stats = logits.new_empty(KL_ROWS, *logits.shape[:-1], dtype=torch.float32)
    p, q = (rows(t) for t in _alike(logits, ref_logits))
    kernels().kl_divergence(
        describe(p), describe(q), temperature, None, describe(stats.view(KL_ROWS, -1)), *place(logits, ref_logits)
    )
    return stats


def kl_divergence_backward(
    upstream: Tensor, stats: Tensor, logits: Tensor, ref_logits: Tensor, temperature: float, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    if wide(logits, ref_logits) == torch.float64 or not logits.numel():
        return reference.kl_divergence_backward(upstream, stats, logits, ref_logits, temperature, needs)
    at, (p, q) = place(logits, ref_logits, upstream, stats), _alike(logits, ref_logits)
    grads = [p.new_empty(p.shape) if need else p.new_empty(0) for need in needs]
    _kl_divergence_backward(
        upstream.float().flatten(),
        stats.reshape(KL_ROWS, -1),
        rows(p),
        rows(q),
        temperature,
        [rows(g) if need else None for g, need in zip(grads, needs)],
        at,
    )
    return grads[0].to(logits.dtype), grads[1].to(ref_logits.dtype)


def _kl_divergence_backward(
    upstream: Tensor,
    stats: Tensor,
    p: Tensor,
    q: Tensor,
    temperature: float,
    grads: list[Tensor | None],
    at: Place,
) -> None:
    stats = _table(stats)
    kernels().kl_divergence_backward(
        describe(upstream), describe(stats), describe(p), describe(q), temperature, *map(describe, grads), *at
    )


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
    tokens, vocabulary = hidden.shape[:-1].numel(), len(weight)
    if wide(*tensors) == torch.float64 or not tokens:
        return reference.linear_kl_divergence(*tensors, temperature)
    head, ref_head = Head(hidden, weight, bias), Head(ref_hidden, ref_weight, ref_bias)
    state = hidden.new_zeros(KL_STATES, tokens, dtype=torch.float32)
    state[0] = state[2] = LOWEST
    at = place(hidden, *tensors[1:])
    stats = hidden.new_empty(KL_ROWS, tokens, dtype=torch.float32)
    for columns in _column_tiles(tokens, vocabulary):
        for block in _row_blocks(tokens):
            p, q = head.tile(block, columns), ref_head.tile(block, columns)
            out = stats[:, block] if columns.stop == vocabulary else None
            kernels().kl_divergence(
                describe(p), describe(q), temperature, describe(state[:, block]), describe(out), *at
            )
    return stats.view(KL_ROWS, *hidden.shape[:-1])


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
    tokens, vocabulary = hidden.shape[:-1].numel(), len(weight)
    if wide(*tensors) == torch.float64 or not tokens:
        return reference.linear_kl_divergence_backward(upstream, stats, *tensors, temperature, needs)
    head, ref_head = Head(hidden, weight, bias), Head(ref_hidden, ref_weight, ref_bias)
    if head.hidden.dtype != ref_head.hidden.dtype:  # one launch writes both gradients, in one dtype
        return reference.linear_kl_divergence_backward(upstream, stats, *tensors, temperature, needs)
    at = place(hidden, *tensors[1:], upstream, stats)
    grads = HeadGrads(head, hidden, weight, bias, needs[:3])
    ref_grads = HeadGrads(ref_head, ref_hidden, ref_weight, ref_bias, needs[3:])
    upstream = upstream.float().flatten()
    upstream, _ = grads.scaled(upstream, temperature), ref_grads.scaled(upstream, temperature)
    stats = stats.reshape(KL_ROWS, -1)
    for columns in _column_tiles(tokens, vocabulary):
        for block in _row_blocks(tokens):
            p, q = head.tile(block, columns), ref_head.tile(block, columns)
            grad = grads.buffer(p) if any(needs[:3]) else None
            ref_grad = ref_grads.buffer(q) if any(needs[3:]) else None
            _kl_divergence_backward(upstream[block], stats[:, block], p, q, temperature, [grad, ref_grad], at)
            if grad is not None:
                grads.add(block, columns, grad)
            if ref_grad is not None:
                ref_grads.add(block, columns, ref_grad)
    return *grads.result(), *ref_grads.result()
