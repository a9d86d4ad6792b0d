"""Every kernel in plain torch: the tests compare with these functions, and they run if there is no compiled kernel.

Nothing here is tuned. Each function returns what its op returns (see `ops.py`): the forward of `token_stats` returns
one tensor of eight rows; the last two rows are needed only in the backward pass.

Notation: x are raw logits, z = softcap(x) / temperature, y is the sampled token, p = softmax(z) over the token's
support. The row's largest logit is subtracted *before* anything is scaled, so that a common offset of -10 000 in the
logits costs no precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORE = -100
"""The id of a token to leave out: its statistics are 0, and its logits may hold anything and get no gradient."""

STATISTICS = ("logprobs", "entropy", "logsumexp", "sum_sq_probs", "top_p_mass", "rank")
"""The names that `want` may contain. Statistic i is row i of the forward's result; bit i of `want` requests it."""

LOGPROBS, ENTROPY, LOGSUMEXP, SUM_SQ_PROBS, TOP_P_MASS, RANK, PEAK, LOG_TOTAL = range(8)
ROWS = 8
"""PEAK is the largest raw logit of the support, LOG_TOTAL the log-sum-exp of z - z(PEAK); both are needed to compute p.
"""

TILE = 1 << 22
"""`linear_*` hold at most this many logits at a time."""

Kept = tuple[Tensor, Tensor] | None


