"""Compares every algorithm with an exact answer: trains each row of proof.yaml on its seeds and writes the table in docs/proof.md.

    make proof                    every row, three seeds or more; under half an hour on two cores
    make proof ARGS=--quick       one seed of the rows marked quick, under two minutes
    make proof ARGS='--only grpo' the rows whose name contains a word

Runs are stored under runs/proof and are resumed, not repeated. A row holds when its figure, averaged over seeds, agrees with
the exact answer, and no seed is above the frontier.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ABOVE = -1e-5
"""A gap to the frontier below this means a policy better than the best possible one, which is a bug."""


LOW = "eval/low"
"""The lower end of the 95 % interval of a rank correlation."""


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table: an experiment, what is changed in it, which figure is looked at and where it should be."""

    name: str
    group: str
    experiment: str
    figure: str
    exact: float | str
    """The exact answer beside which the figure stands."""
    holds: str
    """What must be true of `x`, the figure's mean over seeds, e.g. `x >= 0.98` or `abs(x - 0.9749) <= 0.02`."""
    set: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 3
    quick: bool = False
    also: str = ""
    """A second figure to show."""


@dataclass
class Outcome:
    """What one seed of a row came to."""

    figure: float
    also: float | None
    gap: float | None
    seconds: float


def rows() -> list[Row]:
    """The rows of proof.yaml; a group's settings stand in front of each row's own."""
    found = []
    for group in yaml.safe_load((HERE / "proof.yaml").read_text(encoding="utf-8")):
        shared = {key: value for key, value in group.items() if key not in ("group", "rows", "set")}
        for row in group["rows"]:
            merged = {**shared, **row, "set": {**group.get("set", {}), **row.get("set", {})}}
            found.append(Row(group=group["group"], **merged))
    return found


def overrides(row: Row, seed: int, graph: int | None) -> tuple[dict[str, Any], list[str]]:
    """(the experiment as a mapping, its overrides) of one seed; on another graph of the walks where one is asked for."""
    from hookline.config import yaml

    experiment = dict(yaml.read(ROOT / "examples" / "exact" / row.experiment).values) | {
        "trackers": [],
        "device": "cpu",
    }
    settings = dict(row.set)
    if graph is not None:
        experiment, settings = (
            json.loads(re.sub(r"builtin:walks(/\w+)?", rf"\g<0>?seed={graph}", json.dumps(part)))
            for part in (experiment, settings)
        )
    return experiment, [f"seed={seed}", *(f"{key}={json.dumps(value)}" for key, value in settings.items())]


def train(experiment: Mapping[str, Any], changes: Sequence[str], out: Path) -> tuple[dict[str, float], float]:
    """(the newest value of every figure, seconds) of one run, or of what an earlier call already made of it.

    A figure stands under its name, and under `PHASE:name` for those of an earlier phase.
    """
    import hookline

    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run = hookline.run(experiment, changes, out=out)
    clock = out / "proof-seconds.json"
    if not clock.exists():
        clock.write_text(json.dumps(time.perf_counter() - began))
    figures: dict[str, float] = {}
    for row in run.rows():
        figures |= row["metrics"] | {f"{row['phase']}:{name}": value for name, value in row["metrics"].items()}
    return figures, json.loads(clock.read_text())


def outcome(row: Row, figures: Mapping[str, float], seconds: float) -> Outcome:
    """What a row looks at in a run."""
    if row.figure not in figures:
        raise KeyError(f"{row.name}: the run has no figure {row.figure}; it has {', '.join(sorted(figures))}")
    return Outcome(figures[row.figure], figures.get(row.also), figures.get("eval/gap"), seconds)


def verdict(row: Row, outcomes: Sequence[Outcome]) -> bool:
    """Whether the row holds: its mean where it should be, and no seed above the frontier."""
    x = sum(outcome.figure for outcome in outcomes) / len(outcomes)
    under = all(outcome.gap is None or outcome.gap >= ABOVE for outcome in outcomes)
    return under and bool(eval(row.holds, {"__builtins__": {}, "abs": abs}, {"x": x}))


