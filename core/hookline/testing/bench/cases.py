"""Every op on shapes of real runs: our kernel, its reference in torch, the plain torch form (eager), and peers.

Sizes follow real training: V = 32 000 (Llama 2), 151 936 (Qwen). The CPU sizes are smaller, and the `quick` sizes only
show that everything works. Everything that an implementation returns is compared with float64 before it is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hookline.kernels import (
    backend,
    gae,
    kl_divergence,
    kl_estimate,
    linear_kl_divergence,
    linear_token_stats,
    token_stats,
)

__all__ = ["Case", "cases"]


Function = Callable[..., Tensor]
OURS, REFERENCE, EAGER, COMPILED = "ours", "reference", "eager", "compile"


@dataclass(frozen=True)
class Case:
    """One op on one shape. `run` and `exact` take what `make` returns, and return one tensor."""

    op: str
    what: str
    """`fwd` or `fwd+bwd`, and what is special about the case."""
    shape: str
    dtype: torch.dtype
    make: Callable[[torch.device], tuple[Tensor, ...]]
    run: dict[str, Function]
    exact: Function
    bytes: int
    """Bytes that must move between memory and the cores: each input read once, each result written once, and what a backward
    pass must read again."""
    flops: int
    """Operations of the products that there must be (what computes logits twice takes more time for them); else, for the roofline
    figure, 8 per logit, 4 per token and estimator, 10 per step of gae."""
    leaves: int = 0
    """How many leading inputs get a gradient."""
    tolerance: float = 1e-4
    """Largest allowed difference from float64 in the result; in gradients, the same share of the largest entry, or the
    rounding of the dtype."""

    @property
    def name(self) -> str:
        return f"{self.op} {self.what} {self.shape} {str(self.dtype).removeprefix('torch.')}"

    @property
    def ceiling(self) -> str:
        """What limits the case: `gemm` (products), `read`, or `copy` (if a relevant amount is written)."""
        if self.op.startswith("linear"):
            return "gemm"
        return "copy" if self.leaves or self.op == "gae" else "read"


def cases(device: str, quick: bool = False, compiled: bool = False) -> list[Case]:
    """All cases for `cpu` or `cuda`. `compiled`: adds torch.compile of the eager form, which takes long to compile."""
    found = [*_token_stats(device, quick), *_linear(device, quick), *_gae(device, quick), *_kl(device, quick)]
    return [_with_compiled(case) for case in found] if compiled else found


def _with_compiled(case: Case) -> Case:
    if case.op == "gae":  # unrolls the loop over T
        return case
    compiled: Function = torch.compile(case.run[EAGER], fullgraph=True)
    return Case(**{**vars(case), "run": {**case.run, COMPILED: compiled}})


def _by_reference(function: Function) -> Function:
    def run(*inputs: Tensor) -> Tensor:
        with backend("reference"):
            return function(*inputs)

    return run


def _peer(module: str, attribute: str) -> Any:
    """A function of an installed package, or None."""
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception:  # not installed, or cannot be imported here
        return None


def _seeded(make: Callable[[torch.Generator, torch.device], tuple[Tensor, ...]]) -> Callable[[torch.device], Any]:
    return lambda device: make(torch.Generator(device).manual_seed(0), device)


def eager_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide, -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def eager_with_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    logp = torch.log_softmax(wide, -1)
    return logp.gather(-1, ids.unsqueeze(-1)).squeeze(-1) - (logp.exp() * logp).sum(-1)


def our_logprobs(grad: str = "new") -> Function:
    def run(logits: Tensor, ids: Tensor) -> Tensor:
        return token_stats(logits, ids, grad=grad)["logprobs"]

    return run


def our_with_entropy(logits: Tensor, ids: Tensor) -> Tensor:
    stats = token_stats(logits, ids, want=("logprobs", "entropy"))
    return stats["logprobs"] + stats["entropy"]


def _token_stats(device: str, quick: bool) -> Iterator[Case]:
    shapes = [(1024, 32_000), (256, 151_936)]
    if device == "cuda":
        shapes = [(16_384, 32_000), (8192, 151_936)]
    if quick:
        shapes = [(64, 8000)]
    trl = _peer("trl.trainer.utils", "selective_log_softmax")
    for rows, vocabulary in shapes:
        for dtype in (torch.float32, torch.bfloat16):
            element = dtype.itemsize

            def make(generator: torch.Generator, device: torch.device, s: Any = (rows, vocabulary, dtype)) -> Any:
                rows, vocabulary, dtype = s
                logits = torch.randn(rows, vocabulary, generator=generator, device=device).to(dtype)
                return logits, torch.randint(vocabulary, (rows,), generator=generator, device=device)

            size = rows * vocabulary
            shape = f"[{rows}, {vocabulary}]"
            for what, ours, eager in (
                ("fwd", our_logprobs(), eager_logprobs),
                ("fwd, entropy", our_with_entropy, eager_with_entropy),
            ):
                run: dict[str, Function] = {EAGER: eager, OURS: ours, REFERENCE: _by_reference(ours)}
                if what == "fwd" and trl:
                    run["trl"] = trl
                yield Case("token_stats", what, shape, dtype, _seeded(make), run, eager, size * element, 8 * size)
            if device == "cpu" and dtype != torch.float32 and not quick:
                continue
            for grad in ("new", "pooled"):
                run = {EAGER: eager_logprobs, OURS: our_logprobs(grad), REFERENCE: _by_reference(our_logprobs())}
                if trl and grad == "new":
                    run["trl"] = trl
                what = "fwd+bwd" if grad == "new" else f"fwd+bwd, {grad}"
                moved, operations = 3 * size * element, 16 * size
                yield Case(
                    "token_stats", what, shape, dtype, _seeded(make), run, eager_logprobs, moved, operations, leaves=1
                )


def eager_linear(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    return eager_logprobs(hidden @ weight.T, ids)


def our_linear(hidden: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
    return linear_token_stats(hidden, weight, ids)["logprobs"]


def eager_linear_kl(hidden: Tensor, weight: Tensor, ref_hidden: Tensor, ref_weight: Tensor) -> Tensor:
    return eager_kl(hidden @ weight.T, ref_hidden @ ref_weight.T)


def _linear(device: str, quick: bool) -> Iterator[Case]:
    tokens, width, vocabulary = (4096, 4096, 151_936) if device == "cuda" else (512, 1024, 32_000)
    if quick:
        tokens, width, vocabulary = 64, 128, 4000
    shape = f"{tokens} x {width} x {vocabulary}"
    for dtype in (torch.float32, torch.bfloat16):

        def make(generator: torch.Generator, device: torch.device, dtype: torch.dtype = dtype) -> tuple[Tensor, ...]:
            hidden = torch.randn(tokens, width, generator=generator, device=device).to(dtype)
            weight = (torch.randn(vocabulary, width, generator=generator, device=device) / width**0.5).to(dtype)
            return hidden, weight, torch.randint(vocabulary, (tokens,), generator=generator, device=device)

        def make_two(generator: torch.Generator, device: torch.device, make: Any = make) -> tuple[Tensor, ...]:
            return (*make(generator, device)[:2], *make(generator, device)[:2])

        product, element = 2 * tokens * width * vocabulary, dtype.itemsize
        inputs = (vocabulary + tokens) * width * element
        run: dict[str, Function] = {EAGER: eager_linear, OURS: our_linear, REFERENCE: _by_reference(our_linear)}
        for what, leaves, moved, products in (("fwd", 0, inputs, 1), ("fwd+bwd", 2, 3 * inputs, 3)):
            yield Case(
                "linear_token_stats",
                what,
                shape,
                dtype,
                _seeded(make),
                run,
                eager_linear,
                moved,
                products * product,
                leaves,
            )
        run = {EAGER: eager_linear_kl, OURS: linear_kl_divergence, REFERENCE: _by_reference(linear_kl_divergence)}
        yield Case(
            "linear_kl_divergence",
            "fwd+bwd",
            shape,
            dtype,
            _seeded(make_two),
            run,
            eager_linear_kl,
            5 * inputs,
            6 * product,
            leaves=2,
        )


def loop_gae(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The loop over T that frameworks ship: verl's recurrence."""
    m = mask.to(values.dtype)
    next_value = carry = torch.zeros_like(values[:, 0])
    advantages = []
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + 0.99 * next_value - values[:, t]
        next_value = values[:, t] * m[:, t] + (1 - m[:, t]) * next_value
        carry = (delta + 0.99 * 0.95 * carry) * m[:, t] + (1 - m[:, t]) * carry
        advantages.append(carry)
    return torch.stack(advantages[::-1], 1) * m