def wide(*tensors: Tensor | None) -> torch.dtype:
    """The dtype to compute in: float32, or float64 where an input is (for gradcheck)."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def wants(want: int, statistic: int) -> bool:
    return bool(want >> statistic & 1)


# ------------------------------------------------------------------------------------------------- token statistics


def check_token_ids(token_ids: Tensor, vocabulary: int, op: str) -> None:
    """Raise ValueError for the first id that is not a token and not IGNORE (also on a GPU, where a gather would
    abort).
    """
    bad = ((token_ids < 0) | (token_ids >= vocabulary)) & (token_ids != IGNORE)
    if bad.any():
        complain_token_id(token_ids, vocabulary, op, int(bad.flatten().to(torch.uint8).argmax()))


def complain_token_id(token_ids: Tensor, vocabulary: int, op: str, row: int) -> None:
    place = []
    rest = row
    for size in reversed(token_ids.shape):
        place.append(rest % size)
        rest //= size
    raise ValueError(
        f"{op}: token_ids[{', '.join(map(str, reversed(place)))}] is {int(token_ids.flatten()[row])}, but the "
        f"vocabulary has {vocabulary} tokens; give ids in [0, {vocabulary}), or {IGNORE} for a token to leave out"
    )


def check_support(token_ids: Tensor, kept_ids: Tensor, kept_offsets: Tensor, vocabulary: int, op: str) -> None:
    """Raise ValueError unless every token without IGNORE has a non-empty, strictly ascending list of kept ids."""
    lengths = kept_offsets.diff()
    if int(kept_offsets[0]) != 0 or int(kept_offsets[-1]) != len(kept_ids) or bool((lengths < 0).any()):
        raise ValueError(
            f"{op}: support offsets must start at 0, not decrease and end at {len(kept_ids)}, the number of kept ids"
        )
    empty = (lengths == 0) & (token_ids.flatten() != IGNORE)
    if empty.any():
        row = int(empty.to(torch.uint8).argmax())
        raise ValueError(
            f"{op}: token {row} has no kept id in its support; keep at least one, or set its token id to {IGNORE}"
        )
    starts = torch.zeros(len(kept_ids) + 1, dtype=torch.bool, device=kept_ids.device)
    starts[kept_offsets] = True
    bad = (kept_ids < 0) | (kept_ids >= vocabulary)
    bad[1:] |= (kept_ids[1:] <= kept_ids[:-1]) & ~starts[1:-1]
    if bad.any():
        place = int(bad.to(torch.uint8).argmax())
        row = int(torch.searchsorted(kept_offsets, place, right=True)) - 1
        raise ValueError(
            f"{op}: support ids of token {row} must ascend without repeats inside [0, {vocabulary}), but "
            f"hold {int(kept_ids[place])} at {place}; sort each token's ids"
        )


def token_stats(logits: Tensor, token_ids: Tensor, kept: Kept, temperature: float, softcap: float, want: int) -> Tensor:
    """[..., V], [...] -> [8, ...]. See the public `hookline.kernels.token_stats` for what the rows mean."""
    check_token_ids(token_ids, logits.shape[-1], "token_stats")
    if kept is not None:
        check_support(token_ids, *kept, logits.shape[-1], "token_stats")
    x = logits.to(wide(logits))
    stats = x.new_zeros(ROWS, *token_ids.shape)
    if not token_ids.numel():
        return stats
    y = token_ids.long().clamp(min=0).unsqueeze(-1)
    if kept is not None:
        x = x.masked_fill(~kept_mask(*kept, x), -torch.inf)
    peak = x.amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    z = distance(x, peak, temperature, softcap)
    log_total = z.logsumexp(-1)
    p = (z - log_total.unsqueeze(-1)).exp()
    z_y = z.gather(-1, y).squeeze(-1)

    # -log(1 + rest / chosen) and not z_y - log_total: a token of probability 0.9999 keeps the digits of 1 - p.
    rest = z.scatter(-1, y, -torch.inf).logsumexp(-1)
    stats[LOGPROBS] = -torch.nn.functional.softplus(rest - z_y, threshold=40)
    stats[LOGSUMEXP] = scaled(peak, temperature, softcap).squeeze(-1) + log_total
    stats[PEAK] = peak.squeeze(-1)
    stats[LOG_TOTAL] = log_total
    if wants(want, ENTROPY):
        stats[ENTROPY] = log_total - torch.where(p == 0, 0, p * z).sum(-1)
    if wants(want, SUM_SQ_PROBS):
        stats[SUM_SQ_PROBS] = p.square().sum(-1)
    if wants(want, TOP_P_MASS) or wants(want, RANK):
        above = x > x.gather(-1, y)
        broken = log_total.isnan() | (log_total == -torch.inf)
        stats[TOP_P_MASS] = torch.where(above, p, 0).sum(-1).masked_fill(broken, torch.nan)
        stats[RANK] = above.sum(-1).to(stats.dtype).masked_fill(broken, torch.nan)
    return torch.where(token_ids == IGNORE, 0, stats)


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
    """The gradient to the logits, in their dtype: sum of upstream * d statistic / dx. Written to `out` if given."""
    x = logits.to(wide(logits))
    y = token_ids.long().clamp(min=0).unsqueeze(-1)
    row = stats.unsqueeze(-1)
    up = upstream.to(x.dtype).unsqueeze(-1)
    z = distance(x, row[PEAK], temperature, softcap)
    outside = None if kept is None else ~kept_mask(*kept, x)
    if outside is not None:
        z = z.masked_fill(outside, -torch.inf)
    logp = z - row[LOG_TOTAL]
    p = logp.exp()
    grad = torch.zeros_like(x)
    if wants(want, LOGPROBS):
        inside = torch.where(z.gather(-1, y) == -torch.inf, 0, -torch.expm1(row[LOGPROBS]))
        grad += up[LOGPROBS] * (-p).scatter(-1, y, inside)  # at y: 1 - p, with its digits
    if wants(want, LOGSUMEXP):
        grad += up[LOGSUMEXP] * p
    if wants(want, ENTROPY):
        grad -= up[ENTROPY] * torch.where(p == 0, 0, p * (logp + row[ENTROPY]))
    if wants(want, SUM_SQ_PROBS):
        grad += up[SUM_SQ_PROBS] * 2 * p * (p - row[SUM_SQ_PROBS])
    grad /= temperature
    if softcap:
        grad *= 1 - torch.tanh(x / softcap).square()
    if outside is not None:
        grad = grad.masked_fill(outside, 0)
    live = (upstream[:RANK] != 0).any(0) & (token_ids != IGNORE)
    grad = torch.where(live.unsqueeze(-1), grad, 0).to(logits.dtype)
    return grad if out is None else out.copy_(grad)


def scaled(x: Tensor, temperature: float, softcap: float) -> Tensor:
    return (softcap * torch.tanh(x / softcap) if softcap else x) / temperature


def distance(x: Tensor, peak: Tensor, temperature: float, softcap: float) -> Tensor:
    """z(x) - z(peak); the difference is taken before the division by temperature."""
    if softcap:
        z = softcap * (torch.tanh(x / softcap) - torch.tanh(peak / softcap)) / temperature
        return z.masked_fill(x == -torch.inf, -torch.inf)  # the cap must not make such a token drawable
    return (x - peak) / temperature


def kept_mask(kept_ids: Tensor, kept_offsets: Tensor, x: Tensor) -> Tensor:
    """True where a logit belongs to its token's support. [..., V] like x."""
    vocabulary = x.shape[-1]
    rows = torch.repeat_interleave(torch.arange(len(kept_offsets) - 1, device=x.device), kept_offsets.diff())
    mask = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    mask[rows * vocabulary + kept_ids] = True
    return mask.view(x.shape)


