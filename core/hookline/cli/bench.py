"""`hookline bench`: how fast the kernels are here, and what they save a training step."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch

from hookline.errors import DataError, ExperimentError, NumbersError
from hookline.testing.bench import baseline, update
from hookline.testing.bench.cases import OURS, Case, cases
from hookline.testing.bench.measure import ceilings, machine, measure

__all__ = ["bench_kernels", "bench_update"]

Row = dict[str, Any]


def bench_kernels(
    device: str, quick: bool, compiled: bool, out: Path | None, baseline_file: Path | None, save: Path | None
) -> None:
    """Measure, print, write. Raises NumbersError where a kernel of ours is wrong or lost speed."""
    if device not in ("cpu", "cuda"):
        raise ExperimentError(f"--device is '{device}'", "choose cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ExperimentError("--device cuda: torch finds no GPU here", "run it where one is, or leave --device out")
    stored = baseline.read(baseline_file) if baseline_file else None
    writes = [path for path in (save, out and out / "kernels.json") if path]
    for path in writes:
        _make_room(path)
    if stored and not {case.name for case in cases(device, quick)} & {baseline.name_of(row) for row in stored["rows"]}:
        raise DataError(f"{baseline_file} has none of these shapes", "compare what was measured with the same options")
    where = torch.device(device)
    found: dict[str, Any] = {"machine": machine(where), "device": device, "quick": quick}
    print("  ".join(f"{key}: {value}" for key, value in found["machine"].items()))
    found["ceilings"] = ceilings(where, quick)
    print("ceilings: " + ", ".join(_ceiling(name, value) for name, value in found["ceilings"].items()))
    chosen = cases(device, quick, compiled)
    found["rows"] = _shown(chosen, where, found["ceilings"], 0.2 if quick else 2.0)
    if stored is not None:
        _again(chosen, where, found, stored)
    for path in writes:
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(f"written: {path}")
    if out is not None:
        print(_figure(found, out / "roofline.png"))
    _judge(found["rows"], stored, found["machine"])


def _make_room(path: Path) -> None:
    """Before minutes of measuring: the folder is there, and the file can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as err:
        raise DataError(f"{path} cannot be written ({err.strerror})", "choose another place") from None


def _ceiling(name: str, value: float) -> str:
    return f"{name} {value / 1e9:.0f} {'GFLOP/s' if name.startswith('gemm') else 'GB/s'}"


COLUMNS = ("op", "shape", "dtype", "what", "by", "ms", "of ceiling", "x eager", "error")


def _cells(row: Row) -> tuple[str, ...]:
    about = tuple(str(row[key]) for key in ("op", "shape", "dtype", "what", "by"))
    if "skipped" in row:
        return (*about, "", "", "", row["skipped"])
    share = f"{row['share']:.0%} {row['ceiling']}"
    return (
        *about,
        f"{row['ms']:.3f}",
        share,
        f"{row['ratio']:.2f}",
        f"{row['error']:.0e}{' !' if row['wrong'] else ''}",
    )


def _shown(chosen: list[Case], device: torch.device, limits: dict[str, float], budget: float) -> list[Row]:
    """Measure; a table on a terminal, elsewhere a line per row as it comes."""
    rows: list[Row] = []
    if not sys.stdout.isatty():
        print(_line(COLUMNS))
        for row in measure(chosen, device, limits, budget):
            rows.append(row)
            print(_line(_cells(row)), flush=True)
        return rows
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("best call of each, taken in turns; ! = beyond the promised error", style="dim")
    for case in chosen:
        with console.status(f"measuring {case.name}"):
            mine = list(measure([case], device, limits, budget))
        table = Table(
            box=None, show_header=case is chosen[0], title=case.name, title_justify="left", title_style="bold"
        )
        for column, width in zip(COLUMNS[4:], (10, 10, 12, 10, 12)):
            table.add_column(column, width=width, justify="left" if column == "by" else "right")
        for row in mine:
            table.add_row(*_cells(row)[4:], style="green" if row["by"] == OURS else None)
        console.print(table)
        rows += mine
    return rows


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, (20, 19, 8, 15, 9, 9, 10, 8, 0))).rstrip()


