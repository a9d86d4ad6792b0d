"""The report's page: one file, inline style, no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hookline_plugins.trackers.report_numbers import LEVEL, NO_REWARD
from hookline_plugins.trackers.words import beside, duration, number

Json = Mapping[str, Any]
PARTS = ("rollout", "reward", "advantage", "update")
"""Parts of a step in the order they happen; evaluations come behind them."""
WORD = re.compile(r"[^\W\d_]+")

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #ffffff; --ink: #1f2328; --muted: #63686f; --grid: #dcd9d1;
  --accent: #0b6e6e; --mark: #fff0b3; --c0: #8a9099; --c1: #0b7a75; --c2: #c2570c; --c3: #6b4fbb; --c4: #b3261e; --c5: #2563a8; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --card: #1e2125; --ink: #e6e4df; --muted: #9aa0a8;
  --grid: #363a40; --accent: #5cc4bf; --mark: #5b4a10; --c0: #858c96; --c1: #4fc0ba; --c2: #f0954d; --c3: #a894f0;
  --c4: #f08a80; --c5: #78b0ee; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.015em; }
h2 { font-size: 1.35rem; margin: 3.2rem 0 .8rem; letter-spacing: -.01em; }
h3 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .6rem 0; max-width: 46rem; }
.lead, .caption, .muted { color: var(--muted); }
.caption { font-size: .86rem; line-height: 1.5; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 1.2rem 0 0; font-size: .92rem; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
code, .mono { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: .86em; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(17.5rem, 1fr)); gap: 1rem; margin-top: 1.2rem; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: .7rem; padding: 1.1rem 1.2rem; }
.card .label { font-size: .86rem; color: var(--muted); }
.card .big { font-size: 1.85rem; font-weight: 650; line-height: 1.25; margin: .15rem 0 .3rem; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card .big small { font-size: 1.1rem; font-weight: 500; color: var(--muted); }
.card p { margin: .25rem 0; font-size: .93rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th { text-align: right; font-weight: 600; color: var(--muted); font-size: .82rem; padding: .35rem .7rem;
  border-bottom: 1px solid var(--grid); vertical-align: bottom; }
td { text-align: right; padding: .45rem .7rem; border-bottom: 1px solid var(--grid); vertical-align: top; white-space: nowrap; }
th:first-child, td:first-child, .left { text-align: left; padding-left: 0; white-space: normal; }
td .range { display: block; font-size: .82rem; color: var(--muted); }
table.even { table-layout: fixed; min-width: 56rem; } table.even th:first-child { width: 24%; }
.sure { font-weight: 650; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
figure { margin: 1rem 0; background: var(--card); border: 1px solid var(--grid); border-radius: .7rem; padding: 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 0 1rem; }
.figures figure { max-width: 36rem; }
figcaption { font-size: .86rem; color: var(--muted); margin-top: .6rem; }
svg.forest { width: 9rem; height: 1.1rem; display: inline-block; vertical-align: middle; }
ol.phases { padding: 0; list-style: none; counter-reset: phase; }
ol.phases li { counter-increment: phase; padding: .55rem 0 .55rem 2.4rem; position: relative; border-bottom: 1px solid var(--grid); }
ol.phases li::before { content: counter(phase); position: absolute; left: 0; top: .6rem; width: 1.6rem; height: 1.6rem; line-height: 1.6rem;
  border-radius: 50%; background: var(--grid); text-align: center; font-size: .82rem; }
.example { background: var(--card); border: 1px solid var(--grid); border-radius: .7rem; padding: .8rem 1rem; margin: .7rem 0;
  break-inside: avoid; }
.example .pair { display: grid; grid-template-columns: 1fr 1fr; gap: .3rem 1.4rem; margin-top: .4rem; }
.example .text { white-space: pre-wrap; overflow-wrap: anywhere; }
.example .terms { font-size: .8rem; color: var(--muted); }
mark { background: var(--mark); color: inherit; border-radius: .2rem; padding: 0 .12em; }
.bar { display: flex; height: .8rem; border-radius: .25rem; overflow: hidden; min-width: 8rem; }
dl { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .35rem 1.4rem; font-size: .92rem; }
dt { font-weight: 600; overflow-wrap: anywhere; } dd { margin: 0; color: var(--muted); overflow-wrap: anywhere; }
details > summary { cursor: pointer; color: var(--accent); margin: .6rem 0; }
.note { border-left: 3px solid var(--accent); padding: .1rem 0 .1rem .9rem; }
@media (max-width: 40rem) { .example .pair { grid-template-columns: 1fr; } dl { grid-template-columns: 1fr; } }
@media print { body { font-size: 11pt; background: #fff; } main { max-width: none; padding: 0; } nav { display: none; }
  h2, h3 { break-after: avoid; } figure, .card, .example, tr { break-inside: avoid; } }
"""