def kept_rows(kept: Kept, start: int, stop: int) -> Kept:
    """The support of tokens start … stop - 1."""
    if kept is None:
        return None
    kept_ids, kept_offsets = kept
    first, last = int(kept_offsets[start]), int(kept_offsets[stop])
    return kept_ids[first:last], kept_offsets[start : stop + 1] - first


# ----------------------------------------------------------------------------- token statistics from hidden states


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """a @ b with its result in `dtype`, accumulated there: rounding logits to bfloat16 costs 1e-2 in every log-prob."""
    if a.is_cuda and a.dtype == b.dtype and a.dtype in (torch.bfloat16, torch.float16) and dtype == torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.to(dtype) @ b.to(dtype)


def head(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[n, H], [V, H], [V] -> the logits [n, V] in `dtype`."""
    logits = product(hidden, weight.t(), dtype)
    return logits if bias is None else logits.add_(bias)


def flat(x: Tensor) -> Tensor:
    """[..., H] -> [N, H]."""
    return x.reshape(x.shape[:-1].numel(), x.shape[-1])


def row_tiles(rows: int, vocabulary: int) -> list[tuple[int, int]]:
    step = max(1, TILE // max(vocabulary, 1))
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


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
    """[..., H], [V, H], [...] -> [8, ...]: `token_stats` of the head's logits, a few rows at a time."""
    check_token_ids(token_ids, len(weight), "linear_token_stats")
    if kept is not None:
        check_support(token_ids, *kept, len(weight), "linear_token_stats")
    dtype = wide(hidden, weight, bias)
    hidden, ids = flat(hidden), token_ids.flatten()
    stats = hidden.new_zeros(ROWS, len(ids), dtype=dtype)
    for start, stop in row_tiles(len(ids), len(weight)):
        logits = head(hidden[start:stop], weight, bias, dtype)
        rows = kept_rows(kept, start, stop)
        stats[:, start:stop] = token_stats(logits, ids[start:stop], rows, temperature, softcap, want)
    return stats.view(ROWS, *token_ids.shape)


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
    """Gradients to hidden, weight and bias (empty where `needs` is false). Each tile's logits are computed again."""
    dtype = wide(hidden, weight, bias)
    grads = LinearGrads(hidden, weight, bias, needs, dtype)
    rows_of_hidden, ids = flat(hidden), token_ids.flatten()
    upstream, stats = upstream.reshape(len(upstream), -1), stats.reshape(len(stats), -1)
    for start, stop in row_tiles(len(ids), len(weight)):
        rows = slice(start, stop)
        logits = head(rows_of_hidden[rows], weight, bias, dtype)
        grad_logits = token_stats_backward(
            upstream[:, rows],
            stats[:, rows],
            logits,
            ids[rows],
            kept_rows(kept, start, stop),
            temperature,
            softcap,
            want,
        )
        grads.add(rows, grad_logits, rows_of_hidden[rows], weight)
    return grads.result()


class LinearGrads:
    """Accumulators of a head's gradients: in `dtype` (float32) until the last tile, and then in the inputs' dtypes."""

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, needs: list[bool], dtype: torch.dtype):
        self.shape, self.dtype = hidden.shape, dtype
        self.dtypes = (hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype)
        empty = hidden.new_empty(0, dtype=dtype)
        self.hidden = (
            flat(hidden).new_zeros(hidden.shape[:-1].numel(), hidden.shape[-1], dtype=dtype) if needs[0] else empty
        )
        self.weight = torch.zeros_like(weight, dtype=dtype) if needs[1] else empty
        self.bias = weight.new_zeros(len(weight), dtype=dtype) if needs[2] else empty
        self.needs = needs

    def add(self, rows: slice, grad_logits: Tensor, hidden: Tensor, weight: Tensor) -> None:
        if self.needs[0]:
            self.hidden[rows] = product(
                grad_logits.to(weight.dtype) if weight.is_cuda else grad_logits, weight, self.dtype
            )
        if self.needs[1]:
            self.weight += product(
                grad_logits.t().to(hidden.dtype) if hidden.is_cuda else grad_logits.t(), hidden, self.dtype
            )
        if self.needs[2]:
            self.bias += grad_logits.sum(0)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.hidden.view(self.shape) if self.needs[0] else self.hidden
        return hidden.to(self.dtypes[0]), self.weight.to(self.dtypes[1]), self.bias.to(self.dtypes[2])


