"""`hookline data`: what it shows, finds and writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline.cli import main
from hookline.errors import DataError
from hookline.study.dataset import Finding

ASK = [{"question": f"What is {i} + {i}?", "answer": str(2 * i), "level": i % 3} for i in range(30)]


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    found = main(["data", *arguments])
    out, err = capsys.readouterr()
    assert found == code, err
    assert "Traceback" not in err
    return out + err


def test_inspect_names_columns_lengths_shape_and_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "qa.jsonl", [*ASK, {"question": "a", "answer": "b"}])
    text = said(capsys, "inspect", path)
    assert "31 rows of answers, read as 'question-answer'" in text
    assert "number; missing in 1" in text
    assert "answer: median 2, 95 % up to 2, longest 2 characters" in text
    found = json.loads(said(capsys, "inspect", path, "--json"))
    assert found["rows"] == 31
    assert found["columns"]["prompt"] == "text"
    assert found["sha256"] == hookline.rows(path).sha256


def test_inspect_shows_the_first_row_with_what_is_learned(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = lines(tmp_path / "qa.jsonl", ASK)
    text = said(capsys, "inspect", path, "--chat", "--model", str(shelf / "qwen2"))
    assert "speakers: user 30, assistant 30" in text
    assert "What is 0 + 0?<|im_end|>\n<|im_start|>assistant\n[[0<|im_end|>]]" in text
    assert "longest 3 tokens" in text


def test_validate_counts_what_training_refuses_and_what_may_be_wrong(
    shelf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "yes", "rejected": "no", "id": i} for i in range(6)]
    rows += [rows[0], {"prompt": "p1", "chosen": "a", "rejected": "a", "id": 1}, {"prompt": "q", "chosen": "", "rejected": "x"}]
    path = lines(tmp_path / "pairs.jsonl", [*rows, {"prompt": "r", "chosen": 3, "rejected": "x"}, {"other": "z"}])
    text = said(capsys, "validate", path, "--model", str(shelf / "llama3"), code=3)
    for words in (
        "error: 1 rows: 'chosen' is int, not text",
        "error: 1 rows: has no field that training reads",
        "warning: 1 rows: repeats an earlier row (first: ",
        "warning: 1 rows: has the `id` of an earlier row with other content",
        "warning: 1 rows: compares identical answers, which are left out",
        "warning: 1 rows: has an empty 'chosen'",
        "11 rows, 2 cannot be used",
    ):
        assert words in text, text
    found = json.loads(said(capsys, "validate", path, "--json", code=3))
    assert found["rows"] == 11


def test_validate_finds_prompts_of_another_split_long_rows_and_labels_that_say_nothing(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", [{"prompt": f"p{i}", "completion": "x", "label": True} for i in range(200)])
    lines(tmp_path / "test.jsonl", [{"prompt": f"p{i}", "completion": "y", "label": False} for i in range(195, 205)])
    rows, findings = hookline.validate_data(str(tmp_path))
    assert rows == 200
    found = {one.what: one.rows for one in findings}
    assert found[f"prompts of '{tmp_path}?split=test' that are here, too"] == 5
    assert found["almost all labels are True"] == 200


def test_validate_reads_as_training_does_where_a_model_is_named(shelf: Path, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hi " * 200}, {"role": "assistant", "content": "yes"}]
    path = lines(tmp_path / "chat.jsonl", [{"messages": turns}, {"messages": turns[1:]}, {"messages": turns[:1]}])
    _, findings = hookline.validate_data(path, model=shelf / "qwen2", longest=100)
    assert [(one.error, one.rows) for one in findings if "longer than 100 tokens" in one.what] == [(False, 1)]
    assert any(one.error and "no message of an assistant" in one.what and one.where.endswith("row 3") for one in findings)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "gone.jsonl"], 3, "no data file gone.jsonl"),
        (["look", "gone.jsonl"], 2, "inspect"),
        (["inspect", "rows.jsonl", "--columns", "prompt"], 2, "'prompt' is not FIELD=COLUMN"),
        (["inspect", "rows.jsonl", "--columns", "prompt=ask"], 3, "has no column 'ask'"),
        (["inspect", "rows.jsonl", "--system", "x"], 2, "has a `system` text without `chat: true`"),
        (["inspect", "rows.jsonl", "out.jsonl"], 2, "`inspect` writes no file"),
        (["inspect", "rows.jsonl", "--model", "nowhere"], 2, "no tokenizer folder nowhere"),
        (["convert", "rows.jsonl"], 2, "`convert` writes one file"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "rows.jsonl", [{"prompt": "a"}])
    assert words in said(capsys, *arguments, code=code)


def test_rows_takes_the_options_of_the_section_data(tmp_path: Path) -> None:
    path = lines(tmp_path / "qa.jsonl", ASK)
    assert len(hookline.rows(path, filter={"level": 0})) == 10
    assert hookline.rows(path, columns={"prompt": "answer"}).records[1]["prompt"] == "2"
    with pytest.raises(DataError, match="there is no shape 'x'"):
        hookline.rows(path, shape="x")
    with pytest.raises(hookline.ExperimentError, match="colums"):
        hookline.rows(path, colums={"a": "b"})


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.jsonl.zst"])
def test_convert_writes_what_is_read_again(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "qa.jsonl", [{key: str(value) for key, value in row.items()} for row in ASK])
    assert "30 rows" in said(capsys, "convert", path, str(tmp_path / name))
    again = hookline.rows(str(tmp_path / name)).records
    assert [dict(row) for row in again] == [dict(row) for row in hookline.rows(path).records]
    assert "overwrite" in said(capsys, "convert", path, str(tmp_path / name), code=3)
    said(capsys, "convert", path, str(tmp_path / name), "--overwrite")


def test_convert_writes_the_shapes_of_other_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lines(tmp_path / "qa.jsonl", ASK)
    said(capsys, "convert", path, str(tmp_path / "talk.jsonl"), "--to", "sharegpt", "--chat")
    record = json.loads((tmp_path / "talk.jsonl").read_text().splitlines()[3])
    assert record["conversations"] == [{"from": "human", "value": "What is 3 + 3?"}, {"from": "gpt", "value": "6"}]
    text = said(capsys, "convert", path, str(tmp_path / "x.jsonl"), "--to", "sharegbt", code=3)
    assert "did you mean 'sharegpt'" in text


def test_validate_holds_every_row_to_what_the_first_one_is_for(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}, {"prompt": "c"}])
    assert [(one.what, one.rows, one.error) for one in hookline.validate_data(path)[1]] == [
        ("has no 'completion', unlike the first row", 2, True)
    ]
    row = {"prompt": "a", "completion": "b", "label": True}
    path = lines(tmp_path / "b.jsonl", [row, {**row, "label": "yes"}, {**row, "label": None}])
    assert hookline.validate_data(path)[1][0] == Finding(
        "has a `label` that is not true, false or a number", 2, f"{path} row 2", True
    )
    tied = {"prompt": "a", "response_0": "b", "response_1": "c", "better_response_id": 0}
    path = lines(tmp_path / "c.jsonl", [tied, {**tied, "better_response_id": 0.5}])
    assert any("1 of 2 rows prefer no answer" in one.what for one in hookline.validate_data(path)[1])


def test_validate_finds_words_that_the_tokenizer_does_not_know(tmp_path: Path) -> None:
    from tokenizers import Tokenizer as Inner
    from tokenizers import models, pre_tokenizers

    inner = Inner(models.WordLevel({"<eos>": 0, "<unk>": 1, "open": 2, "close": 3}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens(["<eos>", "<unk>"])
    (tmp_path / "model").mkdir()
    inner.save(str(tmp_path / "model" / "tokenizer.json"))
    about = {"eos_token": "<eos>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (tmp_path / "model" / "tokenizer_config.json").write_text(json.dumps(about))
    path = lines(tmp_path / "a.jsonl", [{"prompt": "open", "completion": "close"}, {"prompt": "open", "completion": "zebra"}])
    _, findings = hookline.validate_data(path, model=tmp_path / "model")
    assert [(one.what, one.rows) for one in findings] == [("has words that the tokenizer does not know", 1)]
