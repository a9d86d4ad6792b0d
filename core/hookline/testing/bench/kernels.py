"""The measurement of `hookline bench kernels`: every op and its peers, and what became slower than a stored measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hookline.errors import DataError, ExperimentError, NumbersError
from hookline.testing.bench import baseline
from hookline.testing.bench.cases import OURS, Case, cases
from hookline.testing.bench.host import host_costs
from hookline.testing.bench.measure import ceilings, machine, measure, shares

__all__ = ["bench_kernels", "judge_kernels"]

Row = dict[str, Any]


def bench_kernels(
    device: str = "cpu",
    *,
    quick: bool = False,
    compiled: bool = False,
    stored: dict[str, Any] | None = None,
    tell: Callable[[str, Any], None] = lambda event, value: None,
) -> dict[str, Any]:
    """Measure every kernel: {"machine", "device", "quick", "ceilings", "rows", "host"}, see `measure` for a row, `host_costs` for one
    of `host`.

    quick: small shapes, some seconds; compiled: torch.compile of the eager form as well; stored: an earlier measurement;
    kernels that seem slower than in `stored` are measured again. tell(event, value) is called with "machine", "ceilings",
    then for each case "case" with its name, "row" for each of its rows, and "measured", and last "host". Raises ExperimentError and
    DataError before measuring.
    """
    if device not in ("cpu", "cuda"):
        raise ExperimentError(f"--device is '{device}'", "choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("--device cuda: torch finds no GPU here", "run on a machine with a GPU, or omit --device")
    if stored and not {case.name for case in cases(device, quick)} & {baseline.name_of(row) for row in stored["rows"]}:
        raise DataError(
            "the stored measurement has none of these shapes", "compare measurements made with the same options"
        )
    where = torch.device(device)
    found: dict[str, Any] = {"machine": machine(where), "device": device, "quick": quick}
    tell("machine", found["machine"])
    found["ceilings"] = ceilings(where, quick)
    tell("ceilings", found["ceilings"])
    chosen = cases(device, quick, compiled)
    found["rows"] = []
    for case in chosen:
        tell("case", case.name)
        for row in measure([case], where, found["ceilings"], 0.2 if quick else 2.0):
            found["rows"].append(row)
            tell("row", row)
        tell("measured", case.name)
    if stored is not None:
        _again(chosen, where, found, stored)
    shares(found["rows"], found["ceilings"])
    found["host"] = host_costs()
    tell("host", found["host"])
    return found


def _again(chosen: list[Case], device: torch.device, found: dict[str, Any], stored: dict[str, Any]) -> None:
    """Measure cases that seem slower than before twice more: on a busy machine one measurement proves nothing."""
    for _ in range(2):
        slower = {name for name, _, _ in baseline.losses(found["rows"], stored)}
        doubtful = [case for case in chosen if case.name in slower]
        for row in measure(doubtful, device, found["ceilings"]):
            at = next(
                i
                for i, old in enumerate(found["rows"])
                if baseline.name_of(old) == baseline.name_of(row) and old["by"] == row["by"]
            )
            if row.get("ratio", 0) > found["rows"][at]["ratio"]:
                found["rows"][at] = row


def judge_kernels(found: dict[str, Any], stored: dict[str, Any] | None = None) -> list[str]:
    """Lines that describe a measurement, compared with a stored one.

    Raises NumbersError if one of our kernels is wrong, or slower against eager than in the stored measurement, by more than 5 % and
    by more than the turns of either differ.
    """
    rows, here = found["rows"], found["machine"]
    wrong = [baseline.name_of(row) for row in rows if row["by"] == OURS and row.get("wrong")]
    if wrong:
        raise NumbersError(
            f"our kernel differs from float64 by more than it promises: {'; '.join(wrong)}",
            "run with HOOKLINE_KERNELS=reference until the kernel is fixed, and report the difference",
        )
    if stored is None:
        return []
    said = []
    if stored.get("machine") != here:
        changed = [key for key, value in here.items() if stored.get("machine", {}).get(key) != value]
        said.append(f"note: the stored measurement differs in {', '.join(changed)}; this alone may change the ratios")
    lost = baseline.losses(rows, stored)
    if lost:
        told = "; ".join(f"{name}: {then:.2f} → {now:.2f} x eager" for name, then, now in lost)
        raise NumbersError(f"slower than stored by more than 5 %: {told}", "measure again on an idle machine")
    return [*said, "no kernel of ours is more than 5 % slower than stored"]
