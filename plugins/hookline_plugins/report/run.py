"""What report.html shows of a run: its figures in cards, tables and plots, in the order of `templates/report.html`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookline import Column, Table
from hookline_plugins.report.numbers import LEVEL, NO_REWARD
from hookline_plugins.report.page import Figure, render
from hookline_plugins.report.plot import MARKS, WIDE, Line, Plot, Point, moving_mean
from hookline_plugins.report.words import (
    beside,
    clear_of_zero,
    count_of,
    duration,
    interval,
    number,
    percent,
    signed,
)

Json = Mapping[str, Any]
PARTS = ("rollout", "reward", "advantage", "update")
"""Parts of a step in the order they happen; evaluations come behind them."""
QUIET = frozenset({"learning_rate", "optimiser_steps", "rows", "tokens", "grad_norm", "unjudged", "judgements"})
"""Logged, in report.json, but not drawn."""
MAIN = ("nll", "accuracy", "margin", "reward", "kl", "entropy", "response_length", "truncated", "agreement")
"""Training figures that stand with the evaluations, in this order, and behind them `reward/*`; the others may wait."""
SMOOTH = 40
"""Points from which a training curve also has a moving mean."""
WORD = re.compile(r"[^\W\d_]+")


def page(numbers: Json, run_id: str, figures: bool = True) -> str:
    """The page of a run. numbers: as `numbers.gather` gives them; figures: whether plots are drawn."""
    phases = numbers["phases"]
    seconds = sum(phase["seconds"] for phase in numbers["timings"]["phases"].values())
    steps = sum(phase["steps"] for phase in phases)
    shown: dict[str, Any] = {
        "cards": cards(phases),
        "phases": phases,
        "evaluations": [table for phase in phases for table in evaluation_tables(phase)],
        "accuracies": [accuracy_table(phase) for phase in phases if accuracies_of(phase)],
        "planes": planes(phases),
        "curves": [(phase["name"], *curves(phase), curve_table(phase)) for phase in phases if phase["curves"]],
        "answers": [answers(phase, e) for phase in phases for e in phase["evaluations"] if e["examples"]],
        "time": time_table(numbers["timings"]["phases"]) if seconds else None,
        "logged": {
            name: (meaning["formula"].split("`"), meaning["unit"]) for name, meaning in numbers["words"].items()
        },
        "provenance": provenance_tables(numbers["provenance"]),
    }
    headings = {
        "results": "Results",
        "phases": "What was run",
        "evaluations": "Before and after, in figures",
        "accuracies": "The reward model beside its ceiling",
        "planes": "Reward against KL",
        "curves": "Curves",
        "answers": "Answers before and after",
        "time": "Where the time went",
        "words": "What the words mean",
        "provenance": "What it ran on",
    }
    return render(
        "report.html",
        **shown,
        sections={key: heading for key, heading in headings.items() if shown.get(key, True)},
        title=numbers["name"],
        kind="report of a run",
        lead=f"{count_of(len(phases), 'phase')}, {count_of(steps, 'step')}, {duration(seconds)} of work, "
        f"seed {numbers['seed']}, Hookline {numbers['provenance']['hookline']}.",
        level=LEVEL,
        resamples=numbers["resamples"],
        seed=numbers["seed"],
        about=numbers["provenance"],
        run_id=run_id,
        figures=figures,
    )


def own(phase: Json, evaluation: Json, form: str = ", {}") -> str:
    """A phase, and the evaluation where it is not the usual one."""
    return f"{phase['name']}{beside(evaluation['name'], form)}"


# -- results: a card per phase with the figure that it was for


def cards(phases: Sequence[Json]) -> list[Json]:
    """Policies that were paid first, then reward models, then the rest. A card: label, from, to, range, lines."""
    found: list[tuple[int, Json]] = []
    for phase in phases:
        if phase["reward_kl"]:
            found.append((0, policy_card(phase)))
            continue
        if accuracies := accuracies_of(phase):
            found.append((1, accuracy_card(phase, accuracies)))
        for evaluation in phase["evaluations"]:
            for name, figure in evaluation["figures"].items():
                told = figure["component"] not in NO_REWARD or figure["summary"] == "perplexity"
                if told and len(figure["points"]) > 1:
                    label = f"{phase['name']} · {name}{beside(evaluation['name'], ' on {}')}"
                    found.append((2, change_card(label, figure, [])))
    return [card for _, card in sorted(found, key=lambda item: item[0])]


def change_card(label: str, figure: Json, more: Iterable[str]) -> Json:
    first, last = figure["points"][0], figure["points"][-1]
    lines = [line for line in (change_sentence(figure), *more) if line]
    return {"label": label, "first": number(first["value"]), "last": number(last["value"]), "range": "", "lines": lines}


def policy_card(phase: Json) -> Json:
    """The first reward's change and win rate; then what was paid for it, KL and perplexity; then the other rewards."""
    first, *others = [curve["reward"] for curve in phase["reward_kl"]]
    figures = figures_of(phase)
    figure = next(figure for name, figure in figures if name == first)
    lines = []
    if wins := figure.get("wins"):
        against = phase["starts_from"] or "its start"
        lines.append(
            f"Wins {percent(wins['value'])} {interval(wins, percent)} of held-out rows against {against}, ties half."
        )
    for name, other in figures:
        start, last = other["points"][0], other["points"][-1]
        ends = f"{number(start['value'])} → {number(last['value'])}"
        if other["component"] == "kl" and last["value"] is not None:
            target = phase["kl_target"]
            within = "within" if target is None or last["value"] <= target else "above"
            limit = "" if target is None else f", {within} its target of {number(target)}"
            lines.append(f"KL {number(last['value'])} {interval(last)} nats per answer{limit}.")
        elif other.get("ratio"):
            lines.append(f"Held-out perplexity {ends}, {growth(other['ratio'])}.")
        elif name in others and other.get("change"):
            change = other["change"]
            lines.append(f"{name} {ends}, {signed(change['value'])} {interval(change, signed)}.")
    return change_card(f"{phase['name']} · {first}", figure, lines)


