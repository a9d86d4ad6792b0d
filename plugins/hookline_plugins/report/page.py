"""The report's page: one file, inline style, no script, nothing loaded from anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hookline_plugins.report.cards import headlines
from hookline_plugins.report.cells import (
    WORD,
    accuracies_of,
    clear_of_zero,
    count_of,
    marked,
    percent,
    percent_range,
    range_of,
    signed,
    text_of,
    visible,
    with_range,
)
from hookline_plugins.report.numbers import LEVEL
from hookline_plugins.report.words import beside, duration, number

Json = Mapping[str, Any]
PARTS = ("rollout", "reward", "advantage", "update")
"""Parts of a step in the order they happen; evaluations come behind them."""
STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")


def page(numbers: Json, drawn: Mapping[str, str], why_not: str, run_id: str) -> str:
    """The whole page. drawn: SVG by name, as `plots.draw` gives it; why_not: a sentence where there is none."""
    sections = [
        ("results", "Results", headlines(numbers)),
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
    title = text_of(numbers["name"])
    links = "".join(f'<a href="#{key}">{heading}</a>' for key, heading, _ in sections)
    body = "".join(f'<section id="{key}"><h2>{heading}</h2>{text}</section>' for key, heading, text in sections)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title} · Hookline report</title><style>{STYLE}</style></head>
<body><main><header><h1>{title}</h1>
<p class="lead">{count_of(len(numbers["phases"]), "phase")}, {count_of(steps, "step")}, {duration(seconds)} of work, seed
{numbers["seed"]}, Hookline {text_of(numbers["provenance"]["hookline"])}.</p><nav>{links}</nav></header>
{body}</main></body></html>
"""


# -- sections


def _what(numbers: Json) -> str:
    lines = "".join(
        f"<li><strong>{text_of(p['name'])}</strong> <span class='muted mono'>{text_of(p['chain'])}</span><br>{text_of(p['does'])}"
        f"{_best(p)}</li>"
        for p in numbers["phases"]
    )
    return f'<ol class="phases">{lines}</ol>'


def _best(phase: Json) -> str:
    best = phase["best"]
    if not best:
        return ""
    return f" Its best {text_of(best['figure'])} was {number(best['value'])}, at step {best['step']}; those weights are kept."


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
    own = beside(text_of(evaluation["name"]), ", {}")
    changes = [f["change"] for f in evaluation["figures"].values() if f.get("change")]
    first, last = evaluation["steps"][0], evaluation["steps"][-1]
    groups = f" in {count_of(evaluation['groups'], 'group')}" if evaluation["groups"] != evaluation["rows"] else ""
    body = "".join(_figure_line(name, figure) for name, figure in evaluation["figures"].items())
    return (
        f"""<h3>{text_of(phase["name"])}{own} <span class="muted">· {count_of(evaluation["rows"], "row")}{groups}</span></h3>
<div class="scroll"><table class="even"><thead><tr><th>figure</th><th>start (step {first})</th><th>end (step {last})</th><th>change</th>
<th></th><th>rows that rose</th></tr></thead><tbody>{body}</tbody></table></div>"""
        if changes or body
        else ""
    )


