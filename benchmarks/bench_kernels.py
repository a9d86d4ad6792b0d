"""Every kernel beside torch eager, the pure reference, torch.compile and installed peers, under pytest-benchmark.

    make bench ARGS="benchmarks/bench_kernels.py -k 'gae and not compile'"

The cases are those of `hookline bench kernels`, which prints one table of them, compares with benchmarks/baseline-cpu.json and
draws a roofline; this is for pytest-benchmark's own tools (histograms, --benchmark-compare). Each row first asserts that its result
is float64's, within what it promises; eager bfloat16 products are not, and say so in `extra_info`.
"""

from __future__ import annotations

import pytest
import torch

from hookline.kernels import build_info
from hookline.testing.bench.cases import OURS, REFERENCE, cases
from hookline.testing.bench.measure import answers, call, ceiling_of, ceilings, errors, wrong

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
ROWS = [
    pytest.param(device, case, by, id=f"{device}-{case.name}-{by}".replace(" ", "_"))
    for device in DEVICES
    for case in cases(device, compiled=True)
    for by in case.run
]


@pytest.fixture(scope="module")
def limits() -> dict[str, dict[str, float]]:
    return {device: ceilings(torch.device(device)) for device in DEVICES}


@pytest.mark.parametrize(("device", "case", "by"), ROWS)
def bench_kernel(benchmark, limits, device, case, by):
    where = torch.device(device)
    inputs, function = case.make(where), case.run[by]
    exact = answers(case.exact, case, tuple(x.double() if x.is_floating_point() else x for x in inputs))
    error = errors(answers(function, case, inputs), exact)
    del exact
    assert by not in (OURS, REFERENCE) or not wrong(case, error), error
    timed = call(function, case, inputs)

    def until_done():
        timed()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"{device} {case.name}"
    benchmark.pedantic(until_done, rounds=7, warmup_rounds=1)
    name, work = ceiling_of(case, where, limits[device]), case.flops if case.ceiling == "gemm" else case.bytes
    benchmark.extra_info |= {
        "kernels": build_info()["kernels"],
        "threads": torch.get_num_threads(),
        "bytes": case.bytes,
        "error": max(error),
        "beyond_promise": wrong(case, error),
        "ceiling": name,
        "share": work / benchmark.stats.stats.min / limits[device][name],
    }