def page(numbers: Json, drawn: Mapping[str, str], why_not: str, run_id: str) -> str:
    """The whole page. drawn: SVG by name, as report_plots gives it; why_not: a sentence where there is none."""
    sections = [
        ("results", "Results", _headlines(numbers)),
        ("what", "What was run", _what(numbers)),
        ("evaluations", "Before and after, in figures", _evaluations(numbers)),
        ("reward-model", "The reward model beside its ceiling", _accuracy(numbers)),
        ("reward-kl", "Reward against KL", _reward_kl(numbers, drawn)),
        ("curves", "Curves", _curves(numbers, drawn, why_not)),
        ("answers", "Answers before and after", _answers(numbers)),
        ("time", "Where the time went", _time(numbers)),
        ("words", "What the words mean", _words(numbers)),
        ("provenance", "What it ran on", _provenance(numbers, run_id)),
    ]
    sections = [section for section in sections if section[2]]
    steps = sum(phase["steps"] for phase in numbers["phases"])
    seconds = sum(phase["seconds"] for phase in numbers["timings"]["phases"].values())
    title = _name(numbers["name"])
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{heading}</h2>{text}</section>' for key, heading, text in sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title} · Hookline report</title><style>{STYLE}</style></head>
<body><main><header><h1>{title}</h1>
<p class="lead">{_count(len(numbers["phases"]), "phase")}, {_count(steps, "step")}, {duration(seconds)} of work, seed
{numbers["seed"]}, Hookline {_name(numbers["provenance"]["hookline"])}.</p><nav>{links}</nav></header>
{body}</main></body></html>
"""


# -- results first


def _headlines(numbers: Json) -> str:
    """A card per phase that was evaluated: policies that were paid first, then reward models, then the rest."""
    cards: list[tuple[int, str]] = []
    for phase in numbers["phases"]:
        if phase["reward_kl"]:
            cards.append((0, _policy_card(phase)))
            continue
        if accuracies := _accuracies(phase):
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
        against = f"against {_name(phase['starts_from'])}" if phase["starts_from"] else "against its start"
        lines.append(f"Wins {_percent(wins['value'])} {_percent_range(wins)} of held-out rows {against}, ties half.")
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
            lines.append(f"KL {number(last['value'])} {_range(last)} nats per answer{beside}.")
        elif other.get("ratio"):
            lines.append(f"Held-out perplexity {ends}, {_growth(other['ratio'])}.")
        elif name in others and other.get("change"):
            change = other["change"]
            lines.append(f"{_name(name)} {ends}, {_signed(change['value'])} {_range(change, _signed)}.")
    return _card(f"{_name(phase['name'])} · {_name(first)}", figure, lines)


def _plain_card(phase: Json, evaluation: Json, name: str, figure: Json) -> str:
    own = beside(_name(evaluation["name"]), " on {}")
    return _card(f"{_name(phase['name'])} · {_name(name)}{own}", figure, [_change_sentence(figure)])


def _accuracy_card(phase: Json, accuracies: Sequence[tuple[str, Json]]) -> str:
    """The first accuracy large; the others, the ceiling among them, beneath it."""
    (name, figure), *others = accuracies
    lines = [f"{_name(n)}: {_percent(f['points'][-1]['value'])} {_percent_range(f['points'][-1])}" for n, f in others]
    last = figure["points"][-1]
    big = f'<div class="big">{_percent(last["value"])} <small>{_percent_range(last)}</small></div>'
    text = "".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="card"><div class="label">{_name(phase["name"])} · {_name(name)} of held-out comparisons</div>{big}{text}</div>'


def _card(label: str, figure: Json, lines: Iterable[str]) -> str:
    first, last = figure["points"][0], figure["points"][-1]
    big = f"<small>{number(first['value'])} →</small> {number(last['value'])}"
    text = "".join(f"<p>{line}</p>" for line in lines if line)
    return f'<div class="card"><div class="label">{label}</div><div class="big">{big}</div>{text}</div>'


def _change_sentence(figure: Json) -> str:
    change = figure.get("change")
    if not change:
        return ""
    sure = _clear_of_zero(change)
    if figure.get("ratio"):
        return f"That is {_growth(figure['ratio'])} on the same texts."
    verdict = "the interval is clear of zero" if sure else "the interval holds zero, so no change is shown"
    return f'Change <span class="{"sure" if sure else ""}">{_signed(change["value"])}</span> {_range(change, _signed)}: {verdict}.'


# -- sections


def _what(numbers: Json) -> str:
    lines = "".join(
        f"<li><strong>{_name(p['name'])}</strong> <span class='muted mono'>{_name(p['chain'])}</span><br>{_name(p['does'])}"
        f"{_best(p)}</li>"
        for p in numbers["phases"]
    )
    return f'<ol class="phases">{lines}</ol>'


def _best(phase: Json) -> str:
    best = phase["best"]
    if not best:
        return ""
    return f" Its best {_name(best['figure'])} was {number(best['value'])}, at step {best['step']}; those weights are kept."


def _evaluations(numbers: Json) -> str:
    parts = []
    for phase in numbers["phases"]:
        for evaluation in phase["evaluations"]:
            parts.append(_evaluation(phase, evaluation))
    if not parts:
        return ""
    caption = f"""<p class="caption">Start and end of each phase, on rows that training never sees. Brackets hold {LEVEL} %