def accuracy_card(phase: Json, accuracies: Sequence[tuple[str, Json]]) -> Json:
    """The first accuracy large; the others, the ceiling among them, beneath it."""
    (name, figure), *others = accuracies
    last = figure["points"][-1]
    return {
        "label": f"{phase['name']} · {name} of held-out comparisons",
        "first": "",
        "last": percent(last["value"]),
        "range": interval(last, percent),
        "lines": [f"{n}: {percent(f['points'][-1]['value'])} {interval(f['points'][-1], percent)}" for n, f in others],
    }


def change_sentence(figure: Json) -> str:
    change = figure.get("change")
    if not change:
        return ""
    if figure.get("ratio"):
        return f"That is {growth(figure['ratio'])} on the same texts."
    verdict = (
        "the interval is clear of zero" if clear_of_zero(change) else "the interval holds zero, so no change is shown"
    )
    if change["low"] is None:
        verdict = "too few prompts to say how sure"
    return f"Change {signed(change['value'])} {interval(change, signed)}: {verdict}."


def growth(ratio: Json) -> str:
    """A ratio as `+12 % [8, 16]`."""
    if None in (ratio["value"], ratio["low"], ratio["high"]):
        return "–"
    value, low, high = (f"{100 * (ratio[key] - 1):.0f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{'+' if ratio['value'] >= 1 else ''}{value}\u00a0% [{low}, {high}]"


def figures_of(phase: Json) -> list[tuple[str, Json]]:
    return [item for evaluation in phase["evaluations"] for item in evaluation["figures"].items()]


def accuracies_of(phase: Json) -> list[tuple[str, Json]]:
    return [(n, f) for n, f in figures_of(phase) if f["component"] == "pair-accuracy" and f["rows"]]


# -- tables


def evaluation_tables(phase: Json) -> list[Table]:
    """Start, end and change of every figure, one table per evaluation."""
    return [evaluation_table(phase, evaluation) for evaluation in phase["evaluations"] if evaluation["figures"]]


def evaluation_table(phase: Json, evaluation: Json) -> Table:
    first, last = evaluation["steps"][0], evaluation["steps"][-1]
    groups = f" in {count_of(evaluation['groups'], 'group')}" if evaluation["groups"] != evaluation["rows"] else ""
    ratios = any("ratio" in figure for figure in evaluation["figures"].values())
    table = Table(
        f"{own(phase, evaluation, '-{}')}-before-and-after",
        (
            Column("figure"),
            *estimated("start", f"start (step\u00a0{first})"),
            *estimated("end", f"end (step\u00a0{last})"),
            *estimated("change", how=signed, drawn="change"),
            *(estimated("ratio", "end ÷ start") if ratios else ()),
            *estimated("rose", "rows that rose", how=percent),
        ),
        caption=f"{own(phase, evaluation)} · {count_of(evaluation['rows'], 'row')}{groups}",
    )
    for name, figure in evaluation["figures"].items():
        said = {
            "start": figure["points"][0],
            "end": figure["points"][-1],
            "change": figure.get("change"),
            "rose": figure.get("wins"),
            **({"ratio": figure.get("ratio")} if ratios else {}),
        }
        table.add(figure=name + (" (as logged)" if figure["summary"] == "own" else ""), **estimates(said))
    return table


def estimated(key: str, heading: str | None = None, **how: Any) -> tuple[Column, Column]:
    """Two columns, for an estimate and its interval."""
    return Figure(key, heading, **how), Figure(f"{key}_interval", "", ends=True, how=how.get("how", number))


def estimates(said: Mapping[str, Json | None]) -> dict[str, Any]:
    """What stands in such columns."""
    values = {key: estimate["value"] for key, estimate in said.items() if estimate}
    return values | {f"{key}_interval": estimate for key, estimate in said.items() if estimate}


def accuracy_table(phase: Json) -> Table:
    table = Table(
        f"{phase['name']}-accuracy",
        (
            Column("figure"),
            Figure("start", how=percent),
            *estimated("end", how=percent, drawn="share"),
            Column("judgements"),
        ),
        caption=phase["name"],
    )
    for name, figure in accuracies_of(phase):
        first, last = figure["points"][0], figure["points"][-1]
        table.add(figure=name, start=first["value"], judgements=figure["rows"], **estimates({"end": last}))
    return table


def curve_table(phase: Json) -> Table:
    """First, middle and last value of each figure, for pages without drawings."""
    table = Table(
        f"{phase['name']}-curves", (Column("figure"), *map(Figure, ("first", "midway", "last"))), caption=phase["name"]
    )
    for name, points in phase["curves"].items():
        table.add(figure=name, first=points[0][1], midway=points[len(points) // 2][1], last=points[-1][1])
    return table


def time_table(phases: Mapping[str, Json]) -> Table:
    """Seconds by part of the loop; the last row sums up."""
    known = dict.fromkeys(part for phase in phases.values() for part in phase["parts"])
    parts = [part for part in PARTS if part in known] + sorted(part for part in known if part not in PARTS)
    columns = [Figure(f"seconds/{part}", part, how=seconds) for part in parts]
    table = Table(
        "time",
        (Column("phase"), Figure("seconds", "wall time", how=clock), *columns, Figure("tokens_per_second", "tokens/s")),
        caption="Seconds by part of the loop",
    )
    for name, phase in phases.items():
        spent = {f"seconds/{part}": phase["parts"].get(part, 0.0) for part in parts}
        table.add(phase=name, seconds=phase["seconds"], tokens_per_second=phase["tokens_per_second"], **spent)
    keys = ["seconds", *(f"seconds/{part}" for part in parts)]
    table.add(phase="all", **{key: sum(row[key] for row in table.rows) for key in keys})
    return table


def seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def clock(value: float | None) -> str:
    return "–" if value is None else duration(value)


def provenance_tables(about: Json) -> list[Table]:
    sha = Column("sha256", "SHA-256")
    weights = Table("weights", (Column("phase"), sha), caption="Weights, by phase")
    for name, value in about["weights"].items():
        weights.add(phase=name, sha256=value)
    data = Table("data", (Column("name"), Column("rows"), sha), caption="Data")
    for name, found in about["data"].items():
        data.add(name=name, rows=found["rows"], sha256=found["sha256"])
    keys = ("name", "kind", "distribution", "version")
    plugins = Table("plugins", (*map(Column, keys), sha), caption="Plugins")
    for plugin in about["plugins"]:
        plugins.add(sha256=plugin["sha256"], **{key: plugin[key] for key in keys})
    return [table for table in (weights, data, plugins) if table.rows]


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
    """What to draw of a phase, and what may wait: evaluations first, over their training curve where there is one."""
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
    """Prompts with an answer before and after, words of the prompt marked; those that all prompts have ask for nothing."""
    asked = [set(words_of(example["prompt"])) for example in evaluation["examples"]]
    always = set.intersection(*asked) if len(asked) > 1 else set()
    before = f"before (the end of {phase['starts_from']})" if phase["starts_from"] else "before"
    examples = []
    for example, words in zip(evaluation["examples"], asked):
        sides = [
            {
                "title": title,
                "text": marked(example[key]["response"], words - always),
                "terms": " · ".join(f"{name} {number(value)}" for name, value in example[key]["terms"].items()),
            }
            for title, key in ((before, "before"), ("after", "after"))
        ]
        examples.append({"prompt": example["prompt"], "sides": sides})
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