# ----------------------------------------------------------------------------------------------------------- GAE


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor | None,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None,
    offsets: Tensor | None,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16), dense [..., T], or packed [N] with offsets.

    Returns [2, ...]: advantages and returns.
    """
    if offsets is not None:
        return gae_packed(rewards, values, mask, gamma, lam, bootstrap, offsets)
    dtype = wide(rewards, values)
    r, v = rewards.to(dtype), values.to(dtype)
    m = torch.ones_like(r, dtype=torch.bool) if mask is None else mask
    carry = r.new_zeros(r.shape[:-1])
    next_value = r.new_zeros(r.shape[:-1]) if bootstrap is None else bootstrap.to(dtype)
    both = r.new_zeros(2, *r.shape)
    for t in reversed(range(r.shape[-1])):
        delta = r[..., t] + gamma * next_value - v[..., t]
        carry = torch.where(m[..., t], delta + gamma * lam * carry, carry)
        next_value = torch.where(m[..., t], v[..., t], next_value)
        both[0, ..., t] = torch.where(m[..., t], carry, 0)
        both[1, ..., t] = torch.where(m[..., t], carry + v[..., t], 0)
    return both


def gae_packed(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor | None,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None,
    offsets: Tensor,
) -> Tensor:
    """Unpack into rows, run the dense recurrence, pack again."""
    check_offsets(offsets, len(rewards))
    lengths = offsets.diff()
    longest = int(lengths.max()) if len(lengths) else 0
    real = torch.arange(longest, device=rewards.device) < lengths.unsqueeze(-1)
    keep = real.clone() if mask is None else unpack(mask, real)
    both = gae(unpack(rewards, real), unpack(values, real), keep, gamma, lam, bootstrap, None)
    return both[:, real]


def unpack(packed: Tensor, real: Tensor) -> Tensor:
    rows = torch.zeros(real.shape, dtype=packed.dtype, device=packed.device)
    rows[real] = packed
    return rows


def check_offsets(offsets: Tensor, tokens: int) -> None:
    fine = len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == tokens
    falls = offsets.diff() < 0
    if falls.any():
        row = int(falls.to(torch.uint8).argmax())
        raise ValueError(
            f"gae: offsets must not decrease, but row {row} starts at {int(offsets[row])} "
            f"and ends at {int(offsets[row + 1])}"
        )
    if not fine:
        raise ValueError(f"gae: offsets must start at 0 and end at {tokens}, the number of rewards")


# ------------------------------------------------------------------------------------------------------------ KL

ESTIMATORS = ("k1", "k2", "k3")


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    """[...] twice -> [number of estimators, ...]. Computed in float64: expm1(r) - r loses half of float32's digits."""
    difference = logprobs.double() - ref_logprobs.double()
    values = (difference, difference.square() / 2, torch.expm1(-difference) + difference)
    return torch.stack([value for i, value in enumerate(values) if wants(which, i)]).to(wide(logprobs, ref_logprobs))