bootstrap intervals: groups (the rows of one prompt) are drawn anew with replacement {numbers["resamples"]:,} times, and
the middle {LEVEL} % of the resulting figures is shown. <em>Change</em> is end − start on the same prompts with the same
seeds, in bold where its interval, the line in the small drawing, is clear of zero. <em>Rows that rose</em> is the
share of rows whose own value rose (for perplexity: whose text became likelier); ties count half, so 50 % is no
change.</p>"""
    return caption + "".join(parts)


def _evaluation(phase: Json, evaluation: Json) -> str:
    own = beside(_name(evaluation["name"]), ", {}")
    changes = [f["change"] for f in evaluation["figures"].values() if f.get("change")]
    first, last = evaluation["steps"][0], evaluation["steps"][-1]
    groups = f" in {_count(evaluation['groups'], 'group')}" if evaluation["groups"] != evaluation["rows"] else ""
    body = "".join(_figure_line(name, figure) for name, figure in evaluation["figures"].items())
    return (
        f"""<h3>{_name(phase["name"])}{own} <span class="muted">· {_count(evaluation["rows"], "row")}{groups}</span></h3>
<div class="scroll"><table class="even"><thead><tr><th>figure</th><th>start (step {first})</th><th>end (step {last})</th><th>change</th>
<th></th><th>rows that rose</th></tr></thead><tbody>{body}</tbody></table></div>"""
        if changes or body
        else ""
    )


def _figure_line(name: str, figure: Json) -> str:
    first, last, change = figure["points"][0], figure["points"][-1], figure.get("change")
    cells = [_name(name) + (' <span class="muted">(as logged)</span>' if figure["summary"] == "own" else "")]
    cells += [_with_range(first), _with_range(last)]
    if change:
        sure = "sure" if _clear_of_zero(change) else ""
        ratio = f'<span class="range">× {number(figure["ratio"]["value"])}</span>' if figure.get("ratio") else ""
        value = f'<span class="{sure}">{_signed(change["value"])}</span>'
        cells.append(f'{value}<span class="range">{_range(change, _signed)}</span>{ratio}')
        cells.append(_forest(change))
    else:
        cells += ["–", ""]
    wins = figure.get("wins")
    likelier = " likelier" if figure["summary"] == "perplexity" else ""
    cells.append(
        f'{_percent(wins["value"])}{likelier}<span class="range">{_percent_range(wins)}</span>' if wins else "–"
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _forest(change: Json) -> str:
    """The interval of a change as a small drawing; the vertical line is zero."""
    low, high, value = change["low"], change["high"], change["value"]
    if None in (low, high, value):
        return ""
    reach = max(abs(low), abs(high), abs(value)) or 1.0
    x = [70 + 64 * v / reach for v in (low, high, value)]
    colour = "var(--c1)" if _clear_of_zero(change) else "var(--c0)"
    return (
        '<svg class="forest" viewBox="0 0 140 18" role="img" aria-label="interval of the change">'
        '<line x1="70" y1="1" x2="70" y2="17" stroke="var(--muted)" stroke-width="1"/>'
        f'<line x1="{x[0]:.1f}" y1="9" x2="{x[1]:.1f}" y2="9" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{x[2]:.1f}" cy="9" r="4" fill="{colour}"/></svg>'
    )


def _accuracies(phase: Json) -> list[tuple[str, Json]]:
    figures = [item for evaluation in phase["evaluations"] for item in evaluation["figures"].items()]
    return [(name, figure) for name, figure in figures if figure["component"] == "pair-accuracy" and figure["rows"]]


def _accuracy(numbers: Json) -> str:
    parts = []
    for phase in numbers["phases"]:
        found = _accuracies(phase)
        if not found:
            continue
        lines = "".join(
            f"<tr><td>{_name(name)}</td><td>{_percent(f['points'][0]['value'])}</td>"
            f"<td>{_percent(f['points'][-1]['value'])}<span class='range'>{_percent_range(f['points'][-1])}</span></td>"
            f"<td>{_gauge(f['points'][-1])}</td><td>{f['rows']}</td></tr>"
            for name, f in found
        )
        parts.append(
            f"<h3>{_name(phase['name'])}</h3><div class='scroll'><table><thead><tr><th>figure</th><th>start</th><th>end</th>"
            f"<th>50 to 100 %</th><th>judgements</th></tr></thead><tbody>{lines}</tbody></table></div>"
        )
    if not parts:
        return ""
    caption = """<p class="caption">The share of held-out comparisons that the reward model orders as they were judged. People, and the
