"""The ops behind the public functions: schema, shape rule, autograd, and the choice of the implementation.

Each op calls `_who` once: `cpu` or `cuda` if a compiled module exists for the tensors' device, else `reference`.
Callers do not need to know which one runs. Forward ops return one tensor whose leading dimension enumerates
statistics (see `reference`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.amp import autocast_mode

from . import cpu, cuda, native, pool, reference

_library = torch.library.Library("hookline", "DEF")  # type: ignore[no-untyped-call]
_ops = torch.ops.hookline


def _define(schema: str, compute: Callable[..., Any], fake: Callable[..., Any]) -> None:
    """Register one op. Autocast is off inside: statistics are float32 for every dtype of the model."""
    name = schema.split("(")[0]
    qualified = f"hookline::{name}"

    def run(*args: Any) -> Any:
        if not torch.is_autocast_enabled(device := _device(args)):
            return compute(*args)
        with autocast_mode.autocast(device, enabled=False):
            return compute(*args)

    def refuse_vmap(*_: Any) -> Any:
        raise NotImplementedError(
            f"hookline.kernels.{name.removesuffix('_')} does not work under torch.vmap; it takes any leading shape"
        )

    _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))  # type: ignore[no-untyped-call]
    _library.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(qualified, fake, lib=_library)
    torch.library.register_vmap(qualified, refuse_vmap, lib=_library)


def _who(op: str, tensor: Tensor) -> ModuleType:
    if tensor.is_cpu:
        return cpu if native.on_cpu() else reference
    if not native.use_native(tensor.device):
        return reference
    return cuda.trusted(op, tensor.device)


def _device(args: tuple[Any, ...]) -> str:
    first: Tensor = args[0]  # of every op
    return "cpu" if first.is_cpu else first.device.type


def _kept(kept_ids: Tensor | None, kept_offsets: Tensor | None) -> reference.Kept:
    return None if kept_ids is None or kept_offsets is None else (kept_ids, kept_offsets)


def _differentiate(name: str, save: Callable[..., None], backward: Callable[..., Any]) -> None:
    torch.library.register_autograd(f"hookline::{name}", backward, setup_context=save, lib=_library)


def _no_second_derivative(name: str) -> None:
    def refuse(*_: Any) -> Any:
        raise RuntimeError(f"hookline.kernels.{name} has no second derivative; call backward without create_graph=True")

    torch.library.register_autograd(f"hookline::{name}_backward", refuse, lib=_library)


# ------------------------------------------------------------------------------------------------------ token_stats


def _token_stats(
    logits: Tensor,
    token_ids: Tensor,
    kept_ids: Tensor | None,
    kept_offsets: Tensor | None,
    temperature: float,
    softcap: float,
    want: int,
    grad: str,
) -> Any:
    return _who("token_stats", logits).token_stats(
        logits, token_ids, _kept(kept_ids, kept_offsets), temperature, softcap, want
    )


def _token_stats_backward(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    token_ids: Tensor,
    kept_ids: Tensor | None,
    kept_offsets: Tensor | None,
    temperature: float,
    softcap: float,
    want: int,
    pooled: bool,
) -> Any:
    args = (upstream, stats, logits, token_ids, _kept(kept_ids, kept_offsets), temperature, softcap, want)
    if pooled and logits.device.type == "cpu":
        return _who("token_stats", logits).token_stats_backward(*args, pool.gradients.take(logits.shape, logits.dtype))
    return _who("token_stats", logits).token_stats_backward(*args)


def _token_stats_backward_(
    upstream: Tensor,
    stats: Tensor,
    logits: Tensor,
    token_ids: Tensor,
    kept_ids: Tensor | None,
    kept_offsets: Tensor | None,
    temperature: float,
    softcap: float,
    want: int,
) -> None:
    kept = _kept(kept_ids, kept_offsets)
    _who("token_stats", logits).token_stats_backward(
        upstream, stats, logits, token_ids, kept, temperature, softcap, want, logits
    )


_TOKENS = "Tensor token_ids, Tensor? kept_ids, Tensor? kept_offsets, float temperature, float softcap, int want"

_define(
    f"token_stats(Tensor logits, {_TOKENS}, str grad) -> Tensor",
    _token_stats,
    lambda logits, token_ids, *_: logits.new_empty(reference.ROWS, *token_ids.shape, dtype=reference.wide(logits)),
)
_define(
    f"token_stats_backward(Tensor upstream, Tensor stats, Tensor logits, {_TOKENS}, bool pooled) -> Tensor",
    _token_stats_backward,
    lambda upstream, stats, logits, *_: logits.new_empty(logits.shape),
)
_define(
    f"token_stats_backward_(Tensor upstream, Tensor stats, Tensor(a!) logits, {_TOKENS}) -> ()",
    _token_stats_backward_,
    lambda *_: None,
)


def _save_token_stats(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, token_ids, kept_ids, kept_offsets, ctx.temperature, ctx.softcap, ctx.want, ctx.grad = inputs
    ctx.save_for_backward(output, logits, token_ids, kept_ids, kept_offsets)


def _differentiate_token_stats(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    stats, logits, *tokens = ctx.saved_tensors
    rest = (*tokens, ctx.temperature, ctx.softcap, ctx.want)
    if ctx.grad == "inplace":
        grad = logits.detach()
        _ops.token_stats_backward_(upstream, stats, grad, *rest)
        torch.autograd.graph.increment_version(logits)  # autograd then refuses to use other saved references
    else:
        grad = _ops.token_stats_backward(upstream, stats, logits, *rest, ctx.grad == "pooled")
    return (grad, *[None] * 7)


_differentiate("token_stats", _save_token_stats, _differentiate_token_stats)
_no_second_derivative("token_stats")


# ----------------------------------------------------------------------------------------------- linear_token_stats


def _linear_token_stats(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    kept_ids: Tensor | None,
    kept_offsets: Tensor | None,
    temperature: float,
    softcap: float,
    want: int,
) -> Any:
    kept = _kept(kept_ids, kept_offsets)
    return _who("linear_token_stats", hidden).linear_token_stats(
        hidden, weight, bias, token_ids, kept, temperature, softcap, want
    )


def _linear_token_stats_backward(
    upstream: Tensor,
    stats: Tensor,
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    token_ids: Tensor,
    kept_ids: Tensor | None,
    kept_offsets: Tensor | None,
    temperature: float,
    softcap: float,
    want: int,
    needs: list[bool],
) -> Any:
    kept = _kept(kept_ids, kept_offsets)
    return _who("linear_token_stats", hidden).linear_token_stats_backward(
        upstream, stats, hidden, weight, bias, token_ids, kept, temperature, softcap, want, needs
    )


_HEAD = "Tensor hidden, Tensor weight, Tensor? bias"

_define(
    f"linear_token_stats({_HEAD}, {_TOKENS}) -> Tensor",
    _linear_token_stats,
    lambda hidden, weight, bias, token_ids, *_: hidden.new_empty(
        reference.ROWS, *token_ids.shape, dtype=reference.wide(hidden, weight, bias)
    ),
)
_define(
    f"linear_token_stats_backward(Tensor upstream, Tensor stats, {_HEAD}, {_TOKENS}, bool[] needs)"
    " -> (Tensor, Tensor, Tensor)",
    _linear_token_stats_backward,
    lambda upstream, stats, hidden, weight, bias, *rest: _empty_linear((hidden, weight, bias), rest[-1]),
)


def _empty_linear(tensors: tuple[Tensor, Tensor, Tensor | None], needs: list[bool]) -> tuple[Tensor, ...]:
    hidden, weight, bias = tensors
    return (
        hidden.new_empty(hidden.shape if needs[0] else 0),
        weight.new_empty(weight.shape if needs[1] else 0),
        (weight if bias is None else bias).new_empty(len(weight) if needs[2] else 0),
    )


def _save_linear_token_stats(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.temperature, ctx.softcap, ctx.want = inputs
    ctx.save_for_backward(output, *tensors)


def _differentiate_linear_token_stats(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:3])
    rest = (ctx.temperature, ctx.softcap, ctx.want)
    grads = _ops.linear_token_stats_backward(upstream, *ctx.saved_tensors, *rest, needs)
    return (*(grad if need else None for grad, need in zip(grads, needs)), *[None] * 6)


_differentiate("linear_token_stats", _save_linear_token_stats, _differentiate_linear_token_stats)
_no_second_derivative("linear_token_stats")


# --------------------------------------------------------------------------------------------------------------- gae


def _gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor | None,
    gamma: float,
    lam: float,
    bootstrap: Tensor | None,
    offsets: Tensor | None,
) -> Any:
    return _who("gae", rewards).gae(rewards, values, mask, gamma, lam, bootstrap, offsets)


_define(
    "gae(Tensor rewards, Tensor values, Tensor? mask, float gamma, float lam, Tensor? bootstrap, Tensor? offsets)"
    " -> Tensor",
    _gae,
    lambda rewards, values, *_: rewards.new_empty(2, *rewards.shape, dtype=reference.wide(rewards, values)),
)


# ---------------------------------------------------------------------------------------------------------------- KL


def _kl_estimate(logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Any:
    return _who("kl_estimate", logprobs).kl_estimate(logprobs, ref_logprobs, which)


def _kl_estimate_backward(upstream: Tensor, logprobs: Tensor, ref_logprobs: Tensor, which: int) -> Any:
    return _who("kl_estimate", logprobs).kl_estimate_backward(upstream, logprobs, ref_logprobs, which)


_define(
    "kl_estimate(Tensor logprobs, Tensor ref_logprobs, int which) -> Tensor",
    _kl_estimate,
    lambda logprobs, ref_logprobs, which: logprobs.new_empty(
        which.bit_count(), *logprobs.shape, dtype=reference.wide(logprobs, ref_logprobs)
    ),
)
_define(
    "kl_estimate_backward(Tensor upstream, Tensor logprobs, Tensor ref_logprobs, int which) -> Tensor",
    _kl_estimate_backward,
    lambda upstream, logprobs, ref_logprobs, which: upstream.new_empty(logprobs.shape),
)


def _save_kl_estimate(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logprobs, ref_logprobs, ctx.which = inputs
    ctx.save_for_backward(logprobs, ref_logprobs)


def _differentiate_kl_estimate(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    logprobs, ref_logprobs = ctx.saved_tensors
    grad = _ops.kl_estimate_backward(upstream, logprobs, ref_logprobs, ctx.which)
    return grad.to(logprobs.dtype), -grad.to(ref_logprobs.dtype) if ctx.needs_input_grad[1] else None, None


_differentiate("kl_estimate", _save_kl_estimate, _differentiate_kl_estimate)
_no_second_derivative("kl_estimate")


def _kl_divergence(logits: Tensor, ref_logits: Tensor, temperature: float) -> Any:
    return _who("kl_divergence", logits).kl_divergence(logits, ref_logits, temperature)


def _kl_divergence_backward(
    upstream: Tensor, stats: Tensor, logits: Tensor, ref_logits: Tensor, temperature: float, needs: list[bool]
) -> Any:
    return _who("kl_divergence", logits).kl_divergence_backward(upstream, stats, logits, ref_logits, temperature, needs)


_define(
    "kl_divergence(Tensor logits, Tensor ref_logits, float temperature) -> Tensor",
    _kl_divergence,
    lambda logits, ref_logits, temperature: logits.new_empty(
        reference.KL_ROWS, *logits.shape[:-1], dtype=reference.wide(logits, ref_logits)
    ),
)
_define(
    "kl_divergence_backward(Tensor upstream, Tensor stats, Tensor logits, Tensor ref_logits, float temperature,"
    " bool[] needs) -> (Tensor, Tensor)",
    _kl_divergence_backward,
    lambda upstream, stats, logits, ref_logits, temperature, needs: (
        logits.new_empty(logits.shape if needs[0] else 0),
        ref_logits.new_empty(ref_logits.shape if needs[1] else 0),
    ),
)


def _save_kl_divergence(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, ref_logits, ctx.temperature = inputs
    ctx.save_for_backward(output, logits, ref_logits)


def _differentiate_kl_divergence(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:2])
    grads = _ops.kl_divergence_backward(upstream[reference.KL], *ctx.saved_tensors, ctx.temperature, needs)
    return (*(grad if need else None for grad, need in zip(grads, needs)), None)


_differentiate("kl_divergence", _save_kl_divergence, _differentiate_kl_divergence)
_no_second_derivative("kl_divergence")


def _linear_kl_divergence(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    ref_bias: Tensor | None,
    temperature: float,
) -> Any:
    return _who("linear_kl_divergence", hidden).linear_kl_divergence(
        hidden, weight, bias, ref_hidden, ref_weight, ref_bias, temperature
    )


def _linear_kl_divergence_backward(
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
) -> Any:
    return _who("linear_kl_divergence", hidden).linear_kl_divergence_backward(
        upstream, stats, hidden, weight, bias, ref_hidden, ref_weight, ref_bias, temperature, needs
    )


_REF_HEAD = "Tensor ref_hidden, Tensor ref_weight, Tensor? ref_bias"

_define(
    f"linear_kl_divergence({_HEAD}, {_REF_HEAD}, float temperature) -> Tensor",
    _linear_kl_divergence,
    lambda *args: args[0].new_empty(reference.KL_ROWS, *args[0].shape[:-1], dtype=reference.wide(*args[:6])),
)
_define(
    f"linear_kl_divergence_backward(Tensor upstream, Tensor stats, {_HEAD}, {_REF_HEAD},"
    " float temperature, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _linear_kl_divergence_backward,
    lambda upstream, stats, *args: (*_empty_linear(args[0:3], args[-1][:3]), *_empty_linear(args[3:6], args[-1][3:])),
)


def _save_linear_kl_divergence(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.temperature = inputs
    ctx.save_for_backward(output, *tensors)


def _differentiate_linear_kl_divergence(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    needs = list(ctx.needs_input_grad[:6])
    grads = _ops.linear_kl_divergence_backward(upstream[reference.KL], *ctx.saved_tensors, ctx.temperature, needs)
    return (*(grad if need else None for grad, need in zip(grads, needs)), None)


_differentiate("linear_kl_divergence", _save_linear_kl_divergence, _differentiate_linear_kl_divergence)
_no_second_derivative("linear_kl_divergence")