def table(results: Mapping[Row, Sequence[Outcome]]) -> str:
    """The results as Markdown, a section per group."""
    lines: list[str] = []
    group = ""
    for row, outcomes in results.items():
        if row.group != group:
            group = row.group
            lines += [
                "",
                f"### {group}",
                "",
                "| | figure | exact | reached, mean of seeds [least, most] | below the frontier | seconds | holds |",
            ]
            lines.append("|---|---|---|---|---|---|---|")
        figures = [outcome.figure for outcome in outcomes]
        reached = f"{sum(figures) / len(figures):.4g} [{min(figures):.4g}, {max(figures):.4g}], {len(figures)} seeds"
        if row.also:
            also = [outcome.also for outcome in outcomes if outcome.also is not None]
            if row.also == LOW and also:
                reached += f"; {interval(sum(figures) / len(figures), sum(also) / len(also))}"
            elif also:
                reached += f"; {row.also.removeprefix('eval/')} {sum(also) / len(also):.4g}"
        gaps = [outcome.gap for outcome in outcomes if outcome.gap is not None]
        below = f"{sum(gaps) / len(gaps):.4f}" if gaps else ""
        seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
        mark = "yes" if verdict(row, outcomes) else "**no**"
        figure = row.figure.rpartition(":")[2].removeprefix("eval/")
        lines.append(f"| {row.name} | {figure} | {row.exact} | {reached} | {below} | {seconds:.0f} | {mark} |")
    return "\n".join(lines) + "\n"


def interval(value: float, low: float) -> str:
    """The interval of a rank correlation from its lower end: it is symmetrical in Fisher's z."""
    z = math.atanh(value)
    return f"interval [{low:.4g}, {math.tanh(2 * z - math.atanh(low)):.4g}]"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare every algorithm with an exact answer.")
    parser.add_argument("--quick", action="store_true", help="one seed of the rows marked quick")
    parser.add_argument("--only", default="", help="rows whose name or group contains this word")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes, one thread each")
    parser.add_argument("--graph", type=int, help="use another graph of the walks, as for choosing settings")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "proof")
    parser.add_argument("--write", type=Path, help="write the table into this Markdown file, between its marks")
    asked = parser.parse_args(arguments)
    wanted = [
        row
        for row in rows()
        if (row.quick or not asked.quick) and asked.only.lower() in f"{row.group} {row.name}".lower()
    ]
    jobs: dict[Path, tuple[int, list[Row]]] = {}  # rows that look at one run share it
    for row in wanted:
        for seed in range(1, 1 + (1 if asked.quick else row.seeds)):
            jobs.setdefault(asked.out / _slug(row, asked.graph) / f"seed-{seed}", (seed, []))[1].append(row)
    results: dict[Row, list[Outcome]] = {row: [] for row in wanted}
    failed: list[str] = []
    os.environ.update(
        {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    )
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers", "hookline", "hookline.loop.loop"])
    began = time.perf_counter()
    with ProcessPoolExecutor(asked.jobs, mp_context=context) as pool:
        waiting = {
            pool.submit(train, *overrides(sharing[0], seed, asked.graph), out): (seed, sharing)
            for out, (seed, sharing) in sorted(jobs.items(), key=lambda job: job[1][0])
        }
        for number, done in enumerate(as_completed(waiting), 1):
            seed, sharing = waiting[done]
            for row in sharing:
                where = f"[{number}/{len(jobs)}] {row.group} · {row.name}, seed {seed}"
                try:
                    found = outcome(row, *done.result())
                except Exception as err:  # the other rows go on, and the end names this one
                    failed.append(f"{row.name}, seed {seed}: {err}")
                    print(f"{where}: {err}", flush=True)
                    continue
                results[row].append(found)
                print(f"{where}: {row.figure} {found.figure:.4f}", flush=True)
    complete = {row: outcomes for row, outcomes in results.items() if outcomes}
    shown = table(complete)
    minutes = (time.perf_counter() - began) / 60
    print(shown)
    short = [row.name for row, outcomes in complete.items() if not verdict(row, outcomes)]
    print(f"{len(complete) - len(short)} of {len(complete)} rows hold; {minutes:.1f} minutes, {asked.jobs} processes")
    for text in failed:
        print(f"failed: {text}")
    if asked.write:
        write(asked.write, shown + f"\n{len(complete) - len(short)} of {len(complete)} rows hold.\n")
    return 1 if failed or short else 0


def write(path: Path, shown: str) -> None:
    """Put the table between the marks of a Markdown file."""
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition("<!-- proof -->")
    _, end, tail = rest.partition("<!-- /proof -->")
    path.write_text(f"{head}{begin}\n{shown}\n{end}{tail}", encoding="utf-8")


def _slug(row: Row, graph: int | None) -> str:
    """One folder per experiment and settings."""
    settings = json.dumps([row.experiment, dict(row.set), graph], sort_keys=True)
    return f"{row.experiment.removesuffix('.yaml')}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


if __name__ == "__main__":
    sys.exit(main())