simulated annotator, do not always prefer the better answer, so no model can reach 100 %: the <em>ceiling</em> is the share
that somebody who knew the true reward would get, E[σ(|Δ|)] under Bradley–Terry. Accuracy <em>against gold</em> counts the
order by the true reward itself, without that noise; equal answers are left out.</p>"""
    return caption + "".join(parts)


def _gauge(point: Json) -> str:
    """A share as a bar from one half, where guessing stands, to one."""
    if None in (point["value"], point["low"], point["high"]):
        return ""
    x = [max(0.0, min(1.0, 2 * v - 1)) * 132 + 4 for v in (point["value"], point["low"], point["high"])]
    return (
        '<svg class="forest" viewBox="0 0 140 18" role="img" aria-label="share">'
        '<rect x="4" y="6" width="132" height="6" rx="3" fill="var(--grid)"/>'
        f'<rect x="4" y="6" width="{x[0] - 4:.1f}" height="6" rx="3" fill="var(--c1)"/>'
        f'<line x1="{x[1]:.1f}" y1="9" x2="{x[2]:.1f}" y2="9" stroke="var(--ink)" stroke-width="1.2"/></svg>'
    )


def _reward_kl(numbers: Json, drawn: Mapping[str, str]) -> str:
    measured = [curve["reward"] for phase in numbers["phases"] for curve in phase["reward_kl"]]
    if not measured:
        return ""
    parts = []
    for reward in dict.fromkeys(measured):
        svg = drawn.get(f"reward-kl/{reward}")
        if svg:
            parts.append(
                f"<figure>{svg}<figcaption>{_name(reward)} on held-out prompts against the distance from the "
                "reference, one point per evaluation; bars are the reward's intervals. High and to the left is good: much "
                "reward for little change.</figcaption></figure>"
            )
        else:
            parts.append(_reward_kl_table(numbers, reward))
    return f'<div class="figures">{"".join(parts)}</div>'


def _reward_kl_table(numbers: Json, reward: str) -> str:
    lines = "".join(
        f"<tr><td>{_name(phase['name'])}</td><td>{point['step']}</td><td>{number(point['kl']['value'])}</td>"
        f"<td>{_with_range(point['reward'])}</td></tr>"
        for phase in numbers["phases"]
        for curve in phase["reward_kl"]
        if curve["reward"] == reward
        for point in curve["points"]
    )
    return f"""<div class="scroll"><table><thead><tr><th>phase</th><th>step</th><th>KL, nats per answer</th>
