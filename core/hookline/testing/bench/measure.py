"""The clock, the machine's ceilings, and one row of the table per case and implementation.

Implementations of a case are called in turns, so that a busy machine slows all of them equally: the best call of each is its
time, and its ratio to eager is the median over the turns that both took. Results and gradients are compared with float64 before
anything is timed.
"""

from __future__ import annotations

import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hookline.kernels import build_info
from hookline.testing.bench.cases import EAGER, Case, Function

__all__ = ["answers", "call", "ceiling_of", "ceilings", "errors", "machine", "measure", "quantile", "seconds", "shares", "wrong"]


Row = dict[str, Any]
LEAST_ROUNDS, MOST_ROUNDS, BUDGET = 7, 200, 2.0
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
    side = 8192 if device.type == "cuda" else 1024 if quick else 2048
    found = {kind: _memory(kind, 128 << 20, device) for kind in ("read", "copy")}
    for dtype in (torch.float32, torch.bfloat16):
        found[f"gemm {_name(dtype)}"] = _products((side, side, side), dtype, device)
    return found


def ceiling_of(case: Case, device: torch.device, found: dict[str, float]) -> str:
    """The name of the ceiling of a case: memory of its size, which a cache may hold, or products of its shape. One that is not yet
    in `found` is measured and added."""
    if case.ceiling == "gemm":
        general = f"gemm {_name(case.dtype)}"
        name = f"{general} {case.shape}"
        if name not in found:
            rows, depth, columns = map(int, case.shape.split(" x "))
            found[name] = max(found[general], _products((rows, depth, columns), case.dtype, device, 3))
        return name
    size = max(1 << 20, 1 << (case.bytes - 1).bit_length())
    if size >= 128 << 20:
        return case.ceiling
    name = f"{case.ceiling} {size >> 20} MiB"
    if name not in found:
        found[name] = _memory(case.ceiling, size, device)
    return name


def _memory(kind: str, size: int, device: torch.device) -> float:
    """Bytes per second of reading `size` bytes, or of copying, where as many are read and written together."""
    x = torch.ones(size // (4 if kind == "read" else 8), device=device)
    y = torch.empty_like(x)
    return size / _best(x.sum if kind == "read" else lambda: y.copy_(x), device, 10)


def _products(sides: tuple[int, int, int], dtype: torch.dtype, device: torch.device, times: int = 10) -> float:
    """Operations per second of a matrix product, torch's or ours, whichever is faster."""
    rows, depth, columns = sides
    a, b = torch.randn(rows, depth, device=device).to(dtype), torch.randn(columns, depth, device=device).to(dtype).t()
    fastest = _best(lambda: a @ b, device, times)
    if own := _own_product(a, b):
        fastest = min(fastest, _best(own, device, times))
    return 2 * rows * depth * columns / fastest


def _best(work: Callable[[], object], device: torch.device, times: int) -> float:
    return min(seconds(work, device) for _ in range(times))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    """A row for every implementation of every case: {op, what, shape, dtype, by, error, wrong, ms, ms_low, ms_high, bytes, flops,
    ceiling, share, ratio, low, high}.

    `ms` is the best call, `ms_low` and `ms_high` the quartiles of all; `ratio` is eager's time divided by the row's, the median of the
    turns, and `low` and `high` the ends of what the turns gave without the tenth at each end. `found`: the ceilings; those that a case
    needs are added, and a row that is faster than its ceiling raises it. A case that does not fit into memory gives one row, {…,
    skipped}.
    """
    for case in chosen:
        try:
            yield from _rows(case, device, found, budget)
        except torch.OutOfMemoryError:
            yield _about(case) | {"by": "-", "skipped": "does not fit into this GPU's memory"}


def shares(rows: Iterable[Row], found: dict[str, float]) -> None:
    """Set each row's share of its ceiling again: a later row may have raised it."""
    for row in rows:
        if "ceiling" in row:
            row["share"] = row["reached"] / found[row["ceiling"]]


def _about(case: Case) -> Row:
    return {"op": case.op, "what": case.what, "shape": case.shape, "dtype": _name(case.dtype)}


def _rows(case: Case, device: torch.device, found: dict[str, float], budget: float) -> list[Row]:
    inputs = case.make(device)
    expected = answers(case.exact, case, tuple(x.double() if x.is_floating_point() else x for x in inputs))
    error = {by: errors(answers(function, case, inputs), expected) for by, function in case.run.items()}
    del expected
    took = _turns({by: call(function, case, inputs) for by, function in case.run.items()}, device, budget)
    name = ceiling_of(case, device, found)
    work = case.flops if case.ceiling == "gemm" else case.bytes
    reached = {by: work / min(times) for by, times in took.items()}
    found[name] = max(found[name], *reached.values())
    rows: list[Row] = [
        _about(case)
        | {"by": by, "error": max(error[by]), "wrong": wrong(case, error[by]), "ms": min(times) * 1000}
        | {"ms_low": quantile(times, 0.25) * 1000, "ms_high": quantile(times, 0.75) * 1000}
        | {"bytes": case.bytes, "flops": case.flops, "ceiling": name, "reached": reached[by]}
        | _ratio([eager / own for eager, own in zip(took[EAGER], times)])
        for by, times in took.items()
    ]
    shares(rows, found)
    return rows


def _ratio(ratios: list[float]) -> dict[str, float]:
    return {"ratio": quantile(ratios, 0.5), "low": quantile(ratios, 0.1), "high": quantile(ratios, 0.9)}


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values is; of few values, the nearest one further out."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    return statistics.median(ordered) if share == 0.5 else ordered[int(place) if share < 0.5 else math.ceil(place)]


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    """Largest difference of the result, and of each gradient as a share of its largest entry."""
    differences = [float((a.double() - e).abs().max()) for a, e in zip(found, expected)]
    scales = [1.0, *(max(float(e.abs().max()), 1e-30) for e in expected[1:])]
    return [difference / scale for difference, scale in zip(differences, scales)]


def wrong(case: Case, error: list[float]) -> bool:
    """Whether the error is larger than promised. NaN counts as wrong."""
    rounding = max(case.tolerance, 2 * torch.finfo(case.dtype).eps)
    return not (error[0] <= case.tolerance and all(e <= rounding for e in error[1:]))


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


def _turns(calls: dict[str, Callable[[], object]], device: torch.device, budget: float) -> dict[str, list[float]]:
    """Seconds of the calls of each, the first turns of all together. Slow implementations get fewer turns, so that quick ones get
    many."""
    for work in calls.values():
        seconds(work, device)  # warms up
    took: dict[str, list[float]] = {by: [] for by in calls}

    def again(by: str) -> bool:
        turns = len(took[by])
        return turns < LEAST_ROUNDS or (turns < MOST_ROUNDS and sum(took[by]) < budget)

    while any(again(by) for by in calls):
        for by, work in calls.items():
            if again(by):
                took[by].append(seconds(work, device))
    return took
