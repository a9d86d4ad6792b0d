"""Sentences are plain: no text in the code and no page holds a word that CONTRIBUTING.md refuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = sorted(path for room in ("core", "plugins") for path in (ROOT / room).rglob("*.py"))
PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "changes").glob("*.md"),
        *(ROOT / "core").glob("*.md"),
    )
    if path.name not in ("api.md", "components.md")  # made from the docstrings
)


def refused() -> list[str]:
    """The words of the block in CONTRIBUTING.md; what comes after the colon says what to write."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = page.partition("Words that are refused")[2].partition("```text\n")[2].partition("\n```")[0]
    return [word.strip() for line in block.splitlines() for word in line.partition(":")[0].split(",")]


REFUSED = re.compile(
    r"(?<!there )(?<![\w'`-])(?:"
    + "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in refused())
    + r")(?![\w'`-])(?! longer| more\b)",
    re.IGNORECASE,
)


def found_in(text: str) -> list[str]:
    """The refused words of a text; what is in backticks is code."""
    return REFUSED.findall(re.sub(r"`[^`\n]*`", "", text))


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every string of a module, with its line; the parts of an f-string apart."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def prose(page: str) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)


def test_the_list_is_read_and_a_word_of_it_is_found() -> None:
    assert {"mend", "is no", "who answers"} <= set(refused())
    assert found_in("x is no run; run `mend` to mend\n it") == ["is no", "mend"]
    assert not found_in("It is no longer there, and there is no folder. Bearing.")


@pytest.mark.parametrize("room", sorted({path.relative_to(ROOT).parts[2] for path in CODE}))
def test_no_text_of_the_code_holds_a_refused_word(room: str) -> None:
    mine = [path for path in CODE if path.relative_to(ROOT).parts[2] == room]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {found}"
        for path in mine
        for line, text in texts(path)
        for found in found_in(text)
    ]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_page_holds_a_refused_word(page: Path) -> None:
    lines = prose(page.read_text(encoding="utf-8")).splitlines()
    assert not [f"{line}: {found}" for line in lines for found in found_in(line)]