<th>{_name(reward)}</th></tr></thead><tbody>{lines}</tbody></table></div>"""


def _curves(numbers: Json, drawn: Mapping[str, str], why_not: str) -> str:
    parts = [f'<p class="note">{_name(why_not)}</p>'] if why_not else []
    for phase in numbers["phases"]:
        svg, more = drawn.get(f"curves/{phase['name']}"), drawn.get(f"more/{phase['name']}")
        if svg or more:
            parts.append(f"<h3>{_name(phase['name'])}</h3>" + (f"<figure>{svg}</figure>" if svg else ""))
            parts.append(
                f"<details><summary>more of {_name(phase['name'])}</summary><figure>{more}</figure></details>"
                if more
                else ""
            )
        elif phase["curves"]:
            parts.append(f"<h3>{_name(phase['name'])}</h3>{_curve_table(phase)}")
    legend = """<p class="caption">Grey is training, over steps, with a moving mean where there are many; colour is the
held-out evaluation with its interval; dashes are targets and ceilings. What each name means stands
<a href="#words">below</a>. All points, also of figures not drawn, are in report.json.</p>"""
    return (legend if drawn else "") + "".join(parts)


def _curve_table(phase: Json) -> str:
    """First, middle and last value of each figure, for pages without drawings."""
    lines = ""
    for name, points in phase["curves"].items():
        shown = [points[0], points[len(points) // 2], points[-1]]
        lines += f"<tr><td>{_name(name)}</td>" + "".join(f"<td>{number(v)}</td>" for _, v in shown) + "</tr>"
    return f"""<div class="scroll"><table><thead><tr><th>figure</th><th>first</th><th>midway</th><th>last</th></tr></thead>
