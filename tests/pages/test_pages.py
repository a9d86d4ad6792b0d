"""The page maker: what every page keeps, whatever it shows."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jinja2 import UndefinedError

from hookline import Column, Table
from hookline_plugins.report import comparison, page
from hookline_plugins.report.plot import Intervals, Line, Plot, Point, Row, Scale
from reading_pages import UGLY, Page, read


def plot(name: str = "loss", points: int = 5) -> Plot:
    known = [Point(x, math.sin(x), math.sin(x) - 0.1, math.sin(x) + 0.1) for x in range(points)]
    return Plot(
        name, name, "step", [Line(name, known, "c1"), Line("limit", [Point(0, 1), Point(4, 1)], "ink", dashed=True)]
    )


def found(name: str = "a", seeds: int = 3) -> comparison.Json:
    """What `hookline.compare` gives for two configurations."""
    estimate = {"value": 0.5, "low": 0.4, "high": 0.6}
    several = [
        {"label": f"{name} {i}", "differs": {name: name}, "seeds": list(range(seeds)), "values": [0.4, 0.5, 0.6], "mean": 0.5, **estimate}
        for i in (1, 2)
    ]  # fmt: skip
    pair = {
        "first": f"{name} 1", "second": f"{name} 2", "paired": True, "seeds": list(range(seeds)), "difference": estimate,
        "clear": True, "improvement": {"value": 0.9, "low": None, "high": None}, "higher_at": seeds,
    }  # fmt: skip
    contrast = {
        "label": f"{name} 2", "baseline": f"{name} 1", "paired": True, "seeds": list(range(seeds)), "difference": estimate, "effect": 0.8,
        "chance": {"value": 0.9, "low": None, "high": None}, "p": 0.01, "p_holm": 0.02, "shown": True, "more_seeds": None, "words": name,
    }  # fmt: skip
    steps = {"values": {f"{name} {i}": estimate for i in (1, 2)}, "against": [contrast]}
    curve = [{"step": i, "samples": 8.0 * i, "seconds": 0.1 * i, **estimate} for i in range(3)]
    return {
        "metric": name, "better": "higher", "baseline": f"{name} 1", "verdicts": [f"{name} is better"],
        "equal": {"steps": {"at": 20, **steps}}, "area": {"steps": {"from": 0, "to": 20, **steps}},
        "phase": name, "rows": 12, "configurations": several, "pairs": [pair], "notes": [name], "moved": [],
        "curves": {f"{name} {i}": curve for i in (1, 2)}, "plane": {}, "frontier": None, "other_figures": [name],
    }  # fmt: skip


def test_a_name_that_a_template_does_not_get_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="numbers"):
        page.render("report.html")


@pytest.mark.parametrize("name", UGLY, ids=range(len(UGLY)))
def test_names_in_a_comparison_stay_text(name: str) -> None:
    shown = read(comparison.page(found(name)))
    shown.is_harmless()
    shown.is_accessible()
    assert " ".join(page.visible(name).split()) in shown.said
    for drawn in (shown.files()[f"{file}.svg"] for file in ("intervals", "step")):
        tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(drawn.encode()).iter()}
        assert tags <= {"svg", "g", "path", "circle", "rect", "text", "title"}
    text = comparison.markdown(found(name))
    assert not re.search(r"<[a-z/]", text)
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")} == {8, 18, 4}


def test_a_comparison_begins_with_who_is_better_and_has_a_table_per_way_to_compare() -> None:
    shown = read(comparison.page(found()))
    assert shown.said.index("a is better.") < shown.said.index("IQM")
    assert {"At equal cost", "Equal steps (20), against a 1", "Mean over steps (20), against a 1"} <= set(
        shown.headings
    )
    files = shown.files()
    assert files["against-equal-steps.csv"].splitlines()[-1].startswith("a 2,0.5,0.4,0.6,0.5,0.4,0.6,0.8,0.9")
    assert "a is better." in comparison.markdown(found())


def test_characters_that_are_not_seen_are_named_and_letters_are_left_alone() -> None:
    assert page.visible("a\0b\x1b\x7f\u202ec") == "a␀b␛␡⟨U+202E⟩c"
    for text in ("tabs\tand\nlines", "שלום مرحبا", "👩🏽‍🔬", "naïve"):
        assert page.visible(text) == text


def test_a_drawing_alone_is_whole_and_on_the_page_takes_its_colours() -> None:
    alone = page.drawing(plot())
    assert "var(" not in alone
    assert ElementTree.fromstring(alone.encode()).attrib["viewBox"]
    assert {"loss", "limit"} <= set(re.findall(r">([^<>]+)</text>", alone)), "it has its legend"
    assert "var(--c1)" in comparison.page(found())


def test_a_long_table_is_thinned_in_latex_and_whole_in_csv() -> None:
    files = {file.kind: file for file in page.files(plot(points=700))}
    shown = Page("".join(f'<a download="{file.name}" href="{file.href}"></a>' for file in files.values())).files()
    assert len(shown["loss.csv"].splitlines()) == 1 + 702
    assert shown["loss.tex"].count("\\\\\n") <= 1 + page.MOST_ROWS
    assert "one of 12 rows" in shown["loss.tex"]
    assert len(shown["loss.svg"]) < 12_000, "a drawing holds what can be seen"


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([1, 8], ["2", "4", "6", "8"]),
        ([3.0, 3.0], ["2", "3", "4"]),
        ([-0.05, 0.07], ["−0.05", "0.00", "0.05"]),
        ([0, 40_000], ["0", "10\u202f000", "20\u202f000", "30\u202f000", "40\u202f000"]),
        ([], ["0.0"]),
        ([float("nan"), 1e-30, 2e-30], None),
        ([1e300, -1e300], None),
    ],
)  # fmt: skip
def test_a_scale_shows_round_numbers_within_its_ends(values: list[float], ticks: list[str] | None) -> None:
    scale = Scale(values, 10, 290)
    shown = [scale.shown(tick) for tick in scale.ticks]
    assert len(set(shown)) == len(shown) >= 1
    assert all(10 <= scale(tick) <= 290 for tick in scale.ticks)
    assert ticks is None or set(ticks) <= set(shown)


def test_steps_are_whole() -> None:
    assert [scale.shown(tick) for scale in (Scale([1, 2], 0, 9, whole=True),) for tick in scale.ticks] == ["1", "2"]


def test_an_interval_that_is_not_known_is_left_out() -> None:
    rows = [Row("a", 1.0, None, None, "c1"), Row("b", 2.0, 1.5, 2.5, "c2")]
    drawn = page.drawing(Intervals("i", "i", "x", rows))
    assert drawn.count('stroke-opacity="0.7"') == 1
    assert "a: 1; b: 2, between 1.50 and 2.50" in drawn
    table = Table("t", (Column("name"), *page.estimated("x")), [{"name": "a"} | page.estimates(x=None)])
    assert page.text_table(table) == [["name", "x", ""], ["a", "–", "–"]]


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_and_drawings_stand_out_from_the_page_in_light_and_dark() -> None:
    """As WCAG 2 (AA) asks: 4.5 for text, 3 for drawings."""
    schemes = [
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", page.STYLE, re.S)
    ]
    assert len(schemes) == 2
    for colours in schemes:
        for below in ("page", "card"):
            for name in ("ink", "muted", "accent", *(f"c{i}" for i in range(10))):
                light, dark = sorted((luminance(colours[name]), luminance(colours[below])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= (4.5 if name in ("ink", "muted", "accent") else 3), (
                    name,
                    below,
                )


WIDE = "<script>onload = () => document.body.dataset.found = f.contentDocument.documentElement.scrollWidth</script>"


@pytest.mark.parametrize("name", ["a", "word" * 100])
def test_a_page_does_not_scroll_sideways_on_a_phone(name: str, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("needs Chromium: apt-get install chromium")
    (tmp_path / "page.html").write_text(comparison.page(found(name)))
    (tmp_path / "frame.html").write_text(
        f'<body><iframe id="f" src="page.html" width="360" height="800"></iframe>{WIDE}'
    )
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    options += (
        "--disable-component-update --disable-sync --allow-file-access-from-files --virtual-time-budget=2000 --dump-dom"
    )
    command = [browser, *options.split(), f"--user-data-dir={tmp_path}/profile", (tmp_path / "frame.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    [width] = re.findall(r'data-found="(\d+)"', shown)
    assert int(width) <= 360
