"""Text shared by trackers: numbers, durations, and an experiment's phases in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hookline import figure_name, instance_name

Spec = Mapping[str, Any]
"""A part of the experiment as resolved: a phase, an evaluation, or a component in use."""
SAID = ("rollout", "reward", "wrap", "advantage", "update", "feedback", "engine")
"""The parts of a phase that `sentence` has words for, and the engine; a phase's other components are listed."""
PERCENT = "\u00a0%"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: `digits` significant ones, thousands apart, a true minus."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        text = f"{value:.{digits - 1}e}"
    else:
        decimals = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
        text = f"{value:,.{min(decimals, digits + 3)}f}".replace(",", "\u202f")
        if float(value).is_integer() and size < 1e7:
            text = text.split(".")[0]
    return text.replace("-", "−") if value < 0 else text


def signed(value: float | None, digits: int = 3) -> str:
    return f"+{number(value, digits)}" if value is not None and value > 0 else number(value, digits)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}{PERCENT}"


def interval(estimate: Any, how: Callable[[float | None], str] = number) -> str:
    """`[low, high]` of an estimate; nothing where an end is not known."""
    if estimate is None or estimate["low"] is None or estimate["high"] is None:
        return ""
    return f"[{how(estimate['low']).removesuffix(PERCENT)}, {how(estimate['high']).removesuffix(PERCENT)}]"


def growth(ratio: Any) -> str:
    """A ratio as `+12 % [8, 16]`."""
    if None in (ratio["value"], ratio["low"], ratio["high"]):
        return "–"
    value, low, high = (f"{100 * (ratio[key] - 1):.0f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{'+' if ratio['value'] >= 1 else ''}{value}{PERCENT} [{low}, {high}]"


def clear_of_zero(estimate: Any) -> bool:
    low, high = estimate["low"], estimate["high"]
    return low is not None and high is not None and (low > 0 or high < 0)


def count_of(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as 0:07, 3:20 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def about(seconds: float) -> str:
    """An estimate as `about 40 s`, `about 7 min` or `about 2 h 10 min`, no more exact than it is."""
    if seconds < 55:
        return f"about {max(5, 5 * round(seconds / 5))} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"about {minutes} min"
    hours, minutes = divmod(10 * round(minutes / 10), 60)
    return f"about {hours} h{f' {minutes} min' if minutes else ''}"


def offered(use: Spec) -> str:
    """The name under which a component in use is offered, whatever its instance is called."""
    return instance_name({"use": use["use"]})


def beside(evaluation: str, form: str) -> str:
    """`form` with an evaluation's name in place of `{}`; empty for the usual one, whose figures have no prefix."""
    return "" if figure_name(evaluation, "") == figure_name("heldout", "") else form.format(evaluation)


def start_of(experiment: Spec, phase: str) -> str | None:
    """The phase whose policy a phase starts from; None: the experiment's own model."""
    last = None
    for spec in experiment["phases"]:
        if spec["name"] == phase:
            return spec["model"].get("from") or last
        if spec["update"] and not spec["model"].get("head"):
            last = spec["name"]
    return None


def chain(spec: Spec) -> str:
    """A phase as its hooks: `generate → reward-model, length → gae → ppo`."""
    parts = [instance_name(spec["rollout"]), ", ".join(instance_name(use) for use in spec["reward"])]
    parts += [instance_name(spec[key]) if spec[key] else "" for key in ("advantage", "update")]
    parts += [", ".join(instance_name(use) for use in spec["feedback"])]
    return " → ".join(part for part in parts if part)


def sentence(experiment: Spec, phase: str) -> str:
    """What a phase does, in a sentence or two, from the experiment alone."""
    spec = next(spec for spec in experiment["phases"] if spec["name"] == phase)
    start = start_of(experiment, phase)
    origin = f"the policy at the end of {start}" if start else _model(experiment["model"])
    steps = f"{spec['steps']} step{'' if spec['steps'] == 1 else 's'}"
    if spec["update"]:
        does = f"{steps} of {with_options(spec['update'])}, starting from {origin}"
    else:
        does = f"{steps} that change no weights, with {origin}"
    if spec["model"].get("head"):
        does += f" with a {instance_name(spec['model']['head'])} head"
    does += f". Rows come from {with_options(spec['rollout'])}"
    if spec["reward"]:
        does += "; the reward is " + _sum_of(spec["reward"])
    if spec["wrap"]:
        does += "; around it: " + _listing([with_options(use) for use in spec["wrap"]])
    if spec["advantage"]:
        does += f"; credit per token by {with_options(spec['advantage'])}"
    if spec["feedback"]:
        does += "; comparisons are made by " + _listing([with_options(use) for use in spec["feedback"]])
    for section, named in spec.items():
        uses = [
            use for use in (named if isinstance(named, list) else [named]) if isinstance(use, Mapping) and "use" in use
        ]
        if uses and section not in SAID:
            does += f"; {section}: " + _listing([with_options(use) for use in uses])
    return does + "."


def with_options(use: Spec) -> str:
    """A component and the options the experiment gave it: `ppo (lr 0.0003, epochs 2)`."""
    said = [
        f"{key} {value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{key} {value}"
        for key, value in use["options"].items()
        if isinstance(value, int | float | str)
    ]
    return instance_name(use) + (f" ({', '.join(said)})" if said else "")


def _model(model: Spec) -> str:
    if model["build"]:
        return f"a new {with_options(model['build'])}"
    return f"the model in {model['path']}" if model["path"] else "the experiment's model"


def _sum_of(rewards: Sequence[Spec]) -> str:
    text = ""
    for use in rewards:
        weight = float(use["weight"])
        sign = (" − " if weight < 0 else " + ") if text else ("−" if weight < 0 else "")
        text += sign + ("" if abs(weight) == 1 else f"{abs(weight):g} × ") + instance_name(use)
    return text


def _listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