<tbody>{lines}</tbody></table></div>"""


def _answers(numbers: Json) -> str:
    parts = []
    for phase in numbers["phases"]:
        for evaluation in phase["evaluations"]:
            if evaluation["examples"]:
                own = beside(_name(evaluation["name"]), ", {}")
                before = f"before (the end of {_name(phase['starts_from'])})" if phase["starts_from"] else "before"
                asked = [set(words_of(example["prompt"])) for example in evaluation["examples"]]
                always = set.intersection(*asked) if len(asked) > 1 else set()
                shown = "".join(_example(example, before, always) for example in evaluation["examples"])
                parts.append(f"<h3>{_name(phase['name'])}{own}</h3>{shown}")
    if not parts:
        return ""
    return (
        '<p class="caption">The first prompts of each evaluation, as they come and not chosen; the same seeds before and after. '
        "Words of the prompt are marked where they stand in the answer.</p>" + "".join(parts)
    )


def words_of(text: str) -> list[str]:
    """Words of three letters and more, in small letters."""
    return [word.lower() for word in WORD.findall(text) if len(word) > 2]


def _example(example: Json, before: str, always: set[str]) -> str:
    """One prompt, its answers side by side; words that every prompt has (`Words: …`) ask for nothing."""
    wanted = set(words_of(example["prompt"])) - always
    sides = "".join(
        f'<div><div class="muted caption">{title}</div><div class="text">{marked(side["response"], wanted)}</div>'
        f'<div class="terms">{_terms(side["terms"])}</div></div>'
        for title, side in ((before, example["before"]), ("after", example["after"]))
    )
    return f'<div class="example"><strong class="text">{visible(example["prompt"])}</strong><div class="pair">{sides}</div></div>'


def _terms(terms: Json) -> str:
    return " · ".join(f"{_name(name)} {number(value)}" for name, value in terms.items())


def _time(numbers: Json) -> str:
    phases = numbers["timings"]["phases"]
    known = dict.fromkeys(part for phase in phases.values() for part in phase["parts"])
    parts = [part for part in PARTS if part in known] + sorted(part for part in known if part not in PARTS)
    total = sum(phase["seconds"] for phase in phases.values())
    if not total:
        return ""
    head = "".join(f"<th>{_name(part)}</th>" for part in parts)
    lines = ""
    for name, phase in phases.items():
        cells = "".join(f"<td>{phase['parts'].get(p, 0.0):.1f}</td>" for p in parts)
        speed = number(phase["tokens_per_second"])
        lines += f"<tr><td>{_name(name)}</td><td>{duration(phase['seconds'])}</td>{cells}<td>{speed}</td></tr>"
    sums = "".join(f"<td>{sum(p['parts'].get(part, 0.0) for p in phases.values()):.1f}</td>" for part in parts)
    lines += f'<tr class="sure"><td>all</td><td>{duration(total)}</td>{sums}<td></td></tr>'
    caption = """<p class="caption">Wall time of the steps that count, in seconds by part of the loop; start-up, saving, and
steps that were redone after a stop are not in it. Tokens per second are the tokens the policy chose, or learned from, over
the whole step.</p>"""
    return f"""{caption}<div class="scroll"><table><thead><tr><th>phase</th><th>wall time</th>{head}<th>tokens/s</th></tr></thead>
