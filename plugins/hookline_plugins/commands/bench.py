"""`hookline bench`: measures the speed of the kernels and their effect on a training step."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import hookline
from hookline import Argument, Command, DataError, ExperimentError, Out
from hookline.testing import bench_kernels, bench_update, judge_kernels, stored_kernels
from hookline_plugins.commands import bench_reward, bench_step
from hookline_plugins.report import roofline, step_parts

Row = dict[str, Any]
COLUMNS = ("op", "shape", "dtype", "what", "by", "ms", "spread", "of ceiling", "x eager", "from-to", "error")
HOST_COLUMNS = ("op", "what", "us a call", "empty op", "ratio", "from-to", "first call", "empty op")
UPDATE_COLUMNS = ("vocabulary", "path", "ms a step", "quartiles", "peak MB", "beyond state MB", "logits MB")

STEP_COLUMNS = ("by", "s a step", "spread", "of TRL's", "peak MiB", "reward")
REWARD_COLUMNS = ("by", "seed", "lr", "s to goal", "s in all", "reward")
ONLY = {
    "device": ("kernels", "step", "reward"), "compile": ("kernels",), "baseline": ("kernels",), "save": ("kernels",),
    "peer": ("step", "reward"), "threads": ("step", "reward"), "steps": ("step", "reward"), "seeds": ("reward",), "goal": ("reward",),
}  # fmt: skip
"""Options of some measurements only, and which."""


class Bench(Command):
    """Measure the speed of the kernels, and of whole steps, on this machine.

    `kernels`: compare every kernel with torch eager, the pure reference and installed peers, first for correctness, then for speed.
    `update`: compare the same training step with the fused path and with logits in memory: time, and peak memory of each process.
    `step`: a whole GRPO step, and where its time goes, beside TRL's on the same folder, prompts and reward if --peer names a Python
    that has TRL.
    `reward`: how long both take to the same reward, at the learning rate of eight that is TRL's best, with seeds in pairs.
    """

    class Config(hookline.Config):
        what: Annotated[Literal["kernels", "update", "step", "reward"], Argument("WHAT")]
        """kernels, update, step or reward."""
        device: Literal["cpu", "cuda"] = "cpu"
        """kernels, step, reward: cpu or cuda."""
        quick: bool = False
        """Use small shapes for a few seconds: checks that it works, does not measure speed."""
        compile: bool = False
        """kernels: also measure torch.compile of the eager form."""
        out: Path | None = None
        """Folder for kernels.json and roofline.png, for update.json, or for step.json and step.png."""
        baseline: Path | None = None
        """kernels: compare with a stored measurement; exit code 6 if ours became slower relative to eager, by over 5 % and beyond the
        spread of both."""
        save: Path | None = None
        """kernels: store this measurement in a file."""
        peer: str | None = None
        """step, reward: a Python with trl and datasets, e.g. .venv-peers/bin/python."""
        threads: int = Field(2, ge=1)
        """step, reward: threads of each process."""
        steps: int | None = Field(None, ge=3)
        """step, reward: steps of each; `step` does not count the first two. Default: 10, with --quick 4; for `reward` 40 and 6."""
        seeds: int = Field(3, ge=1)
        """reward: seeds with which both are run."""
        goal: float | None = None
        """reward: the reward to reach, in letters e per answer. Default: three quarters of what TRL's best rate gains."""

    has_json = False

    def run(self, out: Out) -> int:
        config = self.config
        for name, of in ONLY.items():
            if getattr(config, name) != type(config).model_fields[name].default and config.what not in of:
                raise ExperimentError(
                    f"--{name} is an option of `bench {_listed(of)}`", f"leave it out for `bench {config.what}`"
                )
        measure = {"kernels": self._kernels, "update": self._update, "step": self._step, "reward": self._reward}
        measure[config.what](out)
        return 0

    def _step(self, out: Out) -> None:
        config = self.config
        if config.out is not None:
            _make_room(config.out / "step.json")
        work = self._work(10, bench_step.QUICK["steps"])
        out.text("  ".join(f"{column:>10}" for column in STEP_COLUMNS))

        def told(row: Row) -> None:
            ratio = f"{row['ratio']:.2f}" if config.peer else ""
            cells = (row["by"], f"{row['s']:.3f}", f"{row['spread']:.0%}", ratio, f"{row['peak_mb']:.0f}", f"{row['reward'][-1]:.2f}")
            out.text("  ".join(f"{cell:>10}" for cell in cells))
            if "parts" in row:
                out.text("parts, s: " + "  ".join(f"{part} {value:.3f}" for part, value in row["parts"].items()))

        found = bench_step.measure(work, config.peer, told)
        if config.out is not None:
            (config.out / "step.json").write_text(json.dumps(found, indent=1) + "\n")
            out.text(f"written: {config.out / 'step.json'}")
            out.text(step_parts.write(found["rows"], found["machine"], config.out / "step.png"))

    def _work(self, steps: int, quick_steps: int) -> bench_step.Workload:
        config = self.config
        chosen: dict[str, Any] = dict(bench_step.QUICK) if config.quick else {}
        chosen["steps"] = config.steps or (quick_steps if config.quick else steps)
        dtype = "bfloat16" if config.device == "cuda" else "float32"
        return bench_step.Workload(threads=config.threads, device=config.device, dtype=dtype, **chosen)

    def _reward(self, out: Out) -> None:
        config = self.config
        if config.out is not None:
            _make_room(config.out / "reward.json")
        out.text("  ".join(f"{column:>10}" for column in REWARD_COLUMNS))

        def told(row: Row) -> None:
            reached = "not" if row["to_goal"] is None else f"{row['to_goal']:.1f}"
            cells = (row["by"], str(row["seed"]), f"{row['lr']:g}", reached, f"{sum(row['seconds']):.1f}", f"{row['reward'][-1]:.2f}")
            out.text("  ".join(f"{cell:>10}" for cell in cells))

        found = bench_reward.measure(self._work(40, 6), config.peer, config.seeds, config.goal, told)
        out.text(f"goal: {found['goal']:.2f}, as the mean of five steps")
        if found["ratios"]:
            out.text("of TRL's time: " + "  ".join(f"{ratio:.2f}" for ratio in found["ratios"]))
        if config.out is not None:
            (config.out / "reward.json").write_text(json.dumps(found, indent=1) + "\n")
            out.text(f"written: {config.out / 'reward.json'}")

    def _kernels(self, out: Out) -> None:
        config = self.config
        stored = stored_kernels(config.baseline) if config.baseline else None
        writes = [path for path in (config.save, config.out and config.out / "kernels.json") if path]
        for path in writes:
            _make_room(path)
        with _shown(out) as told:
            found = bench_kernels(config.device, quick=config.quick, compiled=config.compile, stored=stored, tell=told)
        for path in writes:
            path.write_text(json.dumps(found, indent=1) + "\n")
            out.text(f"written: {path}")
        if config.out is not None:
            out.text(roofline.write(found, config.out / "roofline.png"))
        for text in judge_kernels(found, stored):
            out.text(text)

    def _update(self, out: Out) -> None:
        config = self.config
        if config.out is not None:
            _make_room(config.out / "update.json")

        def told(event: str, value: Any) -> None:
            if event == "machine":
                out.text(_pairs(value))
                out.text("  ".join(f"{column:>15}" for column in UPDATE_COLUMNS))
            elif event == "row":
                figures = (f"{value[key]:.0f}" for key in ("peak_mb", "beyond_mb", "logits_mb"))
                times = (f"{value['ms']:.0f}", f"{value['ms_low']:.0f}-{value['ms_high']:.0f}")
                out.text("  ".join(f"{cell:>15}" for cell in (str(value["vocabulary"]), value["path"], *times, *figures)))

        found = bench_update(config.quick, tell=told)
        for text in _slower(found["rows"]):
            out.text(text)
        out.text("beyond state: memory apart from that in use before the first step, gradients and AdamW's moments")
        if config.out is not None:
            (config.out / "update.json").write_text(json.dumps(found, indent=1) + "\n")
            out.text(f"written: {config.out / 'update.json'}")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _slower(rows: list[Row]) -> Iterator[str]:
    """Where the fused path is the slower one, beyond the spread of the steps."""
    pairs = {(row["vocabulary"], row["path"]): row for row in rows}
    for (vocabulary, path), row in pairs.items():
        other = pairs.get((vocabulary, "materialised"))
        if path == "fused" and other and row["ms_low"] > other["ms_high"]:
            yield (
                f"with a vocabulary of {vocabulary} the fused path takes {row['ms'] / other['ms']:.2f} times as long, and "
                f"{other['peak_mb'] - row['peak_mb']:.0f} MB less"
            )


