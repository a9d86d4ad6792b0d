"""The report's first section: a card per phase with the figure that it was for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookline_plugins.report.cells import (
    accuracies_of,
    clear_of_zero,
    growth,
    percent,
    percent_range,
    range_of,
    signed,
    text_of,
)
from hookline_plugins.report.numbers import LEVEL, NO_REWARD
from hookline_plugins.report.words import beside, number

Json = Mapping[str, Any]


def headlines(numbers: Json) -> str:
    """A card per phase that was evaluated: policies that were paid first, then reward models, then the rest."""
    cards: list[tuple[int, str]] = []
    for phase in numbers["phases"]:
        if phase["reward_kl"]:
            cards.append((0, _policy_card(phase)))
            continue
        if accuracies := accuracies_of(phase):
            cards.append((1, _accuracy_card(phase, accuracies)))
        for evaluation in phase["evaluations"]:
            for name, figure in evaluation["figures"].items():
                told = figure["component"] not in NO_REWARD or figure["summary"] == "perplexity"
                if told and len(figure["points"]) > 1:
                    cards.append((2, _plain_card(phase, evaluation, name, figure)))
    if not cards:
        return "<p>No phase was evaluated, so there is nothing to compare. Add <code>evaluate:</code> to a phase.</p>"
    caption = f"""<p class="caption">Held-out rows, from the start of each phase to its end. Brackets are {LEVEL} % bootstrap
intervals; changes are paired, on the same prompts and seeds.</p>"""
    return (
        caption
        + '<div class="cards">'
        + "".join(card for _, card in sorted(cards, key=lambda item: item[0]))
        + "</div>"
    )


def _policy_card(phase: Json) -> str:
    """The first reward's change and win rate; then what was paid for it, KL and perplexity; then the other rewards."""
    first, *others = [curve["reward"] for curve in phase["reward_kl"]]
    figures = [item for evaluation in phase["evaluations"] for item in evaluation["figures"].items()]
    figure = next(figure for name, figure in figures if name == first)
    lines = [_change_sentence(figure)]
    if wins := figure.get("wins"):
        against = f"against {text_of(phase['starts_from'])}" if phase["starts_from"] else "against its start"
        lines.append(f"Wins {percent(wins['value'])} {percent_range(wins)} of held-out rows {against}, ties half.")
    for name, other in figures:
        start, last = other["points"][0], other["points"][-1]
        ends = f"{number(start['value'])} → {number(last['value'])}"
        if other["component"] == "kl" and last["value"] is not None:
            target = phase["kl_target"]
            beside = (
                ""
                if target is None
                else f", {'within' if last['value'] <= target else 'above'} its target of {number(target)}"
            )
            lines.append(f"KL {number(last['value'])} {range_of(last)} nats per answer{beside}.")
        elif other.get("ratio"):
            lines.append(f"Held-out perplexity {ends}, {growth(other['ratio'])}.")
        elif name in others and other.get("change"):
            change = other["change"]
            lines.append(f"{text_of(name)} {ends}, {signed(change['value'])} {range_of(change, signed)}.")
    return _card(f"{text_of(phase['name'])} · {text_of(first)}", figure, lines)


def _plain_card(phase: Json, evaluation: Json, name: str, figure: Json) -> str:
    own = beside(text_of(evaluation["name"]), " on {}")
    return _card(f"{text_of(phase['name'])} · {text_of(name)}{own}", figure, [_change_sentence(figure)])


def _accuracy_card(phase: Json, accuracies: Sequence[tuple[str, Json]]) -> str:
    """The first accuracy large; the others, the ceiling among them, beneath it."""
    (name, figure), *others = accuracies
    lines = [f"{text_of(n)}: {percent(f['points'][-1]['value'])} {percent_range(f['points'][-1])}" for n, f in others]
    last = figure["points"][-1]
    big = f'<div class="big">{percent(last["value"])} <small>{percent_range(last)}</small></div>'
    text = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="card"><div class="label">{text_of(phase["name"])} · {text_of(name)} of held-out comparisons</div>{big}{text}</div>'


def _card(label: str, figure: Json, lines: Iterable[str]) -> str:
    first, last = figure["points"][0], figure["points"][-1]
    big = f"<small>{number(first['value'])} →</small> {number(last['value'])}"
    text = "".join(f"<p>{line}</p>" for line in lines if line)
    return f'<div class="card"><div class="label">{label}</div><div class="big">{big}</div>{text}</div>'


def _change_sentence(figure: Json) -> str:
    change = figure.get("change")
    if not change:
        return ""
    sure = clear_of_zero(change)
    if figure.get("ratio"):
        return f"That is {growth(figure['ratio'])} on the same texts."
    verdict = "the interval is clear of zero" if sure else "the interval holds zero, so no change is shown"
    if change["low"] is None:
        verdict = "too few prompts to say how sure"
    return f'Change <span class="{"sure" if sure else ""}">{signed(change["value"])}</span> {range_of(change, signed)}: {verdict}.'