def _again(chosen: list[Case], device: torch.device, found: dict[str, Any], stored: dict[str, Any]) -> None:
    """What seems slower than before is measured twice more: on a busy machine one measurement proves nothing."""
    for _ in range(2):
        slower = {name for name, _, _ in baseline.losses(found["rows"], stored)}
        doubtful = [case for case in chosen if case.name in slower]
        for row in measure(doubtful, device, found["ceilings"]):
            at = next(
                i
                for i, old in enumerate(found["rows"])
                if baseline.name_of(old) == baseline.name_of(row) and old["by"] == row["by"]
            )
            if row["ratio"] > found["rows"][at]["ratio"]:
                found["rows"][at] = row


def _judge(rows: list[Row], stored: dict[str, Any] | None, here: dict[str, Any]) -> None:
    wrong = [baseline.name_of(row) for row in rows if row["by"] == OURS and row.get("wrong")]
    if wrong:
        raise NumbersError(
            f"our kernel differs from float64 by more than it promises: {'; '.join(wrong)}",
            "run with HOOKLINE_KERNELS=reference until it is mended, and tell us",
        )
    if stored is None:
        return
    if stored.get("machine") != here:
        changed = [key for key, value in here.items() if stored.get("machine", {}).get(key) != value]
        print(f"note: the stored measurement differs in {', '.join(changed)}; ratios may differ for that alone")
    lost = baseline.losses(rows, stored)
    if lost:
        told = "; ".join(f"{name}: {then:.2f} → {now:.2f} x eager" for name, then, now in lost)
        raise NumbersError(f"slower than stored by more than 5 %: {told}", "measure again on an idle machine")
    print("no kernel of ours is more than 5 % slower than stored")


def _figure(found: dict[str, Any], path: Path) -> str:
    """A roofline: speed over operations per byte, below what memory and products allow."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no figure: matplotlib is not installed (pip install 'hookline[report]')"
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in found["rows"] if "skipped" not in row]
    figure, axes = plt.subplots(figsize=(9, 5.5))
    intensity = [row["flops"] / row["bytes"] for row in rows]
    ends = [min(intensity) / 2, max(intensity) * 2]
    many = [ends[0] * (ends[1] / ends[0]) ** (i / 200) for i in range(201)]
    limits = found["ceilings"]
    for name, style in (("gemm float32", "-"), ("gemm bfloat16", "--")):
        roof = [min(limits["read"] * x, limits[name]) / 1e9 for x in many]
        axes.plot(many, roof, style, color="0.4", lw=1, label=f"read speed and {name.removeprefix('gemm ')} products")
    for by, marker in (("eager", "o"), ("compile", "s"), (OURS, "*")):
        own = [i for i, row in enumerate(rows) if row["by"] == by]
        if own:
            speed = [rows[i]["flops"] / rows[i]["ms"] / 1e6 for i in own]
            axes.plot([intensity[i] for i in own], speed, marker, ms=11 if by == OURS else 6, ls="none", label=by)
    axes.set(xscale="log", yscale="log", xlabel="operations per byte", ylabel="10⁹ operations per second")
    axes.set_title(found["machine"].get("gpu", found["machine"]["cpu"]), fontsize=9)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return f"written: {path}"


UPDATE_COLUMNS = ("vocabulary", "path", "ms a step", "peak MB", "beyond state MB", "logits MB")


def bench_update(quick: bool, out: Path | None) -> None:
    """The same update with the fused path and with logits in memory, in processes of their own."""
    if out is not None:
        _make_room(out / "update.json")
    found: dict[str, Any] = {"machine": machine(torch.device("cpu")), "quick": quick, "rows": []}
    print("  ".join(f"{key}: {value}" for key, value in found["machine"].items()))
    print("  ".join(f"{column:>15}" for column in UPDATE_COLUMNS))
    for row in update.measure(quick):
        found["rows"].append(row)
        figures = (f"{row[key]:.0f}" for key in ("ms", "peak_mb", "beyond_mb", "logits_mb"))
        print("  ".join(f"{cell:>15}" for cell in (str(row["vocabulary"]), row["path"], *figures)), flush=True)
    print("beyond state: what is neither there before the first step, nor gradients or AdamW's moments")
    if out is not None:
        (out / "update.json").write_text(json.dumps(found, indent=1) + "\n")
        print(f"written: {out / 'update.json'}")
