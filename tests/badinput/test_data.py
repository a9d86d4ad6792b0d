"""Data files that cannot be used (DS1 to DS22): file, row and field are named, and a mended file is taken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from badinput_lab import Lab, changed, refused

GOOD = b'{"prompt": "open", "completion": "To open."}\n'


def lines(lab: Lab, raw: bytes, name: str = "pairs.jsonl") -> Path:
    path = lab.folder / name
    path.write_bytes(raw)
    return path


def test_DS1_an_empty_file_is_known_before_anything_is_made(lab: Lab) -> None:
    lines(lab, b"")
    said = refused(lab.hookline("explain", lab.write(lab.sft())), 3, "pairs.jsonl: 0 usable rows: the file is empty")
    assert "tiny.yaml line" in said.sentence
    refused(lab.run(lab.sft()), 3, "0 usable rows")
    assert not lab.run_folder.exists()


@pytest.mark.parametrize("raw", [b"\n\n   \n", b"\r\n\r\n", b"\xef\xbb\xbf\n"])
def test_DS1_blank_lines_are_no_rows(lab: Lab, raw: bytes) -> None:
    lines(lab, raw)
    refused(lab.run(lab.sft()), 3, "pairs.jsonl: 0 usable rows", "at least one row")


def test_DS1_nothing_left_after_filtering_says_how_many_there_were(lab: Lab) -> None:
    lab.rows("pairs.jsonl", [{"prompt": "open " * 90, "completion": "x"}] * 5)
    refused(lab.run(lab.sft()), 3, "0 of 5 rows fit into 64 tokens", "longer context")
    lab.rows("pairs.jsonl", [{"prompt": "open " * 90, "completion": "x"}] * 5 + [{"prompt": "a", "completion": "b"}])
    said = lab.run(lab.sft(1))
    assert said.code == 0, said.err
    assert "5 of 6 rows are longer than 64 tokens and were left out" in said.err


def test_DS1_texts_without_text(lab: Lab) -> None:
    made = changed(lab.sft(1), "phases.0.rollout", {"use": "text", "path": "pairs.jsonl", "rows": 2, "length": 8})
    made["phases"][0]["update"] = {"use": "causal-lm"}
    refused(lab.run(made), 3, "'text' can use none of the first 12 rows of pairs.jsonl", "they have: prompt, completion")
    lab.rows("pairs.jsonl", [{"text": "To open the file, close the list."}] * 4 + [{"prompt": "x"}])
    said = lab.run(made)
    assert said.code == 0, said.err
    assert "1 of 5 rows have no 'text'" in said.err
    lab.rows("short.jsonl", [{"text": "ab"}])
    made = changed(made, "phases.0.rollout.path", "short.jsonl")
    refused(lab.hookline("run", lab.write(made), "--out", "run2"), 3, "less than one block of 8", "`length`")


@pytest.mark.parametrize("cut", [1, 5, 20, len(GOOD) - 2])
def test_DS2_a_torn_last_line_is_named_and_the_mended_file_goes_on(lab: Lab, cut: int) -> None:
    lines(lab, GOOD * 3 + GOOD[:cut])
    refused(lab.run(lab.sft(1)), 3, f"pairs.jsonl line 4, the last, is cut off after {cut} bytes", "remove that line")
    lines(lab, GOOD * 3)
    assert lab.run().code == 0


def test_DS2_a_whole_last_line_needs_no_newline(lab: Lab) -> None:
    lines(lab, GOOD * 3 + GOOD[:-1])
    assert lab.run(lab.sft(1)).code == 0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"completion": "x"}, "'prompt' is missing"),
        ({"prompt": ["a"], "completion": "x"}, "it is a conversation, but the model's tokenizer has no chat template"),
        ({"prompt": None, "completion": "x"}, "'prompt' is null"),
        ({"prompt": "a", "completion": 3}, "'completion' is int, not text"),
        ({}, "'prompt' is missing"),
    ],
)
def test_DS4_a_field_missing_or_wrong_in_row_17(lab: Lab, row: dict[str, object], words: str) -> None:
    good = {"prompt": "open", "completion": "To open."}
    lab.rows("pairs.jsonl", [good] * 16 + [row] + [good] * 3)
    refused(lab.run(lab.sft()), 3, "pairs.jsonl row 17", words)
    lab.rows("pairs.jsonl", [good] * 20)
    assert lab.run(lab.sft(1)).code == 0  # nothing was made from the bad rows: fix them and go on


def test_DS4_comparisons_with_missing_fields_or_false_ids(lab: Lab) -> None:
    made = lab.sft(1)
    made["phases"][0] |= {
        "model": {"head": "reward"},
        "rollout": {"use": "preferences", "path": "prefs.jsonl", "rows": 2},
        "update": "bradley-terry",
    }
    good = {"prompt": "open", "chosen": "a", "rejected": "b"}
    lab.rows("prefs.jsonl", [good, {"prompt": "x", "chosen": "a"}])
    refused(lab.run(made), 3, "prefs.jsonl row 2", "'rejected' is missing")
    for prompt, *answers in (
        ([], [1], [2]),
        ([1], [10**9], [1]),
        ([1], [-1], [1]),
        ("12", [1], [1]),
        ([1], [True], [1]),
        ([1], [], [2]),
    ):
        row = {"prompt": "x", "prompt_ids": prompt, "ranking": [{"token_ids": ids} for ids in answers]}
        lab.rows("prefs.jsonl", [good, row])
        refused(lab.run(made), 3, "prefs.jsonl row 2", "_ids")
    for ranking in ([], [{"token_ids": [1]}], 3, "ab", None):
        lab.rows("prefs.jsonl", [good, {"prompt_ids": [1], "ranking": ranking}])
        refused(lab.run(made), 3, "prefs.jsonl row 2", "'ranking' is not a list of two or more answers")
    lab.rows("prefs.jsonl", [good])
    said = lab.run(made)
    assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b'{"prompt": "a", "completion": "b", "reward": NaN}\n', "NaN is not a JSON number"),
        (b'{"prompt": "a", "completion": "b", "reward": -Infinity}\n', "-Infinity is not a JSON number"),
        (b'{"prompt": "a", "completion": "b", "reward": 1e999}\n', "the number 1e999 is too large"),
        (b'{"prompt": "a", "completion": "b", "id": ' + b"9" * 5000 + b"}\n", "has 5000 digits"),
        (b'{"prompt": "a", "prompt": "b", "completion": "c"}\n', "the key 'prompt' appears twice"),
        (b'{"prompt": "a", "completion": "b", "more": {"x": 1, "x": 2}}\n', "the key 'x' appears twice"),
        (b'["prompt", "a"]\n', "holds a list, not an object"),
        (b'"prompt"\n', "holds a str, not an object"),
        (b"{'prompt': 'a'}\n", "not valid JSON at column 2"),
        (b'{"prompt": "a" "completion": "b"}\n', "not valid JSON at column 16"),
        (b"[" * 200_000 + b"\n", "nested too deeply"),
        (b'{"prompt": "\\ud800", "completion": "b"}\n', "half a character"),
        (b'{"prompt": "a\x01", "completion": "b"}\n', "not valid JSON at column 14"),
    ],
    ids=["nan", "inf", "1e999", "digits", "key", "inner-key", "list", "text", "quotes", "comma", "deep", "half", "control"],
)  # fmt: skip
def test_DS5_rows_that_are_no_proper_json(lab: Lab, row: bytes, words: str) -> None:
    lines(lab, GOOD * 2 + row + GOOD)
    said = refused(lab.run(lab.sft()), 3, "pairs.jsonl line 3", words)
    assert len(said.sentence) < 400


def test_DS10_latin1_bytes_are_placed(lab: Lab) -> None:
    lines(lab, GOOD + '{"prompt": "café", "completion": "x"}\n'.encode("latin-1") + GOOD)
    refused(lab.run(lab.sft()), 3, "pairs.jsonl line 2 is not UTF-8 at byte 15 (0xe9)", "iconv")
    lines(lab, GOOD * 3)
    (lab.folder / "texts.txt").write_bytes(b"fine\n\ncaf\xe9\n")
    made = changed(lab.sft(), "tokenizer.on", "texts.txt")
    refused(lab.hookline("run", lab.write(made), "--out", "run2"), 3, "texts.txt is not UTF-8 at byte 9", "iconv")


def test_DS10_utf16_is_named(lab: Lab) -> None:
    (lab.folder / "pairs.jsonl").write_bytes(GOOD.decode().encode("utf-16"))
    refused(lab.run(lab.sft()), 3, "pairs.jsonl line 1 is not UTF-8 at byte 0", "iconv -f utf-16 -t utf-8")


def test_DS10_a_byte_order_mark_does_no_harm(lab: Lab) -> None:
    lines(lab, b"\xef\xbb\xbf" + GOOD * 4)
    assert lab.run(lab.sft(1)).code == 0


def test_DS11_a_line_without_end_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hookline.files.jsonl.LONGEST_LINE", 1 << 20)
    lines(lab, GOOD + b'{"prompt": "' + b"x" * (2 << 20) + b'"}\n')
    refused(lab.run(lab.sft()), 3, "pairs.jsonl line 2 is longer than 1 MiB", "one row per line")


def test_DS13_fewer_rows_than_a_batch_still_make_every_step(lab: Lab) -> None:
    lines(lab, GOOD)
    assert lab.run(lab.sft(2), "phases.sft.rollout.rows=32").code == 0
    rows = [json.loads(line) for line in (lab.run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["metrics"]["rows"] for row in rows] == [32, 32]


def test_DS14_data_that_changed_between_start_and_resume(lab: Lab) -> None:
    said = lab.run(lab.sft(4), "-p", lab.plugin(STOPS), "phases.sft.wrap=stops")
    assert said.code == 5, said.err
    kept, before = (lab.folder / "pairs.jsonl").read_bytes(), lab.contents("lock")
    for data, count in ((kept[: kept.index(b"\n") + 1], 1), (kept + GOOD, 13), (kept.replace(b"open", b"shut"), 12)):
        lines(lab, data)
        said = lab.run(None, "-p", "./stops.py", "phases.sft.wrap=stops")
        refused(said, 4, f"pairs.jsonl is not the data this run began with: 12 rows then, {count} now", "restore")
        assert lab.contents("lock") == before
    lines(lab, kept)
    (lab.folder / "go").touch()
    assert lab.run(None, "-p", "./stops.py", "phases.sft.wrap=stops").code == 0


def test_DS14_rows_of_a_format_of_one_s_own_are_hashed_resumed_and_refused_like_others(lab: Lab) -> None:
    made = changed(lab.sft(4), "phases.0.rollout.path", "tabs:pairs.dat")
    lines(lab, GOOD_TABLE, "pairs.dat")
    plugins = ("-p", lab.plugin(STOPS), "-p", lab.plugin(TABS, "tabs.py"), "phases.sft.wrap=stops")
    said = lab.run(made, *plugins)
    assert said.code == 5, said.err
    assert "enough" in said.err
    lines(lab, GOOD_TABLE * 2, "pairs.dat")
    refused(lab.run(None, *plugins), 4, "tabs:pairs.dat is not the data this run began with: 4 rows then, 8 now")
    lines(lab, b"open\tTo open.\nprompt and nothing else\n", "pairs.dat")
    said = lab.hookline("run", lab.write(made), "--out", "run2", *plugins)
    refused(said, 3, "tabs:pairs.dat row 2: 'completion' is missing")
    lines(lab, GOOD_TABLE, "pairs.dat")
    (lab.folder / "go").touch()
    assert lab.run(None, *plugins).code == 0
    refused(lab.hookline("explain", lab.write(made)), 5, "no format 'tabs' is installed", "tiny.yaml line")


GOOD_TABLE = b"open\tTo open.\nclose\tTo close.\nread\tTo read.\nwrite\tTo write.\n"
TABS = """
from hookline import Format

