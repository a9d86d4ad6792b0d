"""The clock, the machine's ceilings, and one row of the table per case and implementation.

Implementations of a case are called in turns, and the best call of each counts, so that a busy machine slows all of them
equally. Results and gradients are compared with float64 before anything is timed.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hookline.kernels import build_info
from hookline.testing.bench.cases import EAGER, Case, Function

__all__ = ["answers", "call", "ceilings", "errors", "machine", "measure", "seconds", "speed", "wrong"]


Row = dict[str, Any]
LEAST_ROUNDS, MOST_ROUNDS, BUDGET = 5, 200, 2.0
"""Each implementation is called at least and at most this often, and for this many seconds if these limits allow it."""


def machine(device: torch.device) -> dict[str, Any]:
    """What a figure depends on, for readers on another machine."""
    info = build_info()
    found = {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "kernels": info["kernels"],
        "compiler": info["compiler"],
        "platform": info["platform"],
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _cpu_name() -> str:
    """The name in /proc/cpuinfo, with family and model because some names are generic, and the number of CPUs."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    pairs = [line.split(":", 1) for line in path.read_text().splitlines() if ":" in line]
    fields = {key.strip(): value.strip() for key, value in reversed(pairs)}
    count = sum(key.strip() == "processor" for key, _ in pairs)
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields:
        name += f", family {fields['cpu family']} model {fields['model']}"
    return f"{count} x {name}"


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """The time of one call. On a GPU the work is queued behind an idle kernel, so that the host's time is not counted."""
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    torch.cuda._sleep(1_000_000)  # type: ignore[no-untyped-call]
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1000


def ceilings(device: torch.device, quick: bool = False) -> dict[str, float]:
    """Bytes per second of reading and of copying (read and written bytes count), operations per second of a product."""
    x = torch.ones(32 << 20, device=device)
    y = torch.empty_like(x)
    side = 8192 if device.type == "cuda" else 1024 if quick else 2048

    def best(work: Callable[[], object]) -> float:
        return min(seconds(work, device) for _ in range(10))

    found = {"read": x.nbytes / best(x.sum), "copy": 2 * x.nbytes / best(lambda: y.copy_(x))}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        fastest = best(lambda a=a, b=b: a @ b)  # type: ignore[misc]
        if own := _own_product(a, b):
            fastest = min(fastest, best(own))
        found[f"gemm {str(dtype).removeprefix('torch.')}"] = 2 * side**3 / fastest
    return found


def _own_product(a: Tensor, b: Tensor) -> Callable[[], object] | None:
    """Our own matrix product, if our kernels use it instead of torch's."""
    from hookline.kernels import cpu, native

    code = cpu._DTYPES[a.dtype]
    if a.is_cuda or native.module is None or not native.module.has_product(code):
        return None
    out = torch.empty(a.shape[0], b.shape[1])
    return lambda: cpu.product(a, b, out)


def measure(
    chosen: Iterable[Case], device: torch.device, found: dict[str, float], budget: float = BUDGET
) -> Iterator[Row]:
    """A row for every implementation of every case: {op, what, shape, dtype, by, error, wrong, ms, bytes, flops, ceiling,
    share, ratio}. `ratio` is eager's time divided by the row's. A case that does not fit into memory gives one row, {…, skipped}.
    """
    for case in chosen:
        try:
            yield from _rows(case, device, found, budget)
        except torch.OutOfMemoryError:
            yield _about(case) | {"by": "-", "skipped": "does not fit into this GPU's memory"}


def _about(case: Case) -> Row:
    return {"op": case.op, "what": case.what, "shape": case.shape, "dtype": str(case.dtype).removeprefix("torch.")}


def _rows(case: Case, device: torch.device, found: dict[str, float], budget: float) -> list[Row]:
    inputs = case.make(device)
    expected = answers(case.exact, case, tuple(x.double() if x.is_floating_point() else x for x in inputs))
    error = {by: errors(answers(function, case, inputs), expected) for by, function in case.run.items()}
    del expected
    best = _best_of_turns({by: call(function, case, inputs) for by, function in case.run.items()}, device, budget)
    return [
        _about(case)
        | {"by": by, "error": max(error[by]), "wrong": wrong(case, error[by]), "ms": best[by] * 1000}
        | {"bytes": case.bytes, "flops": case.flops, "ratio": best[EAGER] / best[by]}
        | speed(case, best[by], found)
        for by in case.run
    ]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Largest difference of the result, and of each gradient as a share of its largest entry."""
    differences = [float((a.double() - e).abs().max()) for a, e in zip(found, expected)]
    scales = [1.0, *(max(float(e.abs().max()), 1e-30) for e in expected[1:])]
    return [difference / scale for difference, scale in zip(differences, scales)]


def wrong(case: Case, error: list[float]) -> bool:
    """Whether the error is larger than promised. NaN counts as wrong."""
    rounding = max(case.tolerance, 2 * torch.finfo(case.dtype).eps)
    return not (error[0] <= case.tolerance and all(e <= rounding for e in error[1:]))


def speed(case: Case, best: float, found: dict[str, float]) -> dict[str, Any]:
    """{ceiling, share}: what limits the case, and the share of this limit that `best` seconds reach."""
    gemm = case.ceiling == "gemm"
    limit = found[f"gemm {str(case.dtype).removeprefix('torch.')}" if gemm else case.ceiling]
    return {"ceiling": case.ceiling, "share": (case.flops if gemm else case.bytes) / best / limit}


def _leaves(case: Case, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in inputs[: case.leaves]]


def answers(function: Function, case: Case, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The result, and the gradients of its sum, detached."""
    leaves = _leaves(case, inputs)
    with torch.set_grad_enabled(bool(leaves)):
        out = function(*leaves, *inputs[case.leaves :])
    grads = torch.autograd.grad(out.sum(), leaves) if leaves else ()
    return [out.detach(), *grads]


def call(function: Function, case: Case, inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """The function that is timed. A gradient is freed before the next call, as in a training loop."""
    leaves, rest = _leaves(case, inputs), inputs[case.leaves :]
    if not leaves:

        def forward() -> object:
            with torch.no_grad():
                return function(*inputs)

        return forward

    def both() -> None:
        torch.autograd.grad(function(*leaves, *rest).sum(), leaves)

    return both


def _best_of_turns(calls: dict[str, Callable[[], object]], device: torch.device, budget: float) -> dict[str, float]:
    """Seconds of the best call of each. Slow implementations get fewer turns, so that quick ones get many."""
    best = {by: seconds(work, device) for by, work in calls.items()}  # also warms up
    spent, turns = dict(best), dict.fromkeys(calls, 1)

    def again(by: str) -> bool:
        return turns[by] < LEAST_ROUNDS or (turns[by] < MOST_ROUNDS and spent[by] < budget)

    while any(again(by) for by in calls):
        for by, work in calls.items():
            if again(by):
                took = seconds(work, device)
                best[by], spent[by], turns[by] = min(best[by], took), spent[by] + took, turns[by] + 1
    return best
