"""The report's figures as SVG that takes its colours from the page, light or dark."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline_plugins.report.svg import blank, svg
from hookline_plugins.report.words import beside

Json = Mapping[str, Any]

QUIET = frozenset({"learning_rate", "optimiser_steps", "rows", "tokens", "grad_norm", "unjudged", "judgements"})
"""Logged, in report.json, but not drawn."""
MAIN = ("nll", "accuracy", "margin", "reward", "kl", "entropy", "response_length", "truncated", "agreement")
"""Training figures that stand with the evaluations, in this order, and behind them `reward/*`; the others may wait."""
COLUMNS, WIDTH, HEIGHT = 3, 3.1, 1.95
"""Panels per line, and the size of one in inches."""
# Colours that stand for the page's own: each is replaced by the CSS variable named beside it.
INKS = {"ink": "#010203", "muted": "#040506", "grid": "#070809", **{f"c{i}": f"#0a0b{12 + i:02x}" for i in range(6)}}
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.edgecolor": INKS["grid"],
    "axes.labelcolor": INKS["muted"],
    "axes.titlecolor": INKS["ink"],
    "axes.formatter.useoffset": False,
    "axes.xmargin": 0.03,
    "axes.ymargin": 0.1,
    "text.color": INKS["ink"],
    "xtick.color": INKS["grid"],
    "ytick.color": INKS["grid"],
    "xtick.labelcolor": INKS["muted"],
    "ytick.labelcolor": INKS["muted"],
    "grid.color": INKS["grid"],
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def draw(numbers: Json) -> tuple[dict[str, str], str]:
    """(SVG by name, why there is none). Names: `curves/PHASE`, `more/PHASE`, and `reward-kl/REWARD`."""
    try:
        import matplotlib
    except ImportError:
        return {}, "Figures need matplotlib: pip install 'hookline[report]', then run the same command again."
    drawn: dict[str, str] = {}
    with matplotlib.rc_context(STYLE):
        for reward in dict.fromkeys(curve["reward"] for phase in numbers["phases"] for curve in phase["reward_kl"]):
            drawn[f"reward-kl/{reward}"] = _reward_kl(numbers, reward)
        for phase in numbers["phases"]:
            main, more = _panels(phase)
            for kind, panels in (("curves", main), ("more", more)):
                if panels:
                    drawn[f"{kind}/{phase['name']}"] = _curves(f"{kind}/{phase['name']}", panels)
    return drawn, ""


def _reward_kl(numbers: Json, reward: str) -> str:
    """One line per phase through its evaluations, from its start at the left; bars are the intervals of the reward."""
    figure = blank(4.9, 3.3)
    axes = figure.subplots()
    curves = [(p["name"], c) for p in numbers["phases"] for c in p["reward_kl"] if c["reward"] == reward]
    for i, (phase, curve) in enumerate(curves):
        colour = INKS[f"c{1 + i % 5}"]
        x = [point["kl"]["value"] for point in curve["points"]]
        y = [point["reward"]["value"] for point in curve["points"]]
        ends = [
            {"low": here, "high": here} if point["reward"]["low"] is None else point["reward"]
            for here, point in zip(y, curve["points"])
        ]
        down = [here - end["low"] for here, end in zip(y, ends)]
        up = [end["high"] - here for here, end in zip(y, ends)]
        axes.errorbar(x, y, yerr=[down, up], color=colour, marker="o", elinewidth=0.7, capsize=2, label=phase)
        axes.annotate(
            f"step {curve['points'][-1]['step']}",
            (x[-1], y[-1]),
            xytext=(6, 5),
            textcoords="offset points",
            color=colour,
        )
    axes.set_xlabel("KL per answer to the reference, in nats")
    axes.set_ylabel(reward)
    axes.legend(loc="best")
    return _inked(figure, f"reward-kl/{reward}")


@dataclass
class Panel:
    """One small drawing: training points [step, value], evaluation points by name, and lines that hold throughout."""

    title: str
    training: Sequence[Sequence[float]] = ()
    evaluated: list[tuple[str, Sequence[Json]]] = field(default_factory=list)
    ceiling: list[tuple[str, Sequence[Json]]] = field(default_factory=list)
    target: float | None = None


def _curves(name: str, panels: Sequence[Panel]) -> str:
    """Panels side by side; evaluation points lie over the training curve they belong to."""
    lines = math.ceil(len(panels) / COLUMNS)
    figure = blank(COLUMNS * WIDTH, lines * HEIGHT)
    grid = figure.subplots(lines, COLUMNS, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for i, (axes, panel) in enumerate(zip(grid.flat, panels)):
        _panel(axes, panel)
        if i + COLUMNS >= len(panels):
            axes.set_xlabel("step")
    return _inked(figure, name)


def _panel(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title)
    if panel.training:
        steps, values = [step for step, _ in panel.training], [value for _, value in panel.training]
        smooth = len(values) >= 40
        style: dict[str, Any] = {"color": INKS["c0"], "marker": "o" if len(values) == 1 else ""}
        axes.plot(steps, values, **style, **({"alpha": 0.4, "linewidth": 0.9} if smooth else {"label": "training"}))
        if smooth:
            axes.plot(steps, moving_mean(values), **style, label="training")
    for i, (name, points) in enumerate(panel.evaluated):
        colour, steps = INKS[f"c{1 + i % 5}"], [p["step"] for p in points]
        axes.plot(steps, [p["value"] for p in points], color=colour, marker="o", label=name, zorder=3)
        known = [p for p in points if p["low"] is not None and p["high"] is not None]
        low, high = [p["low"] for p in known], [p["high"] for p in known]
        axes.fill_between([p["step"] for p in known], low, high, color=colour, alpha=0.15, linewidth=0)
    for name, points in panel.ceiling:
        steps, values = [p["step"] for p in points], [p["value"] for p in points]
        axes.plot(steps, values, color=INKS["ink"], linestyle="--", linewidth=1.1, label=name)
    if panel.target is not None:
        axes.axhline(panel.target, color=INKS["ink"], linestyle="--", linewidth=1.1, label="target")
    named = len(axes.get_legend_handles_labels()[1])
    if named > 1:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + (0.3 if named <= 2 else 0.42) * (high - low))
        axes.legend(loc="upper left", ncols=2, borderaxespad=0, columnspacing=1.2, handlelength=1.4)
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.yaxis.get_major_locator().set_params(nbins=5)


def moving_mean(values: Sequence[float]) -> list[float]:
    """Each value's mean with its neighbours, over about a twentieth of the curve; the ends have fewer."""
    reach = max(1, len(values) // 40)
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [math.fsum(window) / len(window) for window in windows]


def _panels(phase: Json) -> tuple[list[Panel], list[Panel]]:
    """What to draw of a phase, and what may wait: evaluations first, over their training curve where there is one."""
    curves = {n: c for n, c in phase["curves"].items() if not n.startswith("eval/") and n not in QUIET}
    if curves.get("nll") == curves.get("loss"):
        curves.pop("loss", None)
    main: list[Panel] = []
    accuracies = Panel("accuracy", curves.get("accuracy", []))
    for evaluation in phase["evaluations"]:
        own = beside(evaluation["name"], "{}: ")
        for name, figure in evaluation["figures"].items():
            points = [p for p in figure["points"] if p["value"] is not None]
            if figure["component"] == "pair-accuracy":
                moves = len({p["value"] for p in points}) > 1
                (accuracies.evaluated if moves else accuracies.ceiling).append((f"{own}{name}", points))
            elif points:
                twin = f"reward/{name}" if f"reward/{name}" in curves else name
                target = phase["kl_target"] if figure["component"] == "kl" else None
                main.append(Panel(f"{own}{name}", curves.pop(twin, []), [("held out", points)], target=target))
    if accuracies.evaluated or accuracies.ceiling:
        curves.pop("accuracy", None)
        main.append(accuracies)
    moving = [name for name, curve in sorted(curves.items()) if _moves([value for _, value in curve])]
    first = [name for name in MAIN if name in moving] + [name for name in moving if name.startswith("reward/")]
    if not {"nll", "accuracy", "reward"} & set(first) and "loss" in moving:
        first.insert(0, "loss")
    main += [Panel(name, curves[name]) for name in first]
    return main, [Panel(name, curves[name]) for name in moving if name not in first]


def _moves(values: Sequence[float]) -> bool:
    """Whether there is anything to see: more than rounding."""
    return max(values) - min(values) > 1e-5 * max(abs(value) for value in values)


def _inked(figure: Any, name: str) -> str:
    """A figure as an element of the page, colours by variable and as wide as its place."""
    text = re.sub(
        r'<svg ([^>]*?)width="[^"]*" height="[^"]*"|<svg ([^>]*?)height="[^"]*" width="[^"]*"',
        r"<svg \1\2",
        svg(figure, name),
    )
    for ink, colour in INKS.items():
        text = text.replace(colour, f"var(--{ink})")
    return text