class Tabs(Format):
    def read(self, path):
        for line in path.read_text().splitlines():
            yield dict(zip(("prompt", "completion"), line.split("\\t")))
"""
STOPS = """
from pathlib import Path
from hookline import Component, hookimpl

class Stops(Component):
    @hookimpl(wrapper=True)
    def hookline_update(self, ctx, batch):
        if ctx.step == 2 and not Path("go").exists():
            raise RuntimeError("enough")
        return (yield)
"""


@pytest.fixture(autouse=True)
def _stops(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = lab.plugin
    monkeypatch.setattr(lab, "plugin", lambda source, name="stops.py": plugin(source, name))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone.jsonl", "no data file gone.jsonl"),
        ("pairs.jsonl/x", "no data file pairs.jsonl/x"),
        ("empty", "the folder has no data file"),
        ("table.xlsx", "unknown kind of file '.xlsx'"),
        ("x" * 300 + ".jsonl", "name too long"),
        ("a\x00b.jsonl", "cannot be read"),
        ("pipe.jsonl", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        ("builtin:nothing", "no task 'hookline:nothing'"),
        ("task:keywords/heldout2", "no split 'heldout2'; did you mean 'heldout'?"),
    ],
    ids=["gone", "inside", "folder", "xlsx", "long", "nul", "pipe", "zero", "task", "split"],
)
def test_DS22_names_that_lead_to_no_file_are_known_early(lab: Lab, name: str, words: str) -> None:
    (lab.folder / "table.xlsx").write_text("a,b\n")
    os.mkfifo(lab.folder / "pipe.jsonl")
    (lab.folder / "empty").mkdir()
    said = lab.run(changed(lab.sft(), "phases.0.rollout.path", name))
    refused(said, 5 if "nothing" in name else 3, words, "tiny.yaml line")
    assert not lab.run_folder.exists()


def test_DS22_what_may_not_be_read_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def denied(self: Path, *args: object, **more: object) -> object:
        if self.name == "pairs.jsonl":
            raise PermissionError(13, "Permission denied")
        return real(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "open", denied)
    refused(lab.run(lab.sft()), 3, "pairs.jsonl cannot be read: Permission denied", "permissions")


def test_DS_keywords_reward_names_the_sample_without_keywords(lab: Lab) -> None:
    refused(lab.run(lab.rl("keyword-coverage")), 3, "keyword-coverage", "sample 0", "no list 'keywords'")


def test_DS_rows_for_the_tokenizer_without_any_text(lab: Lab) -> None:
    lab.rows("texts.jsonl", [{"number": 3}])
    refused(lab.run(lab.sft()), 3, "texts.jsonl: no row has 'text', 'prompt' or 'completion'", "another source")
