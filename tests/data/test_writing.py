"""What Hookline writes, it reads again: files of every format, and rows in the shapes of other tools."""

from __future__ import annotations

import json
import os
import re
import signal
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from hookline import DataError, Format, PluginError
from hookline.config.data import Reads
from hookline.data import shapes
from hookline.data.reading import reading_of
from hookline.data.writing import SHAPES, shaped
from hookline.files import formats
from hookline.files.writing import written
from hookline.registry import offers
from hookline_plugins.formats import kinds
from hookline_plugins.formats import parquet as parquets

Row = dict[str, Any]
WITHIN = pytest.TempPathFactory
ENDS = ["a.jsonl", "a.json", "a.parquet", "a.arrow", "a.feather", "save-to-disk:a", "jsonl:a.dat"]


def read(path: Path) -> list[Row]:
    reader, name = formats.format_and_file(str(path))
    found = formats.opened(reader or formats.by_suffix(path, name), Path(name))
    rows = list(found)
    assert [found[i] for i in range(len(found))] == rows
    return [dict(row) for row in rows]


def place(folder: Path, name: str) -> Path:
    """A path in a folder; the name may begin with a format."""
    head, colon, rest = name.rpartition(":")
    return Path(f"{head}{colon}{folder / rest}")


def refused(path: Path, rows: Iterable[Row], **options: Any) -> str:
    """The one sentence with which rows are not written; nothing is left of them."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(DataError) as said:
        written(path, rows, **options)
    assert sorted(path.parent.rglob("*")) == before
    assert str(path) in str(said.value)
    assert ".hookline" not in str(said.value)
    assert said.value.hint
    return str(said.value).replace(str(path), path.name)


# ------------------------------------------------------------------------------------------------ every format

TEXT = st.text(st.sampled_from('a",;\t\n\r é\x00\u2028[{1🚪') | st.characters(exclude_categories=["Cs"]), max_size=8)
CALL = st.fixed_dictionaries(
    {
        "name": TEXT,
        "arguments": st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 9) | TEXT, max_size=2),
    }
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": TEXT},
    optional={"tool_calls": st.lists(st.fixed_dictionaries({"function": CALL}), max_size=2)},
)
NUMBER = st.integers(-(2**70), 2**70) | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {"prompt": TEXT},
        optional={
            "messages": st.lists(TURN, max_size=3),
            "score": NUMBER,
            "label": st.booleans(),
            "same": st.lists(st.fixed_dictionaries({"k": NUMBER, "l": st.lists(st.none() | TEXT)}), max_size=2),
            "any": JSON,
            "é.x": JSON,
        },
    ),
    min_size=1,
    max_size=4,
)


def without_null(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}


@pytest.mark.parametrize("name", ENDS)
@given(rows=ROWS, data=st.data())
def test_any_rows_are_read_as_they_were_written(
    name: str, rows: list[Row], data: Any, tmp_path_factory: WITHIN
) -> None:
    path = place(tmp_path_factory.mktemp("any"), name)
    again = iter(rows) if data.draw(st.booleans()) else rows
    assert written(path, again) == len(rows)
    lines = "json" in name
    assert read(path) == (rows if lines else [without_null(row) for row in rows])
    if lines:
        assert json.dumps(read(path)) == json.dumps(rows)


CELLS = st.fixed_dictionaries(
    {"prompt": TEXT, "other": TEXT},
    optional={"score": NUMBER | TEXT | st.booleans(), "messages": st.lists(TURN, max_size=2), "extra": JSON},
)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@given(rows=st.lists(CELLS, min_size=1, max_size=3))
@example(rows=[{"prompt": "a\rb", "other": "", "score": "tie"}])
def test_a_table_is_read_as_it_was_written_or_refused(name: str, rows: list[Row], tmp_path_factory: WITHIN) -> None:
    path = tmp_path_factory.mktemp("table") / name
    try:
        written(path, rows)
    except DataError:
        assert not path.exists()
    else:
        found = read(path)
        assert found == [without_null(row) for row in rows]
        assert json.dumps(found, sort_keys=True) == json.dumps([without_null(row) for row in rows], sort_keys=True)


@given(texts=st.lists(TEXT, min_size=1, max_size=3))
def test_texts_are_read_as_they_were_written_or_refused(texts: list[str], tmp_path_factory: WITHIN) -> None:
    path, rows = tmp_path_factory.mktemp("text") / "a.txt", [{"text": text} for text in texts]
    try:
        written(path, rows)
    except DataError:
        assert any(not line.strip() or text != text.strip() for text in texts for line in text.split("\n"))
    else:
        assert read(path) == rows


FEW = [
    {"prompt": "Say “ü”,\nplease", "score": 1, "tools": [{"b": 1}]},
    {"prompt": "x", "score": 0.5, "tools": [{"a": 2}]},
]
LINES = [json.dumps(row, ensure_ascii=False) for row in FEW]
GOLDEN = {
    "a.jsonl": '{"prompt": "Say “ü”,\\nplease", "score": 1, "tools": [{"b": 1}]}\n' + LINES[1] + "\n",
    "a.json": f"[\n{LINES[0]},\n{LINES[1]}\n]\n",
    "a.csv": 'prompt,score,tools\n"Say “ü”,\nplease",1,"[{""b"": 1}]"\nx,0.5,"[{""a"": 2}]"\n',
    "a.tsv": 'prompt\tscore\ttools\n"Say “ü”,\nplease"\t1\t"[{""b"": 1}]"\nx\t0.5\t"[{""a"": 2}]"\n',
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_file_of_text_looks_as_people_expect_it(tmp_path: Path, name: str) -> None:
    written(tmp_path / name, FEW)
    assert (tmp_path / name).read_text(encoding="utf-8") == GOLDEN[name]


def test_texts_have_blank_lines_between_them(tmp_path: Path) -> None:
    written(tmp_path / "a.txt", [{"text": "one\ntwo"}, {"text": "three"}])
    assert (tmp_path / "a.txt").read_text() == "one\ntwo\n\nthree\n"


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "save-to-disk:a"])
def test_columns_have_the_types_of_their_values(tmp_path: Path, name: str) -> None:
    turn = {"role": "user", "content": "x"}
    rows = [
        {"t": "x", "n": 1, "f": 1, "b": True, "talk": [turn], "odd": [turn], "mixed": 1, "big": 2**60, "o": {"k": 1}},
        {
            "t": None,
            "n": -2,
            "f": 0.5,
            "talk": [],
            "odd": [{**turn, "name": "y"}],
            "mixed": "1",
            "big": 2.5,
            "o": {"k": 2},
        },
        {"none": None, "o": {"k": 3}},
    ]
    path = place(tmp_path, name)
    assert written(path, rows) == 3
    assert read(path) == [without_null(row) for row in rows]
    if name == "a.parquet":
        schema = parquet.read_schema(path)
    elif name == "a.arrow":
        schema = ipc.open_file(path).schema
    else:
        schema = ipc.open_stream(tmp_path / "a" / "data-00000-of-00001.arrow").schema
    talk = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    kinds = [pa.string(), pa.int64(), pa.float64(), pa.bool_(), talk, pa.json_(), pa.json_(), pa.json_()]
    assert schema.types == [*kinds, pa.struct([("k", pa.int64())]), pa.null()]
    assert schema.names == ["t", "n", "f", "b", "talk", "odd", "mixed", "big", "o", "none"]


def test_a_folder_holds_what_load_from_disk_asks_for(tmp_path: Path) -> None:
    written(Path(f"save-to-disk:{tmp_path / 'a'}"), FEW)
    state = json.loads((tmp_path / "a" / "state.json").read_text())
    assert state["_data_files"] == [{"filename": "data-00000-of-00001.arrow"}]
    assert len(state["_fingerprint"]) == 16
    about = json.loads((tmp_path / "a" / "dataset_info.json").read_text())["features"]
    value = [{"dtype": kind, "_type": "Value"} for kind in ("string", "float64")]
    assert about == {"prompt": value[0], "score": value[1], "tools": {"_type": "Json"}}
    schema = ipc.open_stream(tmp_path / "a" / "data-00000-of-00001.arrow").schema
    assert json.loads(schema.metadata[b"huggingface"]) == {"info": {"features": about}}


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_file_is_compressed_as_its_name_says(tmp_path: Path, name: str, ending: str) -> None:
    written(tmp_path / (name + ending), FEW)
    assert read(tmp_path / (name + ending)) == FEW
    assert [path.name for path in tmp_path.iterdir()] == [name + ending]
    first = (tmp_path / (name + ending)).read_bytes()
    written(tmp_path / (name + ending), FEW, overwrite=True)
    assert (tmp_path / (name + ending)).read_bytes() == first


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_memory_stays_flat_while_rows_are_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "SLICE", 64)
    monkeypatch.setattr(parquets, "GROUP", 1 << 20)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    assert written(tmp_path / name, ({"prompt": "x" * 20_000, "score": i} for i in range(400))) == 400
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000  # of 8 million characters
    assert pa.total_allocated_bytes() - before < 1_000_000
    assert read(tmp_path / name)[399]["score"] == 399


# ------------------------------------------------------------------------------------------------ what is refused

WRONG: list[tuple[str, list[Row], str]] = [
    ("a.csv", [{"n": "x"}, {"n": 3}], "row 2: column 'n' holds 3, which would be read as text"),
    ("a.csv", [{"score": "3"}], "row 1: column 'score' holds the text '3', which would be read as a number"),
    (
        "a.csv",
        [{"prompt": '[{"role": "user", "content": "x"}]'}],
        "column 'prompt' holds the text .*, which would be read as JSON",
    ),
    ("a.csv", [{"n": "x"}, {"m": "y"}], "row 1: column 'm' is missing, and would be read as an empty text"),
    ("a.csv", [{"a": "x", " a": "y"}], "column ' a' begins or ends with white space"),
    ("a.csv", [{}], "its rows have no columns"),
    ("a.parquet", [{}], "its rows have no columns"),
    (
        "a.txt",
        [{"text": "x", "n": 1}],
        "row 1 cannot be written as text: its columns are 'text', 'n', not 'text' alone",
    ),
    ("a.txt", [{"text": "x"}, {"text": "a\n\nb"}], "row 2 .* has a blank line"),
    ("a.txt", [{"text": "PAR1 is a text"}], "would begin like a file of another kind"),
    ("a.jsonl", [{"data": [{"a": 1}]}], "its only row would be read as an object around the rows in 'data'"),
    ("a.jsonl", [], "there are no rows"),
    ("a.jsonl", [{"a": 1}, {"a": float("nan")}], "row 2: column 'a' holds nan, which JSON does not have"),
    ("a.jsonl", [{"a": [b"x"]}], "row 1: column 'a' holds a bytes, which JSON does not have"),
    ("a.parquet", [{"a": {1: "x"}}], "row 1: column 'a' holds an object with keys that are not text"),
    ("a.arrow", [{"a": "\ud800"}], "row 1: column 'a' holds half a character"),
    ("a.jsonl", [{"a": 10**50}], "row 1: column 'a' holds a number of 40 digits or more"),
    ("a.xlsx", [{"a": 1}], "unknown kind of file '.xlsx'; known are .*.jsonl"),
]


@pytest.mark.parametrize(("name", "rows", "words"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("make", [list, iter])
def test_rows_that_a_file_cannot_hold_are_refused(
    tmp_path: Path, name: str, rows: list[Row], words: str, make: Callable[[Any], Any]
) -> None:
    said = refused(tmp_path / name, make(rows))
    assert re.search(words, said), said


def test_a_file_that_exists_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [{"a": 1}])
    assert "already exists → " in refused(path, FEW)
    assert read(path) == [{"a": 1}]
    assert "row 2: column 'a'" in refused(path, [{"a": 1}, {"a": b""}], overwrite=True)
    assert read(path) == [{"a": 1}]
    written(path, FEW, overwrite=True)
    assert read(path) == FEW


def test_only_a_folder_of_rows_is_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    written(Path(f"save-to-disk:{folder}"), FEW)
    with pytest.raises(DataError, match="already exists"):
        written(Path(f"save-to-disk:{folder}"), FEW)
    written(Path(f"save-to-disk:{folder}"), FEW[:1], overwrite=True)
    assert read(Path(f"save-to-disk:{folder}")) == [{**FEW[0]}]
    (tmp_path / "b.jsonl").mkdir()
    (tmp_path / "b.jsonl" / "precious").touch()
    for name in (f"{tmp_path / 'b.jsonl'}", f"save-to-disk:{tmp_path / 'b.jsonl'}"):
        with pytest.raises(DataError, match="folder with other things in it"):
            written(Path(name), FEW, overwrite=True)
    assert (tmp_path / "b.jsonl" / "precious").exists()


def test_a_place_where_nothing_can_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "no" / "a.jsonl"
    with pytest.raises(DataError, match=r"a\.jsonl cannot be written: there is no folder .*no → mkdir -p .*no"):
        written(path, FEW)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "disk full while writing a.jsonl, of which nothing is left" in refused(tmp_path / "a.jsonl", FEW)
    monkeypatch.setattr(formats.packed.tempfile, "mkdtemp", lambda **_: os.mkdir("/proc/x"))
    assert "a.jsonl cannot be written" in refused(tmp_path / "a.jsonl", FEW)


def test_a_format_that_only_reads_or_miscounts_is_named(tmp_path: Path) -> None:
    source = (
        "from hookline import Format\n\nclass M(Format):\n    name = 'm'\n    suffixes = ('.m',)\n\n"
        "    def read(self, path):\n        yield {}\n"
    )
    (tmp_path / "m.py").write_text(source)
    with pytest.raises(DataError, match=r"a\.m cannot be written: format 'm' only reads"):
        written(tmp_path / "a.m", FEW, offers.loose(str(tmp_path / "m.py")))
    for number, (body, words) in enumerate(
        {
            "path.write_text(''); return 0": r"format 'm' answers 0 after 1 rows for .*a\.m →",
            "return len(list(rows))": "write all rows into the path",
            "1 / 0": r"format 'm' failed while writing .*a\.m: ZeroDivisionError",
        }.items()
    ):
        (tmp_path / f"m{number}.py").write_text(f"{source}\n    def write(self, path, rows):\n        {body}\n")
        with pytest.raises(PluginError, match=words):
            written(tmp_path / "a.m", FEW, offers.loose(str(tmp_path / f"m{number}.py")))
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".py"] * 4
    assert "write" not in vars(offers.loose(str(tmp_path / "m.py"))[0].load())
    assert issubclass(offers.loose(str(tmp_path / "m.py"))[0].load(), Format)


def test_a_killed_writer_leaves_no_half_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def rows() -> Iterable[Row]:
        for i in range(3_000):
            yield {"a": i}
        os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        written(path, type("Again", (), {"__iter__": lambda self: rows()})())
        os._exit(1)  # never reached
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert not path.exists()
    [left] = tmp_path.iterdir()
    assert left.name.startswith(".hookline-writing-")
    assert (left / "a.jsonl").stat().st_size > 1_000
    assert written(path, [{"a": 1}]) == 1
    assert list(tmp_path.iterdir()) == [path]  # what the killed one left went with the next


# ------------------------------------------------------------------------------------------------ shapes

SAID = st.text(st.sampled_from("ab é\n\"'") | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def assistant(text: str) -> Row:
    return {"role": "assistant", "content": text}


def turns(system: str | None, before: list[tuple[str, str]], last: str) -> list[Row]:
    first = [{"role": "system", "content": system}] if system else []
    return [*first, *(one for asked, said in before for one in (user(asked), assistant(said))), user(last)]


PROMPT = SAID | st.builds(turns, st.none() | SAID, st.lists(st.tuples(SAID, SAID), max_size=2), SAID)
ANSWER = SAID | SAID.map(lambda text: [assistant(text)])
ASKED = st.fixed_dictionaries({"prompt": PROMPT, "completion": ANSWER, "id": st.integers()})
COMPARED = st.fixed_dictionaries({"prompt": PROMPT, "chosen": ANSWER, "rejected": ANSWER, "source": SAID})
LABELLED = st.fixed_dictionaries({"prompt": PROMPT, "completion": ANSWER, "label": st.booleans()})
WHICH = {
    **dict.fromkeys(["messages", "sharegpt", "alpaca", "question-answer"], ASKED),
    **dict.fromkeys(["alpaca-pairs", "openai-pairs", "sharegpt-pairs"], COMPARED),
    "sharegpt-kto": LABELLED,
    "trl": ASKED | COMPARED | LABELLED,
    "verl": ASKED | LABELLED,
}


def alike(row: Row) -> Row:
    """What a row says: text as the one message that it is, in ShareGPT's names or in ours."""
    roles = {"human": "user", "gpt": "assistant"}
    said: Row = {"label": row.get("label")}
    for name in ("prompt", "completion", "chosen", "rejected", "messages", "conversations"):
        value = row.get(name)
        if isinstance(value, str):
            value = [user(value) if name == "prompt" else assistant(value)]
        if value is not None:
            value = [
                {"role": roles.get(t["from"], t["from"]), "content": t["value"]} if "from" in t else t for t in value
            ]
            said[{"conversations": "messages"}.get(name, name)] = value
    if "messages" in said and "prompt" not in said:
        said["prompt"], said["completion"] = said["messages"][:-1], said["messages"][-1:]
    return {name: value for name, value in said.items() if value is not None and name != "messages"}


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
def test_a_shaped_row_says_the_same_when_it_is_read_again(shape: str, data: Any) -> None:
    row = data.draw(WHICH[shape])
    assume(shape != "question-answer" or isinstance(row["prompt"], str) or len(row["prompt"]) == 1)
    made = json.loads(json.dumps(shaped(row, shape, "rows.jsonl row 1")))
    found = reading_of([made], "rows.jsonl", Reads())(made, "rows.jsonl row 1")
    assert found is not None
    assert alike(found) == alike(row)
    assert {name: found[name] for name in ("id", "source") if name in row} == {
        name: row[name] for name in ("id", "source") if name in row
    }
    # and what was read in one shape is written in the same one, and in that of TRL
    assert shaped(found, shape, "rows.jsonl row 1") == made
    assert alike(shaped(found, "trl", "rows.jsonl row 1")) == alike(row)


