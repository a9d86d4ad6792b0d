"""The compute-heavy arithmetic of RLHF: token statistics, GAE and KL, in C++ where a compiled kernel exists and in
torch elsewhere.

    from hookline.kernels import token_stats
    stats = token_stats(logits_BTV, token_ids_BT, temperature=0.7, want=("logprobs", "entropy"))
    loss = -(stats.logprobs * advantage_BT).mean()

The functions return statistics, never losses: algorithms compute their losses from these in plain torch. Results are
float32 for every input dtype (float64 for float64 inputs). Every function takes any leading shape, works on every
device and (except `draw`) under `torch.compile(fullgraph=True)`, ignores autocast, is bitwise reproducible at equal thread count, and
has a readable reference in `hookline.kernels.reference`. This package imports nothing else of hookline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from . import cpu, native, reference
from . import ops as ops
from .kept import kept_token_stats, tokens_kept
from .native import backend, build_info
from .reference import ESTIMATORS, IGNORE, RANK, STATISTICS, TOP_P_MASS

__all__ = [
    "IGNORE",
    "STATISTICS",
    "Drawn",
    "TokenStats",
    "backend",
    "build_info",
    "draw",
    "gae",
    "kl_divergence",
    "kl_estimate",
    "linear_kl_divergence",
    "linear_token_stats",
    "token_stats",
]

KeptIds = tuple[Tensor, Tensor]

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_INTS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
_GRADS = ("new", "pooled", "inplace")
_WANT = {name: 1 << i for i, name in enumerate(STATISTICS)}
_WANT_ONE: dict[tuple[str, ...], int] = {(name,): bit for name, bit in _WANT.items()}
_ESTIMATOR = {name: 1 << i for i, name in enumerate(ESTIMATORS)}


@dataclass(frozen=True)
class TokenStats:
    """The requested statistics of each token; the others are None. All have the shape of `token_ids`, [...], in float32.

    With z = softcap(logits) / temperature, p = softmax(z) over the token's support, and y the token:
    """

    logprobs: Tensor | None = None
    """[...]: log p(y), in nats; -inf for a token outside its own support. Differentiable."""
    entropy: Tensor | None = None
    """[...]: -sum p log p, in nats. Differentiable."""
    logsumexp: Tensor | None = None
    """[...]: log sum exp z, so that logprobs + logsumexp is the chosen z. Differentiable."""
    sum_sq_probs: Tensor | None = None
    """[...]: sum p², the probability that two draws agree. Differentiable."""
    top_p_mass: Tensor | None = None
    """[...]: probability of all tokens with a larger logit than y: y lies in the top-p nucleus if top_p_mass < p.
    No gradient.
    """
    rank: Tensor | None = None
    """[...]: number of tokens with a larger logit than y: 0 for the greedy choice, < k within the top k. No gradient."""

    def __getitem__(self, name: str) -> Tensor:
        """A statistic by name, [...]; raises KeyError if the statistic was not requested."""
        value = getattr(self, name) if name in STATISTICS else None
        if value is None:
            raise KeyError(f"{name!r} was not requested; add it to want")
        return value  # type: ignore[no-any-return]


def token_stats(
    logits: Tensor,
    token_ids: Tensor,
    *,
    temperature: float = 1.0,
    softcap: float | None = None,
    support: KeptIds | None = None,
    want: Sequence[str] = ("logprobs",),
    grad: str = "new",
) -> TokenStats:
    """Statistics of tokens under the distribution their logits give: log-prob, entropy, … from one read of the
    logits.

    - `logits` [..., V], float32, bfloat16, float16 or float64. Any strides.
    - `token_ids` [...], integers in [0, V), or -100 for a token to leave out: all its statistics are 0, and its
      logits get zero gradient and may hold NaN.
    - `temperature` > 0 divides the logits; `softcap` c > 0 first bends them to c tanh(logits / c), as Gemma 2 does.
    - `support`: the kept ids of each token as `(ids [nnz], offsets [N + 1])`, both int64: token i (of the N tokens of
      `token_ids`, flattened) keeps `ids[offsets[i]:offsets[i + 1]]`, in ascending order. The softmax is taken over
      these only.
    - `want`: names out of `STATISTICS`; each is computed only if named. See `TokenStats`.
    - `grad`: where the gradient is written. `"new"`: into a new tensor; `"pooled"`: into the memory of an earlier
      gradient of this size that is no longer in use (on a CPU, fresh pages cost more than the arithmetic);
      `"inplace"`: over the logits, which must not be used afterwards; autograd raises an error if they are. Compiled
      graphs plan their own memory and treat all three as `"new"`.

    A NaN or +inf logit makes only its own row NaN; -inf is a token that cannot be drawn. A row that is all -inf
    has NaN statistics. Raises ValueError for wrong shapes, dtypes, options, and for the first id out of range.

    Source: log-softmax with an online normaliser (Milakov & Gimelshein 2018, arXiv:1805.02867).
    """
    bits = _want("token_stats", want)
    _check_place("token_stats", logits=logits, token_ids=token_ids, **_kept(support))
    _check_logits("token_stats", "logits", logits)
    _check_token_ids("token_stats", token_ids, logits.shape[:-1], "logits", logits.shape)
    temperature, cap = _temperature("token_stats", temperature), _softcap("token_stats", softcap)
    kept_ids, kept_offsets = _support("token_stats", support, token_ids)
    if grad not in _GRADS:
        raise ValueError(f"token_stats: grad is {grad!r}; choose from {', '.join(_GRADS)}")
    if torch.compiler.is_compiling():
        grad = "new"
    stats = torch.ops.hookline.token_stats(logits, token_ids, kept_ids, kept_offsets, temperature, cap, bits, grad)
    return _named(stats, bits)


def linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    support: KeptIds | None = None,
    want: Sequence[str] = ("logprobs",),
) -> TokenStats:
    """`token_stats(hidden @ weight.T + bias, token_ids)` without these logits in memory: only one tile of them exists
    at a time. On a CPU where torch's product is as fast as ours (Intel, or without AVX-512), up to 128 MiB of float32
    logits are kept until the backward pass: for these tokens it is one product shorter.

    - `hidden` [..., H]; `weight` [V, H]; `bias` [V]. The product is accumulated in float32 up to the softmax, also
      for bfloat16 inputs. `token_ids` [...] and the options are those of `token_stats`.

    Gradients go to hidden, weight and bias. The backward pass computes tiles that were not kept again; weight and bias gradients
    are summed in float32 and are rounded to their dtype once. Raises ValueError as `token_stats` does.
    """
    bits = _want("linear_token_stats", want)
    _check_place("linear_token_stats", hidden=hidden, weight=weight, bias=bias, token_ids=token_ids, **_kept(support))
    _check_head("linear_token_stats", hidden, weight, bias, "")
    _check_token_ids("linear_token_stats", token_ids, hidden.shape[:-1], "hidden", hidden.shape)
    temperature, cap = _temperature("linear_token_stats", temperature), _softcap("linear_token_stats", softcap)
    kept_ids, kept_offsets = _support("linear_token_stats", support, token_ids)
    if tokens_kept(hidden, weight, bias):
        kept = None if kept_ids is None or kept_offsets is None else (kept_ids, kept_offsets)
        return _named(kept_token_stats(hidden, weight, bias, token_ids, kept, temperature, cap, bits), bits)
    stats = torch.ops.hookline.linear_token_stats(
        hidden, weight, bias, token_ids, kept_ids, kept_offsets, temperature, cap, bits
    )
    return _named(stats, bits)


def gae(
    rewards: Tensor,
    values: Tensor,
    *,
    mask: Tensor | None = None,
    gamma: float = 1.0,
    lam: float = 0.95,
    bootstrap: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation: (advantages, returns), both shaped like `rewards`, in float32, without
    gradient.

    - `rewards`, `values` [..., T], floats: the reward of each step, and the value of the state before the step. With
      `offsets` [S + 1] both are packed: [N], where sequence s is `offsets[s]` … `offsets[s + 1] - 1`.
    - `mask` (bool, same shape): true where there is a step. A step where the mask is false passes the carry on to the
      left, is 0 in both results, and may be NaN in the inputs.
    - `gamma` in [0, 1]: the discount per step. `lam` in [0, 1]: 0 is one-step TD, 1 is Monte Carlo.
    - `bootstrap` [...] or [S]: value of the state after a row's last step. Without it, the end of a row is terminal,
      also if a length limit cut the row; this is right for answers that must learn to finish.

    `advantages + values == returns` where the mask is true. Raises ValueError for wrong shapes, dtypes and ranges.

    Source: Schulman et al. 2016, eq. 16 (arXiv:1506.02438).
    """
    _check_place("gae", rewards=rewards, values=values, mask=mask, bootstrap=bootstrap, offsets=offsets)
    for name, tensor in (("rewards", rewards), ("values", values)):
        _check_float("gae", name, tensor)
    if values.shape != rewards.shape:
        hint = "; drop the last column or pass it as bootstrap=" if values.shape[:-1] == rewards.shape[:-1] else ""
        raise ValueError(
            f"gae: values is {_shape(values)} but rewards is {_shape(rewards)}{hint or '; give one value per reward'}"
        )
    if rewards.dim() == 0 or (offsets is not None and rewards.dim() != 1):
        raise ValueError(
            f"gae: rewards is {_shape(rewards)}; give {'[N] with offsets' if offsets is not None else '[..., T]'}"
        )
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(f"gae: mask is {_dtype(mask)}; give a bool mask, such as mask != 0")
        if mask.shape != rewards.shape:
            raise ValueError(
                f"gae: mask is {_shape(mask)} but rewards is {_shape(rewards)}; give one mask entry per reward"
            )
    if offsets is not None and (offsets.dtype not in _INTS or offsets.dim() != 1 or offsets.shape[0] == 0):
        raise ValueError(f"gae: offsets is {_dtype(offsets)} {_shape(offsets)}; give integers [S + 1], starting at 0")
    if bootstrap is not None:
        _check_float("gae", "bootstrap", bootstrap)
        rows = rewards.shape[:-1] if offsets is None else (offsets.shape[0] - 1,)
        if tuple(bootstrap.shape) != tuple(rows):
            raise ValueError(f"gae: bootstrap is {_shape(bootstrap)}; give one value per row, {list(rows)}")
    gamma, lam = _fraction("gae", "gamma", gamma), _fraction("gae", "lam", lam)
    offsets = None if offsets is None else offsets.long()
    rewards, values = _plain(rewards), _plain(values)
    start = None if bootstrap is None else _plain(bootstrap)
    both = torch.ops.hookline.gae(rewards, values, mask, gamma, lam, start, offsets)
    return both[0], both[1]