def our_gae(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    return gae(rewards, values, mask=mask, gamma=0.99, lam=0.95)[0]


def _numba_gae() -> Function | None:
    """The same recurrence, compiled by numba row by row."""
    njit, prange = _peer("numba", "njit"), _peer("numba", "prange")
    if njit is None:
        return None

    @njit(parallel=True, fastmath=False)  # type: ignore[untyped-decorator]
    def rows(rewards: Any, values: Any, mask: Any, out: Any) -> None:
        for i in prange(rewards.shape[0]):
            carry = next_value = 0.0
            for t in range(rewards.shape[1] - 1, -1, -1):
                if mask[i, t]:
                    carry = rewards[i, t] + 0.99 * next_value - values[i, t] + 0.99 * 0.95 * carry
                    next_value = values[i, t]
                    out[i, t] = carry
                else:
                    out[i, t] = 0.0

    def run(rewards: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        out = torch.empty_like(rewards)
        rows(rewards.numpy(), values.numpy(), mask.numpy(), out.numpy())
        return out

    return run


def _gae(device: str, quick: bool) -> Iterator[Case]:
    shapes = [(256, 1024), (8, 16_384), (4096, 1024)]
    if device == "cuda":
        shapes = [(8, 131_072), (64, 16_384), (1024, 1024), (16_384, 64), (8192, 2048)]
    if quick:
        shapes = [(32, 256)]
    numba = _numba_gae() if device == "cpu" else None
    for rows, steps in shapes:

        def make(generator: torch.Generator, device: torch.device, s: Any = (rows, steps)) -> tuple[Tensor, ...]:
            rows, steps = s
            rewards, values = torch.randn(2, rows, steps, generator=generator, device=device)
            lengths = torch.randint(steps // 2, steps + 1, (rows, 1), generator=generator, device=device)
            return rewards, values, torch.arange(steps, device=device) < lengths

        run: dict[str, Function] = {EAGER: loop_gae, OURS: our_gae}
        if numba:
            run["numba"] = numba
        size = rows * steps
        yield Case(
            "gae", "fwd", f"[{rows}, {steps}]", torch.float32, _seeded(make), run, loop_gae, 17 * size, 10 * size
        )


def eager_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    wide = (x if x.dtype == torch.float64 else x.float() for x in (logits, ref_logits))
    log_p, log_q = (torch.log_softmax(x, -1) for x in wide)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def eager_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    r = ref_logprobs - logprobs
    return torch.exp(r) - 1 - r


def _kl(device: str, quick: bool) -> Iterator[Case]:
    rows, vocabulary = (4096, 151_936) if device == "cuda" else (512, 32_000)
    tokens = 1 << 20
    if quick:
        rows, vocabulary, tokens = 32, 8000, 1 << 14

    def make(generator: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
        p, q = (torch.randn(rows, vocabulary, generator=generator, device=device) for _ in range(2))
        return (p, q) if device.type == "cpu" else (p.bfloat16(), q.bfloat16())

    def make_tokens(generator: torch.Generator, device: torch.device) -> tuple[Tensor, ...]:
        p, apart = torch.randn(2, tokens, generator=generator, device=device)
        return p - 2, p - 2 + 0.3 * apart

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    run: dict[str, Function] = {EAGER: eager_kl, OURS: kl_divergence, REFERENCE: _by_reference(kl_divergence)}
    size, shape = rows * vocabulary, f"[{rows}, {vocabulary}]"
    for what, leaves, passes in (("fwd", 0, 2), ("fwd+bwd", 2, 6)):
        moved, operations = passes * size * dtype.itemsize, (16 if leaves == 0 else 32) * size
        yield Case("kl_divergence", what, shape, dtype, _seeded(make), run, eager_kl, moved, operations, leaves)
    run = {EAGER: eager_k3, OURS: kl_estimate, REFERENCE: _by_reference(kl_estimate)}
    yield Case(
        "kl_estimate",
        "fwd, k3",
        f"[{tokens}]",
        torch.float32,
        _seeded(make_tokens),
        run,
        eager_k3,
        12 * tokens,
        4 * tokens,
    )
