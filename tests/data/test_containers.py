"""Files as other programs write them: JSON arrays, tables, Parquet, Arrow, folders of `save_to_disk`, compressed files."""

from __future__ import annotations

import ast
import bz2
import contextlib
import csv
import datetime
import decimal
import gzip
import io
import json
import lzma
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather, ipc, parquet

from hookline import DataError, Format, PluginError
from hookline.files import arrays, formats, jsonl, packed
from hookline.files.stretches import Stretches
from hookline.registry import offers
from hookline_plugins.formats import arrow, columns, tables
from hookline_plugins.formats import parquet as parquets

TALK = [{"role": "user", "content": "Open\nthe »door«"}, {"role": "assistant", "content": "Ja, gern 🚪"}]
ROWS: list[dict[str, Any]] = [
    {"prompt": f"row {i}, “ü”\r\n", "messages": TALK, "n": i, "score": i / 7, "nested": [[i], []]} for i in range(50)
]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), min_size=1, max_size=5)
WITHIN = pytest.TempPathFactory


def opened(path: Path | str, name: str = "") -> Sequence[Any]:
    """The rows of a file, in the order of iteration; access by number and a second reading are asked to be equal."""
    path = Path(path)
    reader = formats.format_and_file(f"{name}:{path}")[0] if name else formats.by_suffix(path, str(path))
    assert reader
    found = formats.opened(reader, path)
    rows = list(found)
    assert [found[i] for i in range(len(found))] == rows == list(found)
    assert list(found[-2:]) == rows[-2:]
    assert list(formats.peeked(reader, path)) == rows
    with pytest.raises(IndexError):
        found[len(rows)]
    return found


