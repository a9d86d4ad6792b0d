"""What the rounds of a seed have shown, as numbers, tables and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from team import ROUNDS

HELD_OUT = 1000
"""Comparisons that the reward models are compared on."""
Json = dict[str, Any]


def figures(folder: Path) -> Json:
    """The figures of a finished seed: reward models on held-out comparisons, gold rewards, ages, kills, and the repetition."""
    import hookline
    from hookline_plugins.report import ages

    run = hookline.Run.read(folder / "run")
    pairs, right, count = ordered(run, folder)
    gold = {number: last(run, f"rl@{number}") for number in range(1, ROUNDS + 1)}
    return {
        "pairs": pairs,
        "accuracy": {number: vars(hookline.interval(some, count)) for number, some in right.items()},
        "accuracy_gain": vars(hookline.interval(right[ROUNDS], count, minus=(right[1], count))),
        "gold": {number: vars(hookline.interval(*sums(samples))) for number, samples in gold.items()},
        "gold_gain": vars(hookline.interval(*sums(gold[ROUNDS]), minus=sums(gold[1]))),
        "start": vars(hookline.interval(*sums(first(run, "rl@1")))),
        "ages": ages.gather(run, run.rows()),
        "processor": run.about["processor"],
        "reproduced": (folder / "reproduced.txt").read_text().strip().splitlines()[-1].strip(),
        **json.loads((folder / "killed.json").read_text()),
    }


def ordered(run: Any, folder: Path) -> tuple[int, dict[int, list[float]], list[float]]:
    """(comparisons, how many each round's reward model orders as they were judged, how many there are), the last two by prompt."""
    import hookline
    from hookline.study.judging.scoring import score_candidates

    events = [hookline.Event.read(record, "a held-out comparison") for record in run.collected("heldout").records]
    pairs = [event for event in events if getattr(event.answer, "better", None) in (0, 1)][:HELD_OUT]
    groups = {prompt: n for n, prompt in enumerate(dict.fromkeys(str(event.prompt) for event in pairs))}
    count = [0.0] * len(groups)
    for event in pairs:
        count[groups[str(event.prompt)]] += 1
    right: dict[int, list[float]] = {}
    for number in range(1, ROUNDS + 1):
        scored = score_candidates(folder / "run" / "phases" / f"reward-model@{number}", pairs).reward
        right[number] = [0.0] * len(groups)
        for event in pairs:
            gap = scored[event.item, 0] - scored[event.item, 1]
            won = gap if event.answer.better == 0 else -gap  # type: ignore[union-attr]
            right[number][groups[str(event.prompt)]] += 1.0 if won > 0 else 0.5 if won == 0 else 0.0
    return len(pairs), right, count


def last(run: Any, phase: str) -> list[Json]:
    """The evaluated rows after the last step of a phase."""
    return list([entry for entry in run.evaluations() if entry["phase"] == phase][-1]["samples"])


def first(run: Any, phase: str) -> list[Json]:
    return list(next(entry for entry in run.evaluations() if entry["phase"] == phase)["samples"])


def sums(samples: Sequence[Json]) -> tuple[list[float], list[float]]:
    """Per prompt: the sum of gold rewards, and the number of rows."""
    order = {prompt: n for n, prompt in enumerate(sorted({sample["prompt"] for sample in samples}))}
    above, below = [0.0] * len(order), [0.0] * len(order)
    for sample in samples:
        above[order[sample["prompt"]]] += sample["terms"]["gold"]
        below[order[sample["prompt"]]] += 1
    return above, below


# -- docs/rounds.md


def tables(found: Mapping[int, Json]) -> str:
    """The tables of docs/rounds.md."""

    def shown(one: Mapping[str, float], sign: str = "") -> str:
        return f"{one['value']:{sign}.3f} [{one['low']:{sign}.3f}, {one['high']:{sign}.3f}]"

    every = range(1, ROUNDS + 1)
    lines = [
        *head("seed", *(f"reward model of round {number}" for number in every), "round 3 − round 1"),
        *(
            row(seed, *(shown(one["accuracy"][number]) for number in every), shown(one["accuracy_gain"], "+"))
            for seed, one in found.items()
        ),
        "",
        *head("seed", "gold before", *(f"after round {number}" for number in every), "round 3 − round 1"),
        *(
            row(seed, shown(one["start"]), *(shown(one["gold"][number]) for number in every), shown(one["gold_gain"], "+"))
            for seed, one in found.items()
        ),
        "",
        *head("seed", "minutes", "trainer killed", "page killed", "repeated from the journal"),
    ]
    for seed, one in found.items():
        killed = [one["kills"].get(name, {}).get("at", "not") for name in ("trainer", "page")]
        lines.append(row(seed, f"{one['seconds'] / 60:.0f}", *killed, one["reproduced"]))
    lines += ["", *head("seed", "phase", "judgements", "mean age", "oldest", "of the newest weights")]
    for seed, one in found.items():
        for age in one["ages"]:
            if age["does"] == "learned from":
                cells = (age["phase"], age["judgements"], f"{age['age']:.0f}", age["oldest"], f"{age['new']:.0%}")
                lines.append(row(seed, *cells))
    return "\n".join(lines) + "\n"


def head(*cells: str) -> list[str]:
    return [row(*cells), "|" + "---|" * len(cells)]


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def draw(found: Mapping[int, Json], file: Path) -> None:
    """Gold reward by round, a line for each seed, with the intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rounds"
    from matplotlib import pyplot

    made, axes = pyplot.subplots(figsize=(6, 3.2))
    for place, (seed, one) in enumerate(found.items()):
        points = [one["start"], *one["gold"].values()]
        values = [point["value"] for point in points]
        ends = [[p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]]
        x = [number + 0.04 * place for number in range(len(points))]
        axes.errorbar(x, values, ends, marker="o", capsize=3, label=f"seed {seed}")
    axes.set_xticks(range(ROUNDS + 1), ["before", *(f"round {number}" for number in range(1, ROUNDS + 1))])
    axes.set_ylabel("gold reward, held-out prompts")
    axes.legend(frameon=False)
    made.tight_layout()
    made.savefig(file, metadata={"Date": None})