def _plain(tensor: Tensor) -> Tensor:
    """Without gradient."""
    return tensor.detach() if tensor.requires_grad else tensor


@overload
def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: str = "k3") -> Tensor: ...
@overload
def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, *, estimator: tuple[str, ...]) -> tuple[Tensor, ...]: ...
def kl_estimate(
    logprobs: Tensor, ref_logprobs: Tensor, *, estimator: str | tuple[str, ...] = "k3"
) -> Tensor | tuple[Tensor, ...]:
    """Per-token estimates of KL(policy ‖ reference) from the log-probs of tokens that the policy drew, in nats.

    With r = ref_logprobs - logprobs:

    | estimator | value | gradient to logprobs | |
    |---|---|---|---|
    | k1 | -r | 1 | unbiased value of either sign; its gradient's mean is 0: use it in the reward, not in the loss |
    | k2 | r²/2 | -r | biased value, never negative; its gradient is unbiased for KL's |
    | k3 | exp(r) - 1 - r | 1 - exp(r) | unbiased value, never negative; its gradient is KL(reference ‖ policy)'s |

    - `logprobs`, `ref_logprobs` [...]: floats of one shape. Results have that shape; the gradient to `ref_logprobs`
      is the negative.
    - `estimator`: a name, or a tuple of names; a tuple gives a tuple of results from one read.

    Nothing is clamped: k3 is inf beyond r = 88.7. Raises ValueError for wrong shapes, dtypes and names.

    Source: Schulman 2020, http://joschu.net/blog/kl-approx.html.
    """
    names = (estimator,) if isinstance(estimator, str) else tuple(estimator)
    for name in names:
        if name not in _ESTIMATOR:
            raise ValueError(f"kl_estimate: estimator {name!r} does not exist; choose from {', '.join(ESTIMATORS)}")
    if not names:
        raise ValueError(f"kl_estimate: estimator is empty; choose from {', '.join(ESTIMATORS)}")
    _check_place("kl_estimate", logprobs=logprobs, ref_logprobs=ref_logprobs)
    for what, tensor in (("logprobs", logprobs), ("ref_logprobs", ref_logprobs)):
        _check_float("kl_estimate", what, tensor)
    if logprobs.shape != ref_logprobs.shape:
        raise ValueError(
            f"kl_estimate: ref_logprobs is {_shape(ref_logprobs)} but logprobs is {_shape(logprobs)}; "
            "give one per token"
        )
    asked = [name for name in ESTIMATORS if name in names]
    values = torch.ops.hookline.kl_estimate(logprobs, ref_logprobs, sum(_ESTIMATOR[name] for name in asked)).unbind(0)
    if isinstance(estimator, str):
        return values[0]  # type: ignore[no-any-return]
    return tuple(values[asked.index(name)] for name in names)