def refused(path: Path, name: str = "") -> str:
    """The one sentence with which a file is refused; it names the file that the user has."""
    with pytest.raises(DataError) as said:
        opened(path, name)
    text = str(said.value)
    assert str(path) in text
    assert "\n" not in text
    assert packed.PREFIX not in text
    assert said.value.hint
    return text.replace(str(path), path.name)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.fixture(params=[8 << 20, -1], ids=["small", "large"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every file counts as a small one, or as a large one."""
    for module in (formats, tables, columns, parquets):
        monkeypatch.setattr(module, "SMALL", request.param)
    return int(request.param)


# ------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize("indent", [None, 0, 2])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_array_is_read_however_it_is_laid_out(tmp_path: Path, size: int, name: str, indent: int | None) -> None:
    found = opened(written(tmp_path / name, "\ufeff \n" + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n"))
    assert list(found) == ROWS
    assert isinstance(found, Stretches) is (size < 0)


@given(rows=OBJECTS, indent=st.sampled_from([None, 0, 3]), ascii=st.booleans(), chunk=st.integers(1, 90))
def test_any_rows_are_read_from_an_array_and_from_lines(
    rows: list[dict[str, Any]], indent: int | None, ascii: bool, chunk: int, tmp_path_factory: WITHIN
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "CHUNK", chunk)
        array = json.dumps(rows, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace")
        lines = "".join(json.dumps(row, ensure_ascii=ascii) + "\n" for row in rows).encode("utf-8", "replace")
        for content in (array, lines):
            found = Stretches(written(path, content), jsonl.scan, jsonl.again)
            assert list(found) == rows
            assert [found[i] for i in range(len(rows))] == rows


BAD = [
    ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
    ('{"a": NaN}', "NaN is not a JSON number"),
    ('{"a": -Infinity}', "-Infinity is not"),
    ('{"a": 1e999}', "too large"),
    ('{"a": "\\ud800"}', "half a character"),
    ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ("[1]", "holds a list, not an object"),
    ("3", "holds an int, not an object"),
    ('{"a" 1}', "not valid JSON near"),
    ('{"a": "b', "not valid JSON near|is cut off"),
]


@pytest.mark.parametrize(("bad", "words"), BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("row", [1, 3, 4])
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_a_bad_row_of_an_array_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: str, words: str, row: int, chunk: int
) -> None:
    monkeypatch.setattr(arrays, "CHUNK", chunk)
    good = ['{"a": "\\u00fc",\n"b": 1}'] * 3
    good.insert(row - 1, bad)
    said = refused(written(tmp_path / "a.json", "[\n" + ",\n".join(good) + "\n]"))
    assert re.match(rf"a\.json line {2 * row} \(row {row}\)", said), said
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[{"a": 1}', "is cut off after row 1"),
        ('[{"a": 1}, {"a": ', r"line 1 \(row 2\), the last, is cut off"),
        ('[{"a": 1}, {"a": "b', r"line 1 \(row 2\), the last, is cut off"),
        ('[{"a": 1},]', "line 1 .row 1. is the last, but a comma follows"),
        ('[{"a": 1} {"a": 2}]', "line 1 .row 1. is followed by .*, not by a comma"),
        ('[{"a": 1}]\n[{"a": 1}]', "line 2: .* follows the end of the array"),
        ("[]", "0 usable rows: the array is empty"),
        ("[", r"line 1 \(row 1\), the last, is cut off"),
        (b'[{"a": "\xff"}]', r"is not UTF-8 at byte 8 \(0xff\)"),
        (b'[{"a": "\xc3', "is not UTF-8 at byte 8"),
        ('{"data": [{"a": 1}], "version": 1}', r"one object, not rows; its lists are 'data' \(1\) → .*jq '.data' FILE"),
        (
            '{\n "x y": [{"a": 1}],\n "version": 1, "k": []}',
            r"its lists are 'x y' \(1\), 'k' \(0\) → .*jq '.\[\"x y\"\]' FILE",
        ),
        ('{\n "version": 1\n}', "one object of several lines, not rows"),
        ('{\n "a": 1\n}\n{\n "a": 2\n}', r"objects of several lines → .*jq -c \. FILE"),
    ],
)
def test_what_is_no_array_of_rows_is_one_sentence(tmp_path: Path, content: str | bytes, words: str) -> None:
    said = refused(written(tmp_path / "a.json", content))
    assert re.search(words, said), said


def test_one_row_whose_field_is_a_list_is_a_row(tmp_path: Path) -> None:
    assert list(opened(written(tmp_path / "a.json", json.dumps({"messages": TALK})))) == [{"messages": TALK}]


def test_an_error_far_from_the_end_is_found_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = '[{"a": 1}, {"a" 2}' + ', {"a": 3}' * 200_000 + "]"
    file = io.BytesIO(content.encode())
    with pytest.raises(DataError, match=r"line 1 \(row 2\)"):
        list(arrays.scan(file, "x"))
    assert file.tell() <= 1 << 20
    monkeypatch.setattr(arrays, "LONGEST", 50)
    with pytest.raises(DataError, match=r"row 2.*longer than"):
        list(arrays.scan(io.BytesIO(b'[{"a": 1}, {"a": "' + b"x" * 90 + b'"}]'), "x"))


def test_memory_stays_flat_for_a_large_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "SMALL", -1)
    path = written(tmp_path / "a.json", json.dumps([{"prompt": "x" * 5_000, "row": i} for i in range(2_000)], indent=1))
    tracemalloc.start()
    found = formats.opened(formats.by_suffix(path, "a"), path)
    assert sum(1 for _ in found) == 2_000
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300_000
    assert peak < 6_000_000
    assert found[1_999]["row"] == 1_999


# ------------------------------------------------------------------------------------------------ tables


def table(rows: Sequence[Sequence[str]], delimiter: str = ",", end: str = "\r\n") -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    return file.getvalue()


CELLS = st.text(st.sampled_from('a",;\t\n\r é\x00\u2028[{1') | st.characters(exclude_categories=["Cs"]), max_size=12)


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
    kind=st.sampled_from([("a.csv", ","), ("a.tsv", "\t")]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_any_text_cells_are_read_as_they_were_written(
    rows: list[tuple[str, str]], end: str, kind: tuple[str, str], mark: str, tmp_path_factory: WITHIN
) -> None:
    path = tmp_path_factory.mktemp("tables") / kind[0]
    written(path, mark + table([("prompt", "completion"), *rows], kind[1], end))
    expected = [{"prompt": a, "completion": b} for a, b in rows]
    for small in (8 << 20, -1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tables, "SMALL", small)
            assert list(opened(path)) == expected


@pytest.mark.parametrize(
    ("column", "cell", "value"),
    [
        ("label", "1", 1),
        ("label", "True", True),
        ("label", "false", False),
        ("label", "tie", "tie"),
        ("label", "", None),
        ("chosen_score", "-1.5e2", -150.0),
        ("score", "007", "007"),
        ("score", "1e999", "1e999"),
        ("margins", "2.0", 2.0),
        ("answer", "42", "42"),
        ("n", "42", "42"),
        ("scoreboard", "42", "42"),
        ("prompt", "[1, 2]", "[1, 2]"),
        ("prompt", '{"a": 1}', '{"a": 1}'),
        ("prompt", json.dumps(TALK), TALK),
        ("chosen", '[{"from": "human", "value": "x"}]', [{"from": "human", "value": "x"}]),
        ("prompt", "", ""),
        ("messages", json.dumps(TALK), TALK),
        ("messages", "", None),
        ("extra_info", '{"split": "train", "x": null}', {"split": "train", "x": None}),
        ("extra_info", "[see below]", "[see below]"),
        ("extra_info", '{"a": NaN}', '{"a": NaN}'),
        ("extra_info", '{"a": 1, "a": 2}', '{"a": 1, "a": 2}'),
    ],
)
def test_what_a_cell_means_depends_on_its_column_and_on_nothing_else(
    tmp_path: Path, size: int, column: str, cell: str, value: object
) -> None:
    path = written(
        tmp_path / "a.csv", table([(column, "id"), (cell, "x"), ("other" if column != "messages" else "[]", "y")])
    )
    first = opened(path)[0]
    assert first == ({"id": "x"} if value is None else {column: value, "id": "x"})
    assert type(first.get(column)) is type(value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", r"a\.csv row 2 \(line 3\) has 3 cells, not 2"),
        ('a,b\n"1\n\n1",2\n1\n', r"row 2 \(line 5\) has 1 cells, not 2"),
        ("a,a\n1,2\n", "line 1: two columns are called 'a'"),
        ("a,\n1,2\n", "line 1: column 2 has no name"),
        ("", "0 usable rows: there is no header"),
        ("\n\n", "0 usable rows: there is no header"),
        ("a;b\n1;2\n", "the header is one column, 'a;b' → separate cells by commas, not by ;"),
        ("a\tb\n", "→ name the file .tsv"),
        ('a,b\n1,2\n"x,2\n1,2\n', r"row 2 \(line 3\): a cell begins with a quote that is never closed"),
        ('a,b\n"x"y,2\n', r"row 1 \(line 2\): text follows the quote"),
        ("a,b\r1,2\r", "line 1: a line ends with a carriage return alone"),
        (b"a,b\n1,\xff\n", "line 2 is not UTF-8 at byte 6"),
        ("a,b\n1,2".encode("utf-16"), "is not UTF-8 at byte 0 .* iconv -f utf-16"),
        (table([("messages",), (str(TALK),)]), r"row 1 \(line 2\): column 'messages' holds a list of Python"),
        (table([("prompt",), (str(TALK),)]), "column 'prompt' holds a list of Python"),
        (table([("messages",), ("hello",)]), "column 'messages' is not JSON"),
    ],
)
def test_a_bad_table_is_one_sentence(tmp_path: Path, size: int, content: str | bytes, words: str) -> None:
    said = refused(written(tmp_path / "a.csv", content))
    assert re.search(words, said), said


def test_a_large_table_is_parsed_on_access_and_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SMALL", -1)
    path = written(tmp_path / "a.csv", table([("prompt",), *((f"{i} " + "x" * 5_000,) for i in range(2_000))]))
    tracemalloc.start()
    found = formats.opened(formats.by_suffix(path, "a"), path)
    assert sum(1 for _ in found) == 2_000
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 300_000
    assert peak < 4_000_000
    with path.open("a") as file:
        file.write("x\n")
    with pytest.raises(DataError, match=r"a\.csv was overwritten"):
        found[0]


# ------------------------------------------------------------------------------------------------ columns


CLEAN = [{**row, "messages": TALK} for row in ROWS]


def stream(path: Path, table: pa.Table, rows: int = 7) -> Path:
    with ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def file(path: Path, table: pa.Table, rows: int = 7, packing: str | None = None) -> Path:
    with ipc.new_file(str(path), table.schema, options=ipc.IpcWriteOptions(compression=packing)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path


def saved(folder: Path, table: pa.Table, **state: Any) -> Path:
    """A folder as `save_to_disk` writes it, its files named in another order than that of their names."""
    folder.mkdir()
    half = table.num_rows // 2
    stream(folder / "data-00001-of-00002.arrow", table.slice(0, half))
    stream(folder / "data-00000-of-00002.arrow", table.slice(half))
    names = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in (1, 0)]
    (folder / "state.json").write_text(json.dumps({"_data_files": names, "_split": None, **state}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_columnar_files_give_the_rows_that_were_written(tmp_path: Path, size: int) -> None:
    table = pa.Table.from_pylist(CLEAN)
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=11)
    for path in (
        tmp_path / "a.parquet",
        stream(tmp_path / "stream.arrow", table),
        file(tmp_path / "file.arrow", table),
        file(tmp_path / "packed.arrow", table, packing="zstd"),
    ):
        assert list(opened(path)) == CLEAN, path
    feather.write_feather(table, str(tmp_path / "a.feather"))
    assert list(opened(tmp_path / "a.feather")) == CLEAN
    folder = saved(tmp_path / "folder", table)
    reader = formats.by_marks(folder)
    assert reader
    assert reader.instance == "save-to-disk"
    assert list(formats.opened(reader, folder)) == CLEAN
    assert list(opened(folder, "save-to-disk")) == CLEAN


def column(path: Path, values: Any, kind: Any = None) -> Path:
    table = pa.table({"v": values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)})
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
        return path
    return stream(path, table)


UTC = datetime.UTC
CALLS = [{"function": {"name": "f", "arguments": {"x": 0}}}], [{"function": {"name": "g", "arguments": {"y": 1}}}]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (list(CALLS), None, list(CALLS)),  # without the keys of the other row
        ([1, None, 3], pa.int64(), [1, None, 3]),
        ([1.5, float("nan"), None], None, [1.5, None, None]),
        ([{"a": float("nan"), "b": 1.0}], None, [{"b": 1.0}]),
        ([[1.5, float("nan")]], None, [[1.5, None]]),
        ([["a", None], []], None, [["a", None], []]),
        (["a", "b"], pa.large_string(), ["a", "b"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), None, ["a", "b", "a"]),
        ([decimal.Decimal("1.50")], pa.decimal128(5, 2), [1.5]),
        ([decimal.Decimal("7")], pa.decimal128(5, 0), [7]),
        ([datetime.date(2026, 1, 2)], None, ["2026-01-02"]),
        ([datetime.datetime(2026, 1, 2, 3, 4)], None, ["2026-01-02T03:04:00"]),
        ([datetime.datetime(2026, 1, 2, tzinfo=UTC)], pa.timestamp("ms", "UTC"), ["2026-01-02T00:00:00+00:00"]),
        ([1_000_000_000_123_456_789], pa.timestamp("ns"), ["2001-09-09T01:46:40.123456"]),
        ([None, None], pa.binary(), [None, None]),
        ([None, {"bytes": None}], pa.struct([("bytes", pa.binary())]), [None, {}]),
        ([[("k", 1), ("l", None)]], pa.map_(pa.string(), pa.int64()), [{"k": 1}]),
        (pa.array(['{"a": [1, null]}', None], pa.json_()), None, [{"a": [1, None]}, None]),
        (
            pa.ListArray.from_arrays([0, 2], pa.array(['{"role": "user"}', '"x"'], pa.json_())),
            None,
            [[{"role": "user"}, "x"]],
        ),
    ],
    ids=range(19),
)
def test_columns_become_values_of_json(
    tmp_path: Path, size: int, name: str, values: Any, kind: Any, expected: list[Any]
) -> None:
    found = opened(column(tmp_path / name, values, kind))
    assert list(found) == [{} if value is None else {"v": value} for value in expected]
    json.dumps(list(found), allow_nan=False)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([None, b"x"], None, "row 2: column 'v' holds bytes"),
        ([[{"image": b"x"}]], None, "row 1: column 'v' holds bytes"),
        ([0.5, float("inf")], None, "row 2: column 'v' holds Infinity"),
        ([1, 2], pa.duration("s"), "row 1: column 'v' is a length of time"),
        (pa.array(["{"], pa.json_()), None, "row 1: column 'v' holds JSON that cannot be read"),
        ([[(1, 1)]], pa.map_(pa.int64(), pa.int64()), "column 'v' is a map whose keys are not text"),
        ([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64()), "row 1: column 'v' is a map with a key that"),
        ([2**62], pa.timestamp("s"), "row 1 or later: column 'v' cannot be read"),
    ],
    ids=range(8),
)
def test_what_json_does_not_have_is_refused_with_its_column(
    tmp_path: Path, size: int, name: str, values: Any, kind: Any, words: str
) -> None:
    if name == "a.parquet" and kind == pa.timestamp("s"):
        return  # Parquet has no seconds
    assert re.search(words, refused(column(tmp_path / name, values, kind)))


def test_two_columns_of_one_name_and_none_at_all_are_refused(tmp_path: Path) -> None:
    one = pa.array([1])
    said = refused(stream(tmp_path / "a.arrow", pa.Table.from_arrays([one, one], names=["v", "v"])))
    assert "two columns are called 'v'" in said
    assert "no columns" in refused(stream(tmp_path / "b.arrow", pa.table({})))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "file.arrow", "b.feather"])
def test_a_damaged_file_of_columns_is_one_sentence(tmp_path: Path, size: int, name: str) -> None:
    table, path = pa.Table.from_pylist(CLEAN), tmp_path / name
    if name == "a.parquet":
        parquet.write_table(table, path, write_page_checksum=True)
    elif name == "a.arrow":
        stream(path, table)
    else:
        file(path, table, packing="lz4" if name == "b.feather" else None)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[len(whole) // 2 :], b"", b"prompt,completion\na,b\n", b"[1]"):
        written(path, content)
        said = refused(path)
        assert "damaged, cut off, or not" in said or "is cut off" in said, said
    for place in range(3, len(whole), len(whole) // 40):
        damaged = bytearray(whole)
        damaged[place : place + 4] = b"\xff\xfe\xff\x7f"
        written(path, bytes(damaged))
        with contextlib.suppress(DataError):  # or it is read: most places have no checksum
            opened(path)


def test_a_stream_that_was_cut_off_is_noticed(tmp_path: Path) -> None:
    path = stream(tmp_path / "a.arrow", pa.Table.from_pylist(CLEAN))
    whole = path.read_bytes()
    written(path, whole[: len(whole) // 2])
    assert "cut off" in refused(path)
    written(path, whole[:-8])  # without the mark of its end, between two batches
    assert "cut off" in refused(path)


@pytest.mark.parametrize("packing", [None, "lz4"])
def test_large_files_of_columns_are_read_on_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: str | None
) -> None:
    for module in (columns, parquets):
        monkeypatch.setattr(module, "SMALL", -1)
    table = pa.table({"prompt": [f"{i} " + "x" * 5_000 for i in range(4_000)]})
    if packing:
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=500)
        file(tmp_path / "a.arrow", table, 500, packing)
    else:
        stream(tmp_path / "a.arrow", table, 500)
    del table
    for path in tmp_path.iterdir():
        before = pa.total_allocated_bytes()
        found = formats.opened(formats.by_suffix(path, "a"), path)
        assert isinstance(found, columns.Batches)
        assert sum(1 for _ in found) == 4_000
        assert [found[i]["prompt"][:5].strip() for i in (3_999, 0, 2_000)] == ["3999", "0 xxx"[:5], "2000"]
        assert pa.total_allocated_bytes() - before < 9_000_000
    assert not list(Path(arrow.tempfile.gettempdir()).glob("hookline-rows-*"))


def test_a_mapped_file_that_was_overwritten_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "SMALL", -1)
    path = stream(tmp_path / "a.arrow", pa.Table.from_pylist(CLEAN))
    found = formats.opened(formats.by_suffix(path, "a"), path)
    written(path, b"short")
    with pytest.raises(DataError, match=r"a\.arrow was overwritten"):
        found[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "data-00000-of-00002.arrow").unlink(), "lacks data-00000-of-00002.arrow"),
        (lambda f: (f / "state.json").write_text("{"), "state.json cannot be read"),
        (lambda f: (f / "state.json").write_text('{"_data_files": 3}'), "state.json cannot be read"),
        (lambda f: (f / "state.json").write_text('{"_data_files": []}'), "0 usable rows"),
        (lambda f: (f / "state.json").write_text('{"_data_files": [{"filename": "../a"}]}'), "outside the folder"),
        (lambda f: (f / "indices.arrow").touch(), "a selection of rows"),
        (lambda f: stream(f / "data-00000-of-00002.arrow", pa.table({"z": [1]})), "other columns"),
        (lambda f: (f / "data-00000-of-00002.arrow").write_text("x"), "is damaged, cut off, or not an Arrow file"),
    ],
)
def test_a_folder_that_is_not_whole_is_one_sentence(tmp_path: Path, change: Any, words: str) -> None:
    folder = saved(tmp_path / "folder", pa.Table.from_pylist(CLEAN))
    change(folder)
    assert words in refused(folder, "save-to-disk")


def test_a_folder_that_names_an_indices_file_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "folder", pa.Table.from_pylist(CLEAN), _indices_data_files=[{"filename": "i.arrow"}])
    assert "flatten_indices" in refused(folder, "save-to-disk")


def test_folders_are_known_by_the_files_in_them(tmp_path: Path) -> None:
    assert formats.by_marks(tmp_path) is None
    (tmp_path / "state.json").touch()
    assert formats.by_marks(tmp_path) is None
    source = (
        "from hookline import Format\n\nclass M(Format):\n    name = 'm'\n    marks = ('m.txt',)\n\n"
        "    def read(self, path):\n        yield {}\n"
    )
    loose = offers.loose(str(written(tmp_path / "m.py", source)))
    (tmp_path / "m.txt").touch()
    found = formats.by_marks(tmp_path, loose)
    assert found
    assert list(formats.opened(found, tmp_path)) == [{}]
    (tmp_path / "dataset_info.json").touch()
    with pytest.raises(DataError, match=r"that format 'save-to-disk' .* and format 'm' .* read"):
        formats.by_marks(tmp_path, loose)
    bad = offers.loose(str(written(tmp_path / "bad.py", source.replace("('m.txt',)", "'m.txt'"))))
    with pytest.raises(PluginError, match=r"marks is 'm\.txt'"):
        formats.format_and_file(f"m:{tmp_path}", bad)


def test_without_pyarrow_the_way_to_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = column(tmp_path / "a.parquet", [1])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "a.parquet needs pyarrow → pip install 'hookline[data]'" in refused(path)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    path = written(tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor().compress(b"{}"))
    assert "a.jsonl.zst needs zstandard → pip install 'hookline[data]'" in refused(path)


def test_nothing_large_is_imported_before_it_is_needed() -> None:
    for module in (arrow, columns, parquets, tables, packed, formats):
        top = ast.parse(Path(str(module.__file__)).read_text()).body
        names = {name.name for line in top if isinstance(line, ast.Import) for name in line.names}
        names |= {str(line.module) for line in top if isinstance(line, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & {"pyarrow", "zstandard", "datasets", "pandas"}


# ------------------------------------------------------------------------------------------------ compressed files


def zst(content: bytes) -> bytes:
    """Two frames, as pzstd writes them."""
    half = len(content) // 2
    return b"".join(
        zstandard.ZstdCompressor(write_checksum=True).compress(part) for part in (content[:half], content[half:])
    )


PACKS = {".gz": gzip.compress, ".zst": zst, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("ending", PACKS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.CSV", "a.arrow", "a.txt"])
def test_a_compressed_file_is_read_as_what_is_in_it(tmp_path: Path, size: int, name: str, ending: str) -> None:
    path = tmp_path / name
    if path.suffix == ".arrow":
        stream(path, pa.Table.from_pylist(CLEAN))
    else:
        written(
            path,
            {"a.jsonl": '{"a": 1}\n{"a": 2}', "a.json": '[{"a": 1}]', "a.txt": "one\n\ntwo"}.get(name, "a\r\n1\r\n"),
        )
    both = written(
        tmp_path / (name + ending.upper() if name == "A.CSV" else name + ending), PACKS[ending](path.read_bytes())
    )
    assert list(opened(both)) == list(opened(path))
    assert packed.unpacked(both) == packed.unpacked(both)


@pytest.mark.parametrize("ending", PACKS)
def test_a_damaged_compressed_file_is_one_sentence(tmp_path: Path, ending: str) -> None:
    whole = PACKS[ending](json.dumps(ROWS).encode())
    path = tmp_path / f"a.json{ending}"
    said = refused(written(path, whole[:-9]))
    assert "is damaged or cut off" in said
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    broken[-5] ^= 0xFF  # gzip: its checksum
    said = refused(written(path, bytes(broken)))
    assert "is damaged or cut off" in said
    said = refused(written(path, b'{"a": 1}\n'))
    assert f"a.json{ending} is not compressed, although its name says" in said
    assert "rename it to a.json" in said
    said = refused(written(path, b"" if ending == ".gz" else gzip.compress(b"{}")))
    assert ending == ".gz" or "is compressed with gzip" in said


def test_errors_in_a_compressed_file_name_the_compressed_file(tmp_path: Path, size: int) -> None:
    assert "a.jsonl.gz line 2: not valid JSON" in refused(
        written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a" 2}\n'))
    )
    assert "a.csv.gz row 1" in refused(written(tmp_path / "a.csv.gz", gzip.compress(b"a,b\n1\n")))
    path = written(tmp_path / "a.parquet.gz", gzip.compress(b"PAR1PAR1"))
    assert "a.parquet.gz is damaged" in refused(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"{}"), "is compressed with gzip, which its name does not say → rename it to {}.gz"),
        (b"PK\x03\x04...", "is compressed with zip, which its name does not say → unpack it first"),
        (b"PAR1....PAR1", "is a Parquet file, not text → rename it to a.parquet"),
        (b"ARROW1\0\0", "is an Arrow file, not text → rename it to a.arrow"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer"),
    ],
    ids=["gzip", "zip", "parquet", "arrow", "lfs"],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt"])
def test_a_file_of_another_kind_is_named_as_what_it_is(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    assert words.format(name) in refused(written(tmp_path / name, content))


def test_an_unknown_ending_before_that_of_the_compression_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar.gz", gzip.compress(b"x"))
    with pytest.raises(DataError, match=r"unknown kind of file '\.tar'"):
        formats.by_suffix(path, str(path))
    assert list(opened(written(tmp_path / "export.gz", gzip.compress(b'{"a": 1}')), "jsonl")) == [{"a": 1}]


def test_a_format_that_claims_the_compressed_ending_gets_the_file_itself(tmp_path: Path) -> None:
    class Own(Format):
        suffixes = (".mine.gz",)

        def read(self, path: Path) -> Any:
            yield {"head": path.read_bytes()[:2].hex()}

    path = written(tmp_path / "a.mine.gz", gzip.compress(b"{}"))
    assert formats.opened(Own(Own.Config()), path) == ({"head": "1f8b"},)


def test_unpacking_ends_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "CHUNK", 1 << 10)
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b"x" * (1 << 18)))
    monkeypatch.setattr(packed, "RESERVE", 1 << 62)
    assert "set TMPDIR to a larger disk" in refused(path)
    monkeypatch.setattr(packed, "RESERVE", 1 << 10)
    monkeypatch.setattr(packed, "MOST_TIMES", 10)
    assert "becomes more than 10 times as large" in refused(path)


KILLED = """
import os, signal, sys
from pathlib import Path
from hookline.files import packed
print(packed.unpacked(Path(sys.argv[1])), flush=True)
if sys.argv[2] == "raise": raise RuntimeError
if sys.argv[2] == "kill": os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_unpacked_goes_with_its_process(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"a": 1}\n'))
    left = {}
    for how in ("raise", "kill", "end"):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(path), how],
            capture_output=True,
            text=True,
            env={"TMPDIR": str(tmp_path)},
        )
        left[how] = Path(done.stdout.strip())
        assert left[how].name == "a.jsonl"
        assert left[how].exists() is (how == "kill"), how
    assert not list(tmp_path.glob("*hookline-*"))  # the last process removed what the killed one had left