def _figure_line(name: str, figure: Json) -> str:
    first, last, change = figure["points"][0], figure["points"][-1], figure.get("change")
    cells = [text_of(name) + (' <span class="muted">(as logged)</span>' if figure["summary"] == "own" else "")]
    cells += [with_range(first), with_range(last)]
    if change:
        sure = "sure" if clear_of_zero(change) else ""
        ratio = f'<span class="range">× {number(figure["ratio"]["value"])}</span>' if figure.get("ratio") else ""
        value = f'<span class="{sure}">{signed(change["value"])}</span>'
        cells.append(f'{value}<span class="range">{range_of(change, signed)}</span>{ratio}')
        cells.append(_forest(change))
    else:
        cells += ["–", ""]
    wins = figure.get("wins")
    likelier = " likelier" if figure["summary"] == "perplexity" else ""
    cells.append(f'{percent(wins["value"])}{likelier}<span class="range">{percent_range(wins)}</span>' if wins else "–")
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _forest(change: Json) -> str:
    """The interval of a change as a small drawing; the vertical line is zero."""
    low, high, value = change["low"], change["high"], change["value"]
    if None in (low, high, value):
        return ""
    reach = max(abs(low), abs(high), abs(value)) or 1.0
    x = [70 + 64 * v / reach for v in (low, high, value)]
    colour = "var(--c1)" if clear_of_zero(change) else "var(--c0)"
    return (
        '<svg class="forest" viewBox="0 0 140 18" role="img" aria-label="interval of the change">'
        '<line x1="70" y1="1" x2="70" y2="17" stroke="var(--muted)" stroke-width="1"/>'
        f'<line x1="{x[0]:.1f}" y1="9" x2="{x[1]:.1f}" y2="9" stroke="{colour}" stroke-width="2.5"/>'
        f'<circle cx="{x[2]:.1f}" cy="9" r="4" fill="{colour}"/></svg>'
    )


def _accuracy(numbers: Json) -> str:
    parts = []
    for phase in numbers["phases"]:
        found = accuracies_of(phase)
        if not found:
            continue
        lines = "".join(
            f"<tr><td>{text_of(name)}</td><td>{percent(f['points'][0]['value'])}</td>"
            f"<td>{percent(f['points'][-1]['value'])}<span class='range'>{percent_range(f['points'][-1])}</span></td>"
            f"<td>{_gauge(f['points'][-1])}</td><td>{f['rows']}</td></tr>"
            for name, f in found
        )
        parts.append(
            f"<h3>{text_of(phase['name'])}</h3><div class='scroll'><table><thead><tr><th>figure</th><th>start</th><th>end</th>"
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
                f"<figure>{svg}<figcaption>{text_of(reward)} on held-out prompts against the distance from the "
                "reference, one point per evaluation; bars are the reward's intervals. High and to the left is good: much "
                "reward for little change.</figcaption></figure>"
            )
        else:
            parts.append(_reward_kl_table(numbers, reward))
    return f'<div class="figures">{"".join(parts)}</div>'


def _reward_kl_table(numbers: Json, reward: str) -> str:
    lines = "".join(
        f"<tr><td>{text_of(phase['name'])}</td><td>{point['step']}</td><td>{number(point['kl']['value'])}</td>"
        f"<td>{with_range(point['reward'])}</td></tr>"
        for phase in numbers["phases"]
        for curve in phase["reward_kl"]
        if curve["reward"] == reward
        for point in curve["points"]
    )
    return f"""<div class="scroll"><table><thead><tr><th>phase</th><th>step</th><th>KL, nats per answer</th>
<th>{text_of(reward)}</th></tr></thead><tbody>{lines}</tbody></table></div>"""


def _curves(numbers: Json, drawn: Mapping[str, str], why_not: str) -> str:
    parts = [f'<p class="note">{text_of(why_not)}</p>'] if why_not else []
    for phase in numbers["phases"]:
        svg, more = drawn.get(f"curves/{phase['name']}"), drawn.get(f"more/{phase['name']}")
        if svg or more:
            parts.append(f"<h3>{text_of(phase['name'])}</h3>" + (f"<figure>{svg}</figure>" if svg else ""))
            parts.append(
                f"<details><summary>more of {text_of(phase['name'])}</summary><figure>{more}</figure></details>"
                if more
                else ""
            )
        elif phase["curves"]:
            parts.append(f"<h3>{text_of(phase['name'])}</h3>{_curve_table(phase)}")
    legend = """<p class="caption">Grey is training, over steps, with a moving mean where there are many; colour is the
held-out evaluation with its interval; dashes are targets and ceilings. What each name means stands
<a href="#words">below</a>. All points, also of figures not drawn, are in report.json.</p>"""
    return (legend if drawn else "") + "".join(parts)