def kl_divergence(logits: Tensor, ref_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(p ‖ q) over the whole vocabulary, p from `logits` and q from `ref_logits`, both divided by `temperature`. In
    nats.

    - `logits`, `ref_logits` [..., V], floats; the result is [...], never negative, inf where p can draw a token that
      q cannot.

    Gradients go to both: p (log p - log q - KL) / temperature, and (q - p) / temperature. A token that p cannot draw
    adds nothing, for any q. Raises ValueError for wrong shapes and dtypes.
    """
    _check_place("kl_divergence", logits=logits, ref_logits=ref_logits)
    _check_logits("kl_divergence", "logits", logits)
    _check_logits("kl_divergence", "ref_logits", ref_logits)
    if logits.shape != ref_logits.shape:
        raise ValueError(
            f"kl_divergence: ref_logits is {_shape(ref_logits)} but logits is {_shape(logits)}; give both one shape"
        )
    stats: Tensor = torch.ops.hookline.kl_divergence(logits, ref_logits, _temperature("kl_divergence", temperature))
    return stats[0]


def linear_kl_divergence(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    *,
    bias: Tensor | None = None,
    ref_bias: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """`kl_divergence(hidden @ weight.T + bias, ref_hidden @ ref_weight.T + ref_bias)` without either of the two logits
    in memory.

    - `hidden` [..., H], `weight` [V, H], `bias` [V]; the width of the reference may differ, but its vocabulary and
      leading shape may not.

    Gradients go to all six, as in `linear_token_stats`. Raises ValueError for wrong shapes and dtypes.
    """
    op = "linear_kl_divergence"
    policy = {"hidden": hidden, "weight": weight, "bias": bias}
    _check_place(op, **policy, ref_hidden=ref_hidden, ref_weight=ref_weight, ref_bias=ref_bias)
    _check_head(op, hidden, weight, bias, "")
    _check_head(op, ref_hidden, ref_weight, ref_bias, "ref_")
    if hidden.shape[:-1] != ref_hidden.shape[:-1]:
        raise ValueError(
            f"{op}: ref_hidden is {_shape(ref_hidden)} but hidden is {_shape(hidden)}; give both for the same tokens"
        )
    if weight.shape[0] != ref_weight.shape[0]:
        raise ValueError(
            f"{op}: ref_weight is {_shape(ref_weight)} but weight is {_shape(weight)}; "
            "both need one row per token of the vocabulary"
        )
    stats: Tensor = torch.ops.hookline.linear_kl_divergence(
        hidden, weight, bias, ref_hidden, ref_weight, ref_bias, _temperature(op, temperature)
    )
    return stats[0]


# ------------------------------------------------------------------------------------------------- checks and names


@dataclass(frozen=True)
class Drawn:
    """One token per row, and the distribution it was drawn from."""

    ids: Tensor
    """[...], int64."""
    logprobs: Tensor
    """[...]: the token's log-prob among those that were kept, in nats; NaN for a row that has no distribution."""
    support: KeptIds | None
    """What was kept, as `token_stats` reads it, if top-k, top-p or min-p was asked for."""


def draw(
    logits: Tensor,
    uniform: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    greedy: Tensor | None = None,
) -> Drawn:
    """Draw one token per row by inverting the cumulative distribution, with its log-prob, from one read of the logits.

    p = softmax(logits / temperature) is cut three times, and each cut takes p over the tokens that the one before kept,
    as in transformers and vLLM: the `top_k` likeliest (0: all), equal ones by ascending id; the smallest set of likeliest
    tokens whose p reaches `top_p`; those whose p is at least `min_p` times the largest. A token of probability 0 is never
    drawn.

    - `logits` [..., V], as in `token_stats`; `uniform` [...], float64 in [0, 1): where in the distribution to draw.
    - `greedy` bool [...]: rows that take the likeliest token, the first of equal ones, whatever `uniform` says; its
      log-prob is still that of the distribution.

    Nothing is sorted, and no gradient passes. A row with a NaN or +inf logit, or with none that can be drawn, gets id 0
    and the log-prob NaN. Raises ValueError for wrong shapes, dtypes and options.

    Source: top-k (Fan et al. 2018), nucleus (Holtzman et al. 2020), min-p (Nguyen et al. 2024).
    """
    _check_place("draw", logits=logits, uniform=uniform, greedy=greedy)
    _check_logits("draw", "logits", logits)
    shape = logits.shape[:-1]
    for name, tensor, dtype in (("uniform", uniform, torch.float64), ("greedy", greedy, torch.bool)):
        if tensor is not None and (tensor.dtype != dtype or tensor.shape != shape):
            raise ValueError(
                f"draw: {name} is {_dtype(tensor)} {_shape(tensor)}; give {str(dtype).removeprefix('torch.')} {list(shape)}"
            )
    temperature = _temperature("draw", temperature)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0:
        raise ValueError(f"draw: top_k is {top_k!r}; give a whole number, 0 for no cut")
    top_p, min_p = _number("draw", "top_p", top_p), _number("draw", "min_p", min_p)
    if not 0 < top_p <= 1:
        raise ValueError(f"draw: top_p is {top_p:g}; give a number above 0 and at most 1, which cuts nothing")
    if not 0 <= min_p <= 1:
        raise ValueError(f"draw: min_p is {min_p:g}; give a number from 0, which cuts nothing, to 1")
    where = uniform if greedy is None else torch.where(greedy, -1.0, uniform)
    rows = logits.detach().reshape(-1, logits.shape[-1])
    who = cpu if native.use_native(rows.device) and rows.device.type == "cpu" else reference
    with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
        ids, logprobs, support = who.draw(rows, where.reshape(-1), temperature, top_k, top_p, min_p)
    return Drawn(ids.view(shape), logprobs.view(shape), support)


def _named(stats: Tensor, bits: int) -> TokenStats:
    if bits & (bits - 1) == 0 and bits < 1 << TOP_P_MASS:  # one that has a gradient: a view of it costs least
        i = bits.bit_length() - 1
        return TokenStats(**{STATISTICS[i]: stats[i]})
    rows = stats.unbind(0)
    return TokenStats(**{name: _row(rows, i) for i, name in enumerate(STATISTICS) if bits >> i & 1})


def _row(rows: tuple[Tensor, ...], i: int) -> Tensor:
    return rows[i].detach() if i in (TOP_P_MASS, RANK) else rows[i]


def _want(op: str, want: Iterable[str]) -> int:
    if type(want) is tuple and want in _WANT_ONE:
        return _WANT_ONE[want]
    bits = 0
    for name in (want,) if isinstance(want, str) else want:
        if name not in _WANT:
            raise ValueError(f"{op}: want names {name!r}; choose from {', '.join(STATISTICS)}")
        bits |= _WANT[name]
    return bits


def _check_place(op: str, **tensors: Tensor | None) -> None:
    """All tensors are dense and on one device. Otherwise torch may call the kernel of the wrong device."""
    first, home = "", None
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.layout != torch.strided:
            raise ValueError(f"{op}: {name} is {str(tensor.layout).removeprefix('torch.')}; give a dense tensor")
        if home is None:
            first, home = name, tensor.device
        elif tensor.device != home:
            raise ValueError(f"{op}: {name} is on {tensor.device} but {first} is on {home}; give both on one device")


def _kept(support: KeptIds | None) -> dict[str, Tensor]:
    return {} if support is None else {"support ids": support[0], "support offsets": support[1]}


def _check_float(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATS:
        raise ValueError(f"{op}: {name} is {_dtype(tensor)}; give float32, bfloat16, float16 or float64")


def _check_logits(op: str, name: str, logits: Tensor) -> None:
    _check_float(op, name, logits)
    if logits.dim() == 0 or logits.shape[-1] == 0:
        raise ValueError(f"{op}: {name} is {_shape(logits)}; give [..., V] with a vocabulary of at least one token")


def _check_token_ids(op: str, token_ids: Tensor, rows: Sequence[int], name: str, shape: Sequence[int]) -> None:
    if token_ids.dtype not in _INTS:
        raise ValueError(f"{op}: token_ids is {_dtype(token_ids)}; give integers")
    if tuple(token_ids.shape) != tuple(rows):
        raise ValueError(
            f"{op}: token_ids is {_shape(token_ids)} but {name} is {list(shape)}; give one id per token, {list(rows)}"
        )


def _check_head(op: str, hidden: Tensor, weight: Tensor, bias: Tensor | None, prefix: str) -> None:
    for name, tensor in (("hidden", hidden), ("weight", weight), ("bias", bias)):
        if tensor is not None:
            _check_float(op, prefix + name, tensor)
    if weight.dim() != 2 or weight.shape[0] == 0:
        raise ValueError(
            f"{op}: {prefix}weight is {_shape(weight)}; give [V, H] with a vocabulary of at least one token"
        )
    if hidden.dim() == 0 or hidden.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"{op}: {prefix}hidden is {_shape(hidden)} but {prefix}weight is {_shape(weight)}; "
            "their last sizes must agree"
        )
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        raise ValueError(
            f"{op}: {prefix}bias is {_shape(bias)} but {prefix}weight is {_shape(weight)}; give [{weight.shape[0]}]"
        )


def _support(op: str, support: KeptIds | None, token_ids: Tensor) -> tuple[Tensor | None, Tensor | None]:
    if support is None:
        return None, None
    ids, offsets = support
    for name, tensor in (("ids", ids), ("offsets", offsets)):
        if tensor.dtype not in _INTS or tensor.dim() != 1:
            raise ValueError(
                f"{op}: support {name} is {_dtype(tensor)} {_shape(tensor)}; give one dimension of integers"
            )
    if offsets.shape[0] != token_ids.numel() + 1:
        raise ValueError(
            f"{op}: support offsets is {_shape(offsets)} for {token_ids.numel()} tokens; give [{token_ids.numel() + 1}]"
        )
    return ids.long(), offsets.long()


def _number(op: str, name: str, value: Any) -> float:
    if isinstance(value, Tensor) or not isinstance(value, (int, float)):
        raise ValueError(f"{op}: {name} is a {type(value).__name__}; give a plain number")
    return float(value)


def _temperature(op: str, value: Any) -> float:
    if type(value) is float and 0 < value < math.inf:
        return value
    number = _number(op, "temperature", value)
    if not 0 < number < math.inf:
        raise ValueError(
            f"{op}: temperature is {number}; give a finite number above 0 (a greedy choice has no log-probs)"
        )
    return number


def _softcap(op: str, value: Any) -> float:
    if value is None:
        return 0.0
    number = _number(op, "softcap", value)
    if not 0 < number < math.inf:
        raise ValueError(f"{op}: softcap is {number}; give a finite number above 0, or None for no cap")
    return number


def _fraction(op: str, name: str, value: Any) -> float:
    if type(value) is float and 0 <= value <= 1:
        return value
    number = _number(op, name, value)
    if not 0 <= number <= 1:
        raise ValueError(f"{op}: {name} is {number}; give a number in [0, 1]")
    return number


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
