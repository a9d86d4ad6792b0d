"""`hookline.Table`: one table as text, CSV and LaTeX, with nothing lost and nothing that breaks the reader."""

from __future__ import annotations

import csv
import io
import math
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline import Column, Table
from hookline.cli.out import Printer
from needs import needs_program

COLUMNS = (
    Column("label", "configuration"),
    Column("seeds"),
    Column("gain", form="+.3g"),
    Column("range", "95 % interval", form=".3g", ends=True),
    Column("shown", ""),
)


def table() -> Table:
    made = Table("pairs", COLUMNS, caption="gains of 3 runs & more")
    made.add(label="ppo", seeds=5, gain=0.1 + 0.2, range=(1 / 3, 2 / 3), shown=True)
    made.add(label="a_b, 50%", seeds=10, gain=-2.0, range=(None, None), shown=False)
    made.add(label="[lr=1e-06] {x} \\y ~ ^ # $ < > | --", gain=math.nan, range={"low": -1.0, "high": 0.0})
    return made


def test_people_see_rounded_numbers_and_blanks() -> None:
    assert table().cells() == [
        ["ppo", "5", "+0.3", "[0.333, 0.667]", "yes"],
        ["a_b, 50%", "10", "−2", "", "no"],
        ["[lr=1e-06] {x} \\y ~ ^ # $ < > | --", "", "", "[−1, 0]", ""],
    ]
    assert Column("x", form="+.2f").shown(-0.0) == Column("x", form="+.2f").shown(0.0) == "0.00"
    assert Column("x").shown(1e-9) == "1e-09"


def test_csv_holds_every_digit() -> None:
    read = list(csv.DictReader(io.StringIO(table().csv())))
    assert list(read[0]) == ["label", "seeds", "gain", "range_low", "range_high", "shown"]
    assert float(read[0]["gain"]) == 0.1 + 0.2
    assert (float(read[0]["range_low"]), float(read[0]["range_high"])) == (1 / 3, 2 / 3)
    assert [row["label"] for row in read] == [row["label"] for row in table().rows]
    assert (read[1]["range_low"], read[2]["gain"], read[2]["shown"], read[1]["shown"]) == ("", "", "", "false")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.floats(allow_nan=False))))
def test_what_is_written_as_csv_is_read_back(rows: list[tuple[str, float]]) -> None:
    made = Table("t", (Column("name"), Column("value")))
    for name, value in rows:
        made.add(name=name, value=value)
    read = list(csv.DictReader(io.StringIO(made.csv())))
    assert [(row["name"], float(row["value"])) for row in read] == rows


def test_text_aligns_numbers_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    table().show(Printer(), most=2)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "gains of 3 runs & more"
    assert shown[1:] == [
        "configuration   seeds   gain   95 % interval",
        "ppo                 5   +0.3   [0.333, 0.667]   yes",
        "a_b, 50%           10     −2                    no",
    ]
    equal = Table("t", (Column("a", ""), Column("b", ""), Column("c", "x"), Column("d", "x")))
    equal.add(a="1", b="2", c="3", d="4")
    equal.show(Printer())
    assert capsys.readouterr().out.splitlines()[-1].split() == ["1", "2", "3", "4"]


def test_a_value_without_a_column_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError, match="table 'pairs' has no column 'seed'"):
        table().add(seed=3)


def test_an_empty_table_is_one_with_headings(capsys: pytest.CaptureFixture[str]) -> None:
    empty = Table("t", (Column("a"), Column("b", ends=True)))
    assert empty.csv() == "a,b_low,b_high\n"
    assert r"a & b \\" in empty.latex()
    empty.show(Printer())
    assert capsys.readouterr().out.split() == ["a", "b"]


def test_latex_is_a_booktabs_tabular_with_escaped_cells() -> None:
    text = table().latex()
    assert text.startswith(
        "% gains of 3 runs & more\n% \\usepackage{booktabs}\n\\begin{tabular}{@{}lrrll@{}}\n\\toprule\n"
    )
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")
    assert r"configuration & seeds & gain & 95 \% interval &  \\" in text
    assert r"a\_b, 50\% & 10 & $-$2 &  & no \\" in text
    assert r"{[}lr=1e-06{]} \{x\} \textbackslash{}y \textasciitilde{} \textasciicircum{} \# \$" in text
    assert r"\textless{} \textgreater{} \textbar{} -{}-" in text


@settings(max_examples=100)
@given(st.lists(st.text(), min_size=2, max_size=2))
def test_no_cell_breaks_a_latex_table(cells: list[str]) -> None:
    made = Table("t", (Column("a"), Column("b")))
    made.add(a=cells[0], b=cells[1])
    line = made.latex().splitlines()[-3]
    assert line.endswith(r" \\")
    bare = re.sub(r"\\(text\w+\{2?\}|[a-zA-Z]+|[&%$#_{}])", "", line.removesuffix(r"\\"))
    assert bare.count("&") == 1
    assert not set(bare) & set("%#_~^\\")
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0


@needs_program("pdflatex", "apt-get install texlive-latex-base texlive-latex-recommended")
def test_latex_compiles(tmp_path: Path) -> None:
    made = table()
    made.add(label="λ − ± × ≤ ≥ → ∞ ² – \" ` '' * ΓΔΘΛΞΠΣΦΨΩ αβγδεζηθικλμνξπρςστυφχψω é ß ñ")
    body = made.latex()
    (tmp_path / "t.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{body}\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").exists()
