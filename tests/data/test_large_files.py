"""Files larger than memory may be: rows by offset, equal to those of a small file, refused and hashed in the same way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hookline import DataError
from hookline.data.rows import joined
from hookline.data.sources import Catalogue
from hookline.files import formats, writing
from hookline.files.formats import JSONLines, Text
from hookline.files.stretches import Stretches

ROWS = [{"prompt": f"row {i} – ü", "worth": i / 7, "words": ["a", None, True]} for i in range(50)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file counts as a large one."""
    monkeypatch.setattr(formats, "SMALL", -1)


def written(path: Path, rows: list[dict[str, object]] = ROWS) -> str:
    path.write_text(
        "\ufeff" + "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" * (1 + i % 3) for i, row in enumerate(rows))
    )
    return str(path)


def test_a_large_file_has_the_rows_and_the_hash_of_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Catalogue().rows(written(tmp_path / "a.jsonl"))
    monkeypatch.setattr(formats, "SMALL", -1)
    found = Catalogue().rows(written(tmp_path / "b.jsonl"))
    assert isinstance(found.records, Stretches)
    assert found.sha256 == small.sha256
    assert [found.records[i] for i in reversed(range(50))] == ROWS[::-1]
    assert list(found.records) == list(small.records) == ROWS
    assert list(found.records[-3:]) == ROWS[-3:]
    assert found.at(7) == (f"{tmp_path}/b.jsonl row 8", ROWS[7])
    with pytest.raises(IndexError):
        found.records[50]


@given(text=st.text(st.sampled_from("ab \n\r\t\x0b\x85\u2028é\ufeff"), max_size=40), mark=st.booleans())
def test_texts_are_parted_by_blank_lines_in_large_files_too(
    text: str, mark: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(("\ufeff" * mark + text).encode())
    whole = ("\ufeff" * mark + text).removeprefix("\ufeff")
    expected = [part.strip() for part in re.split(r"\n\s*\n", whole) if part.strip()]
    found = Stretches(path, formats._texts, formats._text)
    assert [row["text"] for row in Text(Text.Config()).read(path)] == expected
    assert [row["text"] for row in found] == expected
    assert [found[i]["text"] for i in range(len(found))] == expected


@pytest.mark.parametrize("damage", ['{"prompt": 1, "prompt": 2}', '{"prompt": "a', "[1]", '{"worth": NaN}', "\\"])
@pytest.mark.parametrize("row", [0, 25, 50])
def test_a_damaged_line_anywhere_is_refused_at_the_start(tmp_path: Path, large: None, damage: str, row: int) -> None:
    lines = [json.dumps(each) for each in ROWS]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join([*lines[:row], damage, *lines[row:]]) + "\n")
    with pytest.raises(DataError, match=f"pairs.jsonl line {row + 1}"):
        Catalogue().rows(str(path))


def test_a_file_that_is_written_over_is_noticed_and_one_that_is_replaced_is_read_on(
    tmp_path: Path, large: None
) -> None:
    path = tmp_path / "a.jsonl"
    found = Catalogue().rows(written(path))
    path.rename(tmp_path / "old.jsonl")
    written(path, ROWS[:3])
    assert found.records[49] == ROWS[49]
    with (tmp_path / "old.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(DataError, match=r"a\.jsonl was overwritten"):
        found.records[0]


def test_several_sources_are_one_without_being_read_again(tmp_path: Path, large: None) -> None:
    parts = [Catalogue().rows(written(tmp_path / f"{i}.jsonl", ROWS[: 3 + i])) for i in range(3)]
    whole = joined(parts)
    rows = [row for part in parts for row in part.records]
    assert len(whole) == 12
    assert list(whole.records) == [whole.records[i] for i in range(12)] == rows
    assert whole.records[-1] == rows[-1]
    assert list(whole.records[2:8:2]) == rows[2:8:2]
    assert whole.sha256 != joined(parts[::-1]).sha256


def test_memory_holds_eight_bytes_a_row(tmp_path: Path, large: None) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"prompt": "x" * 5_000, "row": i}) + "\n" for i in range(2_000)))
    tracemalloc.start()
    found = Catalogue().rows(str(path))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == 2_000
    assert os.path.getsize(path) > 8_000_000
    assert held < 200_000
    assert peak < 4_000_000


def test_the_file_of_rows_that_nobody_needs_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records = JSONLines(JSONLines.Config()).open(Path(written(path)))
    assert isinstance(records, tuple)
    kept = Stretches(path, formats.jsonl.scan, formats.jsonl.again)
    handle = kept._file
    os.fstat(handle)
    del kept
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(handle)


GIGABYTE = """
import random, resource, sys
from hookline.data.sources import Catalogue
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = Catalogue().rows(sys.argv[1])
for index in random.Random(0).sample(range(len(found)), 2000):
    assert found.records[index]["row"] == index
print(len(found), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow(60)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet"])
def test_a_gigabyte_is_read_with_flat_memory(name: str, tmp_path: Path) -> None:
    text = "open the file and close the list " * 150
    rows = ({"prompt": f"{i} {text}", "row": i} for i in range(200_000))
    if name.endswith(".csv"):  # a number in a column that judges nothing stays text
        rows = ({"prompt": row["prompt"], "score": row["row"]} for row in rows)
    path = tmp_path / name
    writing.written(path, rows)
    code = GIGABYTE.replace('"row"', '"score"') if name.endswith(".csv") else GIGABYTE
    said = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, timeout=300).stdout
    count, grown = map(int, said.split())
    assert count == 200_000
    assert name.endswith(".parquet") or path.stat().st_size > 10**9 * 0.98
    assert grown < 200, f"reading took {grown} MiB"