def _make_room(path: Path) -> None:
    """Create the folder and check that the file can be written, before minutes of measuring."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a"):
            pass
    except OSError as err:
        raise DataError(f"{path} cannot be written ({err.strerror})", "choose another place") from None


def _pairs(machine: dict[str, Any]) -> str:
    return "  ".join(f"{key}: {value}" for key, value in machine.items())


def _ceiling(name: str, value: float) -> str:
    return f"{name} {value / 1e9:.0f} {'GFLOP/s' if name.startswith('gemm') else 'GB/s'}"


def _cells(row: Row) -> tuple[str, ...]:
    about = tuple(str(row[key]) for key in ("op", "shape", "dtype", "what", "by"))
    if "skipped" in row:
        return (*about, *[""] * 5, row["skipped"])
    products = row["ceiling"].startswith("gemm")
    share = f"{row['share']:.0%} {'gemm' if products else row['ceiling']}"
    error = f"{row['error']:.0e}{' !' if row['wrong'] else ''}"
    spread = f"{row['ms_low']:.3g}-{row['ms_high']:.3g}"
    return (*about, f"{row['ms']:.3f}", spread, share, f"{row['ratio']:.2f}", f"{row['low']:.2f}-{row['high']:.2f}", error)


def _host(rows: list[Row]) -> Iterator[str]:
    """What calls cost the host, beside empty ops."""
    yield "host: microseconds of a call on a few numbers, beside an empty op of the same schema"
    table = [HOST_COLUMNS]
    for row in rows:
        times = (f"{row[key]:.1f}" for key in ("us", "empty_us"))
        ratio = (f"{row['ratio']:.2f}", f"{row['low']:.2f}-{row['high']:.2f}")
        firsts = (f"{row[key]:.0f}" for key in ("first_us", "empty_first_us"))
        table.append((row["op"], row["what"], *times, *ratio, *firsts))
    yield from ("  ".join(f"{cell:11}" for cell in line).rstrip() for line in table)


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, (20, 19, 8, 15, 9, 9, 13, 16, 8, 13, 0))).rstrip()


@contextlib.contextmanager
def _shown(out: Out) -> Iterator[Callable[[str, Any], None]]:
    """Shows a measurement as it progresses: a table on a terminal, otherwise a line per row."""
    on_terminal = _on_terminal() if sys.stdout.isatty() else None

    def told(event: str, value: Any) -> None:
        if event == "machine":
            out.text(_pairs(value))
        elif event == "ceilings":
            out.text("ceilings: " + ", ".join(_ceiling(name, each) for name, each in value.items()))
            if not on_terminal:
                out.text(_line(COLUMNS))
        elif event == "host":
            for line in _host(value):
                out.text(line)
        elif on_terminal:
            on_terminal.send((event, value))
        elif event == "row":
            out.text(_line(_cells(value)))

    try:
        if on_terminal:
            next(on_terminal)
        yield told
    finally:
        if on_terminal:
            on_terminal.close()


def _on_terminal() -> Generator[None, tuple[str, Any], None]:
    """Receives events and shows one table per case, and the current measurement."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    told = "best call of each and quartiles of all, in turns; x eager: the median turn, and most turns; ! = beyond the promised error"
    console.print(told, style="dim")
    first = True
    while True:
        _, name = yield
        table = Table(box=None, show_header=first, title=name, title_justify="left", title_style="bold")
        first = False
        for column, width in zip(COLUMNS[4:], (9, 8, 11, 14, 7, 10, 7)):
            table.add_column(column, width=width, justify="left" if column == "by" else "right")
        with console.status(f"measuring {name}"):
            while (event := (yield))[0] == "row":
                row = event[1]
                table.add_row(*_cells(row)[4:], style="green" if row["by"] == "ours" else None)
        console.print(table)
