"""The contents of report.html: cards, tables, plots and answers, in the order of `templates/report.html`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hookline import Column, Table
from hookline_plugins.report import ages
from hookline_plugins.report.numbers import LEVEL, NO_REWARD, OWN
from hookline_plugins.report.page import Figure, estimated, estimates, render
from hookline_plugins.report.plot import MARKS, WIDE, Line, Plot, Point, moving_mean
from hookline_plugins.report.words import beside, count_of, duration, percent, signed

Json = Mapping[str, Any]
PARTS = ("rollout", "reward", "advantage", "update")
"""Parts of a step in the order they happen; evaluations come after them."""
QUIET = frozenset({"learning_rate", "optimiser_steps", "rows", "tokens", "grad_norm", "unjudged", "judgements"})
"""Logged, in report.json, but not drawn."""
MAIN = ("nll", "accuracy", "margin", "reward", "kl", "entropy", "response_length", "truncated", "agreement")
"""Training figures shown next to the evaluations, in this order, followed by `reward/*`; others are in the details."""
SMOOTH = 40
"""Points from which a training curve also has a moving mean."""
WORD = re.compile(r"[^\W\d_]+")


def page(numbers: Json, run_id: str, figures: bool = True) -> str:
    """The page of a run. numbers: as `numbers.gather` gives them; figures: whether plots are drawn."""
    phases, times = numbers["phases"], numbers["timings"]["phases"]
    evaluations = [(phase, evaluation) for phase in phases for evaluation in phase["evaluations"]]
    return render(
        "report.html",
        numbers=numbers,
        run_id=run_id,
        level=LEVEL,
        seconds=sum(phase["seconds"] for phase in times.values()),
        steps=sum(phase["steps"] for phase in phases),
        cards=sorted((card for phase in phases for card in cards(phase)), key=lambda card: ORDER.index(card["kind"])),
        evaluations=[evaluation_table(*both) for both in evaluations if both[1]["figures"]],
        shared=any(evaluation["shared_rows"] for _, evaluation in evaluations),
        accuracies=[accuracy_table(phase) for phase in phases if accuracies_of(phase)],
        ages=ages.table(numbers["ages"]) if numbers["ages"] else None,
        planes=planes(phases),
        figures=figures,
        curves=[(phase["name"], *curves(phase), curve_table(phase)) for phase in phases if phase["curves"]],
        completions=[completion_table(phase) for phase in phases if phase["completions"]],
        episodes=[episode(phase) for phase in phases if any("stretches" in answer for answer in phase["completions"])],
        answers=[answers(*both) for both in evaluations if both[1]["examples"]],
        time=time_table(times),
        provenance=provenance_tables(numbers["provenance"]),
    )


def own(phase: Json, evaluation: Json, form: str = ", {}") -> str:
    """A phase, and the evaluation where it is not the usual one."""
    return f"{phase['name']}{beside(evaluation['name'], form)}"


def figures_of(phase: Json) -> list[tuple[str, Json]]:
    return [item for evaluation in phase["evaluations"] for item in evaluation["figures"].items()]


def accuracies_of(phase: Json) -> list[tuple[str, Json]]:
    return [(n, f) for n, f in figures_of(phase) if f["component"] == "pair-accuracy" and f["rows"]]


# -- cards

ORDER = ("policy", "accuracy", "change")
"""Policies that were paid come first, then reward models, then the rest."""


def cards(phase: Json) -> list[Json]:
    """The purpose of a phase: the label and the figure of each card, and the other figures that the card mentions."""
    if phase["reward_kl"]:
        rewards = [curve["reward"] for curve in phase["reward_kl"]]
        found = dict(figures_of(phase))
        others = [(n, f) for n, f in found.items() if f["component"] == "kl" or "ratio" in f or n in rewards[1:]]
        label = f"{phase['name']} · {rewards[0]}"
        return [{"kind": "policy", "label": label, "figure": found[rewards[0]], "others": others, "phase": phase}]
    made: list[Json] = []
    if accuracies := accuracies_of(phase):
        (name, figure), *others = accuracies
        label = f"{phase['name']} · {name} of held-out comparisons"
        made.append({"kind": "accuracy", "label": label, "figure": figure, "others": others})
    for evaluation in phase["evaluations"]:
        for name, figure in evaluation["figures"].items():
            own = figure["component"] == OWN and name in ("accuracy", "loss")
            told = own or figure["component"] not in NO_REWARD or figure["summary"] == "perplexity"
            if told and len(figure["points"]) > 1:
                label = f"{phase['name']} · {name}{beside(evaluation['name'], ' on {}')}"
                made.append({"kind": "change", "label": label, "figure": figure})
    return made


# -- tables


def evaluation_table(phase: Json, evaluation: Json) -> Table:
    """Start, end and change of every figure of an evaluation."""
    first, last = evaluation["steps"][0], evaluation["steps"][-1]
    groups = f" in {count_of(evaluation['groups'], 'group')}" if evaluation["groups"] != evaluation["rows"] else ""
    ratios = any("ratio" in figure for figure in evaluation["figures"].values())
    columns = (
        Column("figure"),
        *estimated("start", f"start (step\u00a0{first})"),
        *estimated("end", f"end (step\u00a0{last})"),
        *estimated("change", how=signed, drawn="change"),
        *(estimated("ratio", "end ÷ start") if ratios else ()),
        *estimated("rose", "rows that rose", how=percent),
    )
    rows = [
        {"figure": name + (" (as logged)" if figure["summary"] == "own" else "")}
        | estimates(start=figure["points"][0], end=figure["points"][-1], rose=figure.get("wins"))
        | estimates(change=figure.get("change"), ratio=figure.get("ratio"))
        for name, figure in evaluation["figures"].items()
    ]
    caption = f"{own(phase, evaluation)} · {count_of(evaluation['rows'], 'row')}{groups}"
    if shared := evaluation["shared_rows"]:
        caption += f" · {shared['shared']} of {shared['rows']} prompts are also in the training data"
    return Table(f"{own(phase, evaluation, '-{}')}-before-and-after", columns, rows, caption)


def accuracy_table(phase: Json) -> Table:
    end = estimated("end", how=percent, drawn="share")
    columns = (Column("figure"), Figure("start", how=percent), *end, Column("judgements"))
    rows = [
        {"figure": name, "start": figure["points"][0]["value"], "judgements": figure["rows"]}
        | estimates(end=figure["points"][-1])
        for name, figure in accuracies_of(phase)
    ]
    return Table(f"{phase['name']}-accuracy", columns, rows, phase["name"])


def completion_table(phase: Json) -> Table:
    """Answers of training, with their rewards and advantage."""
    kept = phase["completions"]
    names = [name for name in dict.fromkeys(key for answer in kept for key in answer) if name.startswith("reward/")]
    numbers = [n for n in ("reward", *names, "advantage") if any(answer.get(n) is not None for answer in kept)]
    columns = (Column("step"), *map(Column, ("prompt", "completion")), *map(Figure, numbers), Column("finish_reason", "ended by"))
    return Table(f"{phase['name']}-completions", columns, kept, phase["name"])


def episode(phase: Json) -> Json:
    """The last kept episode of training that was played in turns: its rows, each in pieces with their credit."""
    kept = [answer for answer in phase["completions"] if "stretches" in answer]
    last = max(kept, key=lambda answer: answer["step"])
    rows = [answer for answer in kept if (answer["step"], answer["episode"]) == (last["step"], last["episode"])]
    return {"title": f"{phase['name']}, step {last['step']}, episode {last['episode']}", "rows": rows}


def curve_table(phase: Json) -> Table:
    """First, middle and last value of each figure, for pages without drawings."""
    rows = [
        {"figure": name, "first": points[0][1], "midway": points[len(points) // 2][1], "last": points[-1][1]}
        for name, points in phase["curves"].items()
    ]
    columns = (Column("figure"), *map(Figure, ("first", "midway", "last")))
    return Table(f"{phase['name']}-curves", columns, rows, phase["name"])


def time_table(phases: Mapping[str, Json]) -> Table:
    """Seconds by part of the loop; the last row sums up."""
    known = {part for phase in phases.values() for part in phase["parts"]}
    parts = [part for part in PARTS if part in known] + sorted(known - set(PARTS))
    rows: list[dict[str, Any]] = [
        {"phase": name, "seconds": phase["seconds"], "tokens_per_second": phase["tokens_per_second"]}
        | {f"seconds/{part}": phase["parts"].get(part, 0.0) for part in parts}
        for name, phase in phases.items()
    ]
    columns = [Figure(f"seconds/{part}", part, how=tenths) for part in parts]
    wall = Figure("seconds", "wall time", how=lambda value: duration(value or 0.0))
    rows.append({"phase": "all"} | {c.key: sum(row[c.key] for row in rows) for c in (wall, *columns)})
    speed = Figure("tokens_per_second", "tokens/s")
    return Table("time", (Column("phase"), wall, *columns, speed), rows, "Seconds by part of the loop")


def tenths(value: float | None) -> str:
    return f"{value or 0.0:.1f}"


def provenance_tables(about: Json) -> list[Table]:
    weights = [{"phase": name, "sha256": sha} for name, sha in about["weights"].items()]
    data = [{"name": name, **found} for name, found in about["data"].items()]
    keys = ("name", "kind", "distribution", "version")
    tables = (
        ("weights", ("phase",), weights, "Weights, by phase"),
        ("data", ("name", "rows"), data, "Data"),
        ("plugins", keys, about["plugins"], "Plugins"),
    )
    return [
        Table(name, (*map(Column, keys), Column("sha256", "SHA-256")), rows, caption)
        for name, keys, rows, caption in tables
        if rows
    ]


# -- plots


def planes(phases: Sequence[Json]) -> list[Plot]:
    """Per reward, a line per phase through its evaluations, from its start at the left."""
    found = []
    for reward in dict.fromkeys(curve["reward"] for phase in phases for curve in phase["reward_kl"]):
        curves = [(p["name"], c["points"]) for p in phases for c in p["reward_kl"] if c["reward"] == reward]
        lines = [
            Line(name, [point_of(p["kl"]["value"], p["reward"]) for p in points], ink(i), MARKS[i % 4], bars=True)
            for i, (name, points) in enumerate(curves)
        ]
        below = "KL per answer to the reference, in nats"
        found.append(Plot(f"reward-kl-{reward}", reward, below, lines, axis="kl", width=WIDE, height=220))
    return found


def point_of(x: float, estimate: Json) -> Point:
    return Point(x, estimate["value"], estimate["low"], estimate["high"])


def ink(i: int) -> str:
    """A colour of the style sheet; c0 is that of training."""
    return f"c{1 + i % 9}"


def curves(phase: Json) -> tuple[list[Plot], list[Plot]]:
    """The plots of a phase, and those for the details: evaluations first, over their training curve where there is one."""
    left = {n: c for n, c in phase["curves"].items() if not n.startswith("eval/") and n not in QUIET}
    if left.get("nll") == left.get("loss"):
        left.pop("loss", None)
    main: list[Plot] = []
    accuracies: list[Line] = []
    for evaluation in phase["evaluations"]:
        prefix = beside(evaluation["name"], "{}: ")
        for name, figure in evaluation["figures"].items():
            points = [point_of(p["step"], p) for p in figure["points"] if p["value"] is not None]
            if not points:
                continue
            if figure["component"] == "pair-accuracy":
                accuracies.append(accuracy(f"{prefix}{name}", points, len(accuracies)))
                continue
            twin = f"reward/{name}" if f"reward/{name}" in left else name
            lines = [*training(left.pop(twin, [])), Line("held out", points, "c1", MARKS[0])]
            if figure["component"] == "kl" and phase["kl_target"] is not None:
                steps = [p.x for line in lines for p in line.points]
                lines.append(
                    Line(
                        "target",
                        [Point(step, phase["kl_target"]) for step in (min(steps), max(steps))],
                        "ink",
                        dashed=True,
                    )
                )
            main.append(panel(phase, f"{prefix}{name}", lines))
    if accuracies:
        main.append(panel(phase, "accuracy", [*training(left.pop("accuracy", [])), *accuracies]))
    moving = [name for name, curve in sorted(left.items()) if moves([value for _, value in curve])]
    first = [name for name in MAIN if name in moving] + [name for name in moving if name.startswith("reward/")]
    if not {"nll", "accuracy", "reward"} & set(first) and "loss" in moving:
        first.insert(0, "loss")
    main += [panel(phase, name, training(left[name])) for name in first]
    return main, [panel(phase, name, training(left[name])) for name in moving if name not in first]


def accuracy(name: str, points: Sequence[Point], i: int) -> Line:
    """An accuracy with its interval; one that stays where it is, as a ceiling does, is a dashed line."""
    if len({p.y for p in points}) == 1:
        return Line(name, [Point(p.x, p.y) for p in points], "ink", dashed=True)
    return Line(name, points, ink(i), MARKS[i % 4])


def panel(phase: Json, title: str, lines: Sequence[Line]) -> Plot:
    return Plot(f"{phase['name']}-{title}", title, "step", lines)


def training(curve: Sequence[Sequence[float]]) -> list[Line]:
    """A training figure over steps; a long one faint, with its moving mean."""
    if not curve:
        return []
    line = Line(
        "training",
        [Point(*point) for point in curve],
        "c0",
        MARKS[0] if len(curve) == 1 else "",
        faint=len(curve) >= SMOOTH,
    )
    if not line.faint:
        return [line]
    means = moving_mean([p.y for p in line.points])
    return [line, Line("moving mean", [Point(p.x, mean) for p, mean in zip(line.points, means)], "c0")]


def moves(values: Sequence[float]) -> bool:
    """Whether there is anything to see: more than rounding."""
    return max(values) - min(values) > 1e-5 * max(abs(value) for value in values)


# -- answers


def answers(phase: Json, evaluation: Json) -> Json:
    """Prompts with an answer before and after, with words of the prompt marked, except words that all prompts have."""
    asked = [set(words_of(example["prompt"])) for example in evaluation["examples"]]
    always = set.intersection(*asked) if len(asked) > 1 else set()
    before = f"before (the end of {phase['starts_from']})" if phase["starts_from"] else "before"
    examples = [
        {
            "prompt": example["prompt"],
            "sides": [
                {
                    "title": title,
                    "text": marked(example[key]["response"], words - always),
                    "terms": example[key]["terms"],
                }
                for title, key in ((before, "before"), ("after", "after"))
            ],
        }
        for example, words in zip(evaluation["examples"], asked)
    ]
    return {"title": own(phase, evaluation), "examples": examples}


def words_of(text: str) -> list[str]:
    """Words of three letters and more, in small letters."""
    return [word.lower() for word in WORD.findall(text) if len(word) > 2]


def marked(text: str, wanted: set[str]) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is a wanted word."""
    pieces, at = [], 0
    for match in WORD.finditer(text):
        if match.group().lower() in wanted:
            pieces += [(text[at : match.start()], False), (match.group(), True)]
            at = match.end()
    return [piece for piece in (*pieces, (text[at:], False)) if piece[0]]