def test_every_shape_is_tested() -> None:
    assert WHICH.keys() == SHAPES.keys()
    named = {"trl", "messages", "sharegpt", "verl"}  # whose columns are fields already
    assert SHAPES.keys() - named <= shapes.SHAPES.keys()


TALK = turns("Be brief.", [("Hi", "Hello")], "Bye")
EXAMPLES: list[tuple[str, Row, Row]] = [
    ("trl", {"prompt": "a", "completion": "b", "x": 1, "chosen": None}, {"prompt": "a", "completion": "b", "x": 1}),
    ("trl", {"conversations": [{"from": "human", "value": "a"}]}, {"messages": [user("a")]}),
    ("messages", {"prompt": "a", "completion": "b"}, {"messages": [user("a"), assistant("b")]}),
    (
        "sharegpt",
        {"messages": [*TALK[:1], user("a"), assistant("b")]},
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        },
    ),
    (
        "alpaca",
        {"prompt": TALK, "completion": "Ciao", "id": 3},
        {
            "instruction": "Bye", "input": "", "output": "Ciao", "system": "Be brief.", "history": [["Hi", "Hello"]],
            "id": 3,
        },
    ),
    ("alpaca", {"instruction": "a", "input": "b", "output": "c", "prompt": "a\nb", "completion": "c"},
     {"instruction": "a\nb", "input": "", "output": "c"}),
    ("alpaca-pairs", {"prompt": "a", "chosen": "b", "rejected": [assistant("c")]},
     {"instruction": "a", "input": "", "chosen": "b", "rejected": "c"}),
    ("question-answer", {"prompt": [user("a")], "completion": "b"}, {"question": "a", "answer": "b"}),
    (
        "openai-pairs",
        {"chosen": [*TALK, assistant("b")], "rejected": [*TALK, assistant("c")], "tools": '[{"name": "f"}]'},
        {
            "input": {"messages": TALK, "tools": [{"name": "f"}], "parallel_tool_calls": True},
            "preferred_output": [assistant("b")],
            "non_preferred_output": [assistant("c")],
        },
    ),
    ("sharegpt-pairs", {"prompt": "a", "chosen": "b", "rejected": "c"}, {
        "conversations": [{"from": "human", "value": "a"}],
        "chosen": {"from": "gpt", "value": "b"}, "rejected": {"from": "gpt", "value": "c"},
    }),
    ("sharegpt-kto", {"prompt": "a", "completion": "b", "label": 1}, {
        "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "kto_tag": True,
    }),
    ("verl", {"question": "1+1?", "prompt": "1+1?", "answer": "2"}, {
        "data_source": "maths", "prompt": [user("1+1?")], "reward_model": {"style": "rule", "ground_truth": "2"},
        "question": "1+1?", "answer": "2",
    }),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "row", "expected"), EXAMPLES)