def _curve_table(phase: Json) -> str:
    """First, middle and last value of each figure, for pages without drawings."""
    lines = ""
    for name, points in phase["curves"].items():
        shown = [points[0], points[len(points) // 2], points[-1]]
        lines += f"<tr><td>{text_of(name)}</td>" + "".join(f"<td>{number(v)}</td>" for _, v in shown) + "</tr>"
    return f"""<div class="scroll"><table><thead><tr><th>figure</th><th>first</th><th>midway</th><th>last</th></tr></thead>
<tbody>{lines}</tbody></table></div>"""


def _answers(numbers: Json) -> str:
    parts = []
    for phase in numbers["phases"]:
        for evaluation in phase["evaluations"]:
            if evaluation["examples"]:
                own = beside(text_of(evaluation["name"]), ", {}")
                before = f"before (the end of {text_of(phase['starts_from'])})" if phase["starts_from"] else "before"
                asked = [set(words_of(example["prompt"])) for example in evaluation["examples"]]
                always = set.intersection(*asked) if len(asked) > 1 else set()
                shown = "".join(_example(example, before, always) for example in evaluation["examples"])
                parts.append(f"<h3>{text_of(phase['name'])}{own}</h3>{shown}")
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
    return " · ".join(f"{text_of(name)} {number(value)}" for name, value in terms.items())


def _time(numbers: Json) -> str:
    phases = numbers["timings"]["phases"]
    known = dict.fromkeys(part for phase in phases.values() for part in phase["parts"])
    parts = [part for part in PARTS if part in known] + sorted(part for part in known if part not in PARTS)
    total = sum(phase["seconds"] for phase in phases.values())
    if not total:
        return ""
    head = "".join(f"<th>{text_of(part)}</th>" for part in parts)
    lines = ""
    for name, phase in phases.items():
        cells = "".join(f"<td>{phase['parts'].get(p, 0.0):.1f}</td>" for p in parts)
        speed = number(phase["tokens_per_second"])
        lines += f"<tr><td>{text_of(name)}</td><td>{duration(phase['seconds'])}</td>{cells}<td>{speed}</td></tr>"
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
    lines = "".join(f"<dt>{text_of(word)}</dt><dd>{text_of(text)}</dd>" for word, text in fixed)
    logged = ""
    for name, meaning in numbers["words"].items():
        unit = f" ({text_of(meaning['unit'])})" if meaning["unit"] else ""
        text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text_of(meaning["formula"]))
        logged += f"<dt><code>{text_of(name)}</code></dt><dd>{text}{unit}</dd>"
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
    shown = "".join(f"<dt>{key}</dt><dd>{text_of(value)}</dd>" for key, value in facts)
    weights = "".join(
        f"<tr><td>{text_of(name)}</td><td class='left mono'>{text_of(sha)}</td></tr>"
        for name, sha in p["weights"].items()
    )
    data = "".join(
        f"<tr><td>{text_of(name)}</td><td>{d['rows']}</td><td class='left mono'>{text_of(d['sha256'])}</td></tr>"
        for name, d in p["data"].items()
    )
    plugins = "".join(
        f"<tr><td>{text_of(o['name'])}</td><td class='left'>{text_of(o['kind'])}</td>"
        f"<td class='left'>{text_of(o['distribution'])} {text_of(o['version'])}</td>"
        f"<td class='left mono'>{text_of(o['sha256'][:16])}</td></tr>"
        for o in p["plugins"]
    )
    return f"""<dl>{shown}</dl>
<p class="caption">Equal hashes mean equal contents. Weights are those a phase ended with, SHA-256 over names, shapes and
bytes; data is hashed as it was read; a plugin by the file its class stands in; trackers change no figure and are left out.</p>
<details><summary>Weights, by phase</summary><div class="scroll"><table><tbody>{weights}</tbody></table></div></details>
<details><summary>Data</summary><div class="scroll"><table><tbody>{data}</tbody></table></div></details>
<details><summary>Plugins</summary><div class="scroll"><table><tbody>{plugins}</tbody></table></div></details>"""


# -- words and numbers