def kl_estimate_backward(upstream: Tensor, logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Tensor:
    """The gradient to logprobs; the one to ref_logprobs is its negative."""
    difference = logprobs.double() - ref_logprobs.double()
    slopes = (torch.ones_like(difference), difference, -torch.expm1(-difference))
    asked = torch.stack([slope for i, slope in enumerate(slopes) if wants(which, i)])
    return torch.where(upstream == 0, 0, upstream * asked).sum(0).to(wide(logprobs, ref_logprobs))


KL, P_PEAK, P_LOG_TOTAL, Q_PEAK, Q_LOG_TOTAL = range(5)
KL_ROWS = 5


def kl_divergence(logits: Tensor, ref_logits: Tensor, temperature: float) -> Tensor:
    """[..., V] twice -> [5, ...]: KL(p || q) = sum p (log p - log q), and what the backward pass needs of both
    softmaxes.
    """
    dtype = wide(logits, ref_logits)
    stats = logits.new_zeros(KL_ROWS, *logits.shape[:-1], dtype=dtype)
    if not stats.numel():
        return stats
    log_p, stats[P_PEAK], stats[P_LOG_TOTAL] = log_softmax(logits.to(dtype), temperature)
    log_q, stats[Q_PEAK], stats[Q_LOG_TOTAL] = log_softmax(ref_logits.to(dtype), temperature)
    p = log_p.exp()
    stats[KL] = torch.where(p == 0, 0, p * (log_p - log_q)).sum(-1).clamp(min=0)
    return stats


def log_softmax(x: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    peak = x.amax(-1).clamp(min=torch.finfo(x.dtype).min)
    z = (x - peak.unsqueeze(-1)) / temperature
    log_total = z.logsumexp(-1)
    return z - log_total.unsqueeze(-1), peak, log_total


def kl_divergence_backward(
    upstream: Tensor, stats: Tensor, logits: Tensor, ref_logits: Tensor, temperature: float, needs: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients to both logits: upstream p (log p - log q - KL) / temperature, and upstream (q - p) / temperature."""
    dtype = wide(logits, ref_logits)
    row = stats.unsqueeze(-1)
    log_p = (logits.to(dtype) - row[P_PEAK]) / temperature - row[P_LOG_TOTAL]
    log_q = (ref_logits.to(dtype) - row[Q_PEAK]) / temperature - row[Q_LOG_TOTAL]
    p, q = log_p.exp(), log_q.exp()
    up = upstream.unsqueeze(-1)
    empty = logits.new_empty(0)
    grad_p = (
        torch.where((p == 0) | (up == 0), 0, up * p * (log_p - log_q - row[KL]) / temperature) if needs[0] else empty
    )
    grad_q = torch.where(up == 0, 0, up * (q - p) / temperature) if needs[1] else empty
    return grad_p.to(logits.dtype), grad_q.to(ref_logits.dtype)


def linear_kl_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    temperature: float,
) -> Tensor:
    """`kl_divergence` of two heads' logits, a few rows at a time. [..., H], [V, H], [..., H'], [V, H'] -> [5, ...]."""
    dtype = wide(hidden, weight, bias, ref_hidden, ref_weight, ref_bias)
    shape = hidden.shape[:-1]
    hidden, ref_hidden = flat(hidden), flat(ref_hidden)
    stats = hidden.new_zeros(KL_ROWS, len(hidden), dtype=dtype)
    for start, stop in row_tiles(len(hidden), len(weight)):
        logits = head(hidden[start:stop], weight, bias, dtype)
        stats[:, start:stop] = kl_divergence(
            logits, head(ref_hidden[start:stop], ref_weight, ref_bias, dtype), temperature
        )
    return stats.view(KL_ROWS, *shape)


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
    """Gradients to hidden, weight, bias, and the same of the other head (empty where `needs` is false)."""
    dtype = wide(hidden, weight, bias, ref_hidden, ref_weight, ref_bias)
    grads = LinearGrads(hidden, weight, bias, needs[:3], dtype)
    ref_grads = LinearGrads(ref_hidden, ref_weight, ref_bias, needs[3:], dtype)
    hidden, ref_hidden = flat(hidden), flat(ref_hidden)
    upstream, stats = upstream.flatten(), stats.reshape(len(stats), -1)
    for start, stop in row_tiles(len(hidden), len(weight)):
        rows = slice(start, stop)
        logits, ref_logits = (
            head(hidden[rows], weight, bias, dtype),
            head(ref_hidden[rows], ref_weight, ref_bias, dtype),
        )
        grad, ref_grad = kl_divergence_backward(
            upstream[rows], stats[:, rows], logits, ref_logits, temperature, [any(needs[:3]), any(needs[3:])]
        )
        grads.add(rows, grad, hidden[rows], weight)
        ref_grads.add(rows, ref_grad, ref_hidden[rows], ref_weight)
    return *grads.result(), *ref_grads.result()


# ------------------------------------------------------------------------------------------------------------ draws


def draw(
    logits: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> tuple[Tensor, Tensor, Kept]:
    """[N, V], float64 [N] -> ids [N], log-probs [N], and what was kept if a cut was asked for.

    A uniform number below 0 takes the likeliest token. Sums are float64. A row without a finite sum draws id 0, with a
    log-prob of NaN.
    """
    x = logits.to(wide(logits))
    peak = x.amax(-1, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    z = distance(x, peak, temperature, 0.0).double()
    p = z.exp()
    broken = ~torch.isfinite(p.sum(-1)) | (p.sum(-1) <= 0)
    p = torch.where(broken[:, None], torch.zeros_like(p), p)
    cut = top_k > 0 or top_p < 1 or min_p > 0
    if cut:
        ranked, order = torch.sort(p, dim=-1, descending=True, stable=True)
        keep = ranked > 0
        if top_k:
            keep[:, top_k:] = False
        if top_p < 1:
            ranked = torch.where(keep, ranked, 0.0)  # of the mass that top-k left
            keep &= ranked.cumsum(-1) - ranked < top_p * ranked.sum(-1, keepdim=True)
        p = torch.where(torch.zeros_like(keep).scatter(1, order, keep) & (p >= min_p), p, 0.0)
    total = p.sum(-1)
    ids = torch.searchsorted(p.cumsum(-1), (uniform.clamp(min=0) * total)[:, None], right=True)[:, 0]
    last = (p > 0).cumsum(1).argmax(1)  # by rounding, the running sum may end below the sum
    ids = torch.where(uniform < 0, z.argmax(-1), torch.minimum(ids, last)).masked_fill(broken, 0)
    chosen = ids[:, None]
    rest = torch.where(p > 0, z, -torch.inf).scatter(1, chosen, -torch.inf).logsumexp(-1)
    logprobs = -torch.nn.functional.softplus(rest - z.gather(1, chosen)[:, 0], threshold=40)
    logprobs = logprobs.masked_fill(broken, torch.nan).to(wide(logits))
    if not cut:
        return ids, logprobs, None
    kept = (p > 0).scatter(1, chosen, True)
    counts = kept.sum(1)
    return ids, logprobs, (kept.nonzero()[:, 1], torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