def test_a_row_in_each_shape(shape: str, row: Row, expected: Row) -> None:
    made = shaped(row, shape, "data/maths.jsonl.gz row 1")
    assert made == expected
    assert list(made) == list(expected)


MISFITS: list[tuple[str, Row, str]] = [
    ("question-answer", {"prompt": TALK, "completion": "b"}, "its prompt is 4 messages, not one question"),
    ("question-answer", {"prompt": "a"}, "it has no 'completion' → the row has: prompt"),
    ("question-answer", {"prompt": "a", "completion": "b", "answer": "3"}, "it has another column 'answer'"),
    ("alpaca", {"prompt": [user("a"), user("b")], "completion": "b"}, "not messages of user and assistant in turn"),
    ("alpaca", {"text": "a"}, "it has no 'prompt' and no 'messages' → the row has: text"),
    ("alpaca", {"prompt": "a", "completion": [assistant("b"), user("c")]}, "its 'completion' is 2 messages, not one"),
    ("sharegpt", {"messages": [{**user("a"), "tool_calls": []}]}, "a message of its 'messages' has 'tool_calls'"),
    ("sharegpt", {"messages": [{"role": "judge", "content": "a"}]}, "no name for the role 'judge'"),
    ("sharegpt-kto", {"prompt": "a", "completion": "b"}, "it has no 'label'"),
    ("messages", {"prompt": "a", "chosen": "b", "rejected": "c"}, "it compares two answers → shapes for"),
    ("openai-pairs", {"prompt": "a", "chosen": "b"}, "it has no 'rejected'"),
    ("openai-pairs", {"chosen": "b", "rejected": "c"}, "it has no 'prompt', and its answers do not begin with"),
    ("trl", {"id": 3}, "it has none of prompt, completion"),
]


@pytest.mark.parametrize(("shape", "row", "words"), MISFITS)
def test_a_row_that_a_shape_cannot_hold_is_one_sentence(shape: str, row: Row, words: str) -> None:
    with pytest.raises(DataError) as said:
        shaped(row, shape, "a.jsonl row 7")
    assert str(said.value).startswith(f"a.jsonl row 7 cannot be written in the shape '{shape}': ")
    assert words in str(said.value)


def test_an_unknown_shape_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"the shape 'sharegtp'; did you mean 'sharegpt'\? → shapes: trl, messages"):
        shaped({}, "sharegtp")


def test_rows_are_shaped_while_they_are_written(tmp_path: Path) -> None:
    rows = ({"prompt": f"{i}", "completion": "x"} for i in islice(range(10), 5))
    written(tmp_path / "a.parquet", (shaped(row, "messages") for row in rows))
    assert read(tmp_path / "a.parquet")[4] == {"messages": [user("4"), assistant("x")]}