<tbody>{lines}</tbody></table></div>"""


def _words(numbers: Json) -> str:
    fixed = [
        (f"{LEVEL} % interval", "where the figure would lie, had other prompts of the same kind been drawn: the middle "
         f"{LEVEL} % of {numbers['resamples']:,} bootstrap draws over prompts, with a fixed seed"),
        ("perplexity", "exp(−Σ log p(token) / tokens): among how many equally likely tokens the model seems to choose; "
         "lower is better"),
        ("KL per answer", "mean over answers the policy drew of Σ_t log π(a_t) − log π_ref(a_t), in nats: how far the policy "
         "has moved from the reference. An estimate, so it may fall below 0 by chance"),
        ("rows that rose", "the win rate: share of rows whose own value is higher at the end than at the start, ties half"),
    ]  # fmt: skip
    lines = "".join(f"<dt>{_name(word)}</dt><dd>{_name(text)}</dd>" for word, text in fixed)
    logged = ""
    for name, meaning in numbers["words"].items():
        unit = f" ({_name(meaning['unit'])})" if meaning["unit"] else ""
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", _name(meaning["formula"]))
        logged += f"<dt><code>{_name(name)}</code></dt><dd>{text}{unit}</dd>"
    return f"<dl>{lines}</dl><details open><summary>Every logged figure</summary><dl>{logged}</dl></details>"


def _provenance(numbers: Json, run_id: str) -> str:
    p = numbers["provenance"]
    facts = [
        ("run", run_id),
        ("seed", numbers["seed"]),
        ("Hookline", p["hookline"]),
        ("kernels", p["kernels"]),
        ("torch", p["torch"]),
        ("Python", f"{p['python']} on {p['machine']}, {p['threads']} threads"),
    ]
    shown = "".join(f"<dt>{key}</dt><dd>{_name(value)}</dd>" for key, value in facts)
    weights = "".join(
        f"<tr><td>{_name(name)}</td><td class='left mono'>{_name(sha)}</td></tr>" for name, sha in p["weights"].items()
    )
    data = "".join(
        f"<tr><td>{_name(name)}</td><td>{d['rows']}</td><td class='left mono'>{_name(d['sha256'])}</td></tr>"
        for name, d in p["data"].items()
    )
    plugins = "".join(
        f"<tr><td>{_name(o['name'])}</td><td class='left'>{_name(o['kind'])}</td>"
        f"<td class='left'>{_name(o['distribution'])} {_name(o['version'])}</td><td class='left mono'>{_name(o['sha256'][:16])}</td></tr>"
        for o in p["plugins"]
    )
    return f"""<dl>{shown}</dl>
<p class="caption">Equal hashes mean equal contents. Weights are those a phase ended with, SHA-256 over names, shapes and
bytes; data is hashed as it was read; a plugin by the file its class stands in; trackers change no figure and are left out.</p>
<details><summary>Weights, by phase</summary><div class="scroll"><table><tbody>{weights}</tbody></table></div></details>
<details><summary>Data</summary><div class="scroll"><table><tbody>{data}</tbody></table></div></details>
<details><summary>Plugins</summary><div class="scroll"><table><tbody>{plugins}</tbody></table></div></details>"""


# -- words and numbers


def visible(text: str) -> str:
    """Model output as safe HTML; control characters are shown as pictures, not sent to the browser."""
    pictured = "".join(
        chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else "␡" if c == "\x7f" else c for c in text
    )
    return escape(pictured)


def marked(text: str, wanted: set[str]) -> str:
    """Model output as safe HTML, wanted words marked."""
    out, at = "", 0
    for match in WORD.finditer(text):
        if match.group().lower() in wanted:
            out += visible(text[at : match.start()]) + f"<mark>{visible(match.group())}</mark>"
            at = match.end()
    return out + visible(text[at:])


def _name(text: Any) -> str:
    return visible(str(text))


def _count(amount: int, thing: str) -> str:
    return f"{amount:,} {thing}{'' if amount == 1 else 's'}"


def _signed(value: float | None) -> str:
    return f"+{number(value)}" if value is not None and value > 0 else number(value)


def _growth(ratio: Json) -> str:
    """A ratio as `+12 % [8, 16]`."""
    if None in (ratio["value"], ratio["low"], ratio["high"]):
        return "–"
    value, low, high = (f"{100 * (ratio[key] - 1):.0f}".replace("-", "−") for key in ("value", "low", "high"))
    return f"{'+' if ratio['value'] >= 1 else ''}{value}\u00a0% [{low}, {high}]"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def _range(point: Json, how: Any = number) -> str:
    return "" if point["low"] is None or point["high"] is None else f"[{how(point['low'])}, {how(point['high'])}]"


def _percent_range(point: Json) -> str:
    if point["low"] is None or point["high"] is None:
        return ""
    return f"[{100 * point['low']:.0f}, {100 * point['high']:.0f}]"


def _with_range(point: Json) -> str:
    return f'{number(point["value"])}<span class="range">{_range(point)}</span>'


def _clear_of_zero(change: Json) -> bool:
    low, high = change["low"], change["high"]
    return low is not None and high is not None and (low > 0 or high < 0)
