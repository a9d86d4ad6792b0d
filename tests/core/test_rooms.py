"""The rooms of the core: how many lines each has, against the table in core/DESIGN.md and the limits it states."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "hookline"
APART = {"study", "kernels", "testing", "cli"}
FILE, ROOM = 350, 900
ABOVE = {
    "config": 1400, "contract": 2900, "data": 2000, "files": 1100, "inference": 1000, "loop": 2650, "models": 1900, "plan": 1350,
    "runs": 1200, "tokens": 1350, "training": 1000, "world": 1000,
}  # fmt: skip
"""Rooms beyond the limit, with what they may have; core/DESIGN.md says why."""


def counted() -> dict[Path, int]:
    """Lines of every file that are neither blank nor comment."""
    files = [path for path in CORE.rglob("*.py") if "templates" not in path.parts]
    return {
        path.relative_to(CORE): sum(
            bool(line.strip()) and not line.strip().startswith("#")
            for line in path.read_text(encoding="utf-8").splitlines()
        )
        for path in files
    }


def rooms() -> Counter[str]:
    found: Counter[str] = Counter()
    for path, lines in counted().items():
        found[path.parts[0] if len(path.parts) > 1 else "(top)"] += lines
    return found


def test_no_file_and_no_room_outgrows_its_limit() -> None:
    long = {str(path): n for path, n in counted().items() if n > FILE and path.parts[0] not in ("kernels", "testing")}
    assert not long
    full = {room: n for room, n in rooms().items() if room not in APART and n > ABOVE.get(room, ROOM)}
    assert not full


def test_the_table_of_the_design_names_every_room_with_its_size() -> None:
    page = (ROOT / "core" / "DESIGN.md").read_text(encoding="utf-8")
    shown = {
        room: int(lines)
        for room, lines in re.findall(r"^\| `?([a-z()]+)`? \| [\d –]+ \| (\d+) \|$", page, re.MULTILINE)
    }
    assert shown.keys() == rooms().keys()
    off = {room: (shown[room], n) for room, n in rooms().items() if abs(shown[room] - n) > max(40, n // 10)}
    assert not off, "core/DESIGN.md shows another size"


def test_the_architecture_page_names_every_room_and_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `([a-z]+)` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE)
    assert {room for room, _ in table} == rooms().keys() - {"(top)"}
    for room, ask in table:
        for file in re.findall(r"`(\w+\.py)`", ask):
            assert (CORE / room / file).is_file(), f"{room}/{file}"
    for file in re.findall(r"`([a-z]+/\w+\.py)`", page):
        assert (CORE / file).is_file(), file
