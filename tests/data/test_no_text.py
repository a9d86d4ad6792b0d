"""What is no text, has no token, or teaches nothing is refused with its row, or counted and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import hookline
from hookline import DataError, Tokenizer
from hookline.config.experiment import TokenizerSpec
from hookline.data.sources import Rows
from hookline.tokens.encode import encode

ASKED = ["open", "close", "read", "write"]


def words_of(*records: dict[str, Any]) -> Tokenizer:
    spec = TokenizerSpec(train="words", on="x.jsonl", vocabulary=300)
    return Tokenizer.make(spec, None, Rows("x.jsonl", records, ""))


def trained(folder: Path, rows: list[dict[str, Any]], use: str) -> hookline.Run:
    """A run of one step on rows; the tokenizer reads only their prompts."""
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    update = "dpo" if use == "preferences" else "sft"
    rollout = {"use": use, "path": str(file), "rows": 2}
    return hookline.run(
        {
            "name": "x",
            "threads": 1,
            "tokenizer": {"train": "bpe", "on": str(file), "vocabulary": 260},
            "model": {"build": "gpt2", "layers": 1, "heads": 1, "width": 8, "context": 64},
            "trackers": [],
            "phases": [{"name": "p", "steps": 1, "rollout": rollout, "update": {"use": update, "lr": 1e-3}}],
        },
        out=folder / "run",
    )


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "open", "chosen": "good yes", "rejected": "bad no"},
        {"prompt": "open", "turns": [["good", "bad", 1.0], ["yes", "no", 0]]},
        {"text": "open", "prompt": "open", "completion": "good bad yes no"},
    ],
)
def test_a_tokenizer_of_words_knows_the_words_of_every_text_of_a_row(row: dict[str, Any]) -> None:
    made = words_of(row)
    ids = made.encode("open good bad yes no")
    assert len(set(ids)) == 5
    assert made.special["pad_token_id"] not in ids


def test_an_unknown_word_is_refused_with_its_row(tmp_path: Path) -> None:
    made = words_of({"prompt": "open the file"})
    made.save(tmp_path)
    for tokenizer in (made, Tokenizer.load(tmp_path)):
        with pytest.raises(DataError, match=r"d\.jsonl row 2: the word 'list' is not in the vocabulary"):
            encode(tokenizer, {"prompt": "open the list", "completion": "file"}, where="d.jsonl row 2")
        with pytest.raises(DataError, match="the word 'now'"):
            tokenizer.encode_many(["open", "open now"])


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ([None, "shown", 1.0], "the action of a turn is null, not text"),
        (["open", None, 1.0], "the shown text of a turn is null, not text"),
        ([{"tool": "x"}, "", 1.0], "the action of a turn is dict, not text"),
        (["open", 3, 1.0], "the shown text of a turn is int, not text"),
        (["open", "", 1e39], r"the reward 1e\+39 is beyond float32"),
        (["open", "", -3e38 * 2], r"the reward -6e\+38 is beyond float32"),
    ],
)
def test_a_turn_that_is_no_text_is_refused_with_its_row(tmp_path: Path, turn: list[Any], said: str) -> None:
    rows = [{"prompt": "open", "turns": [["close", "", 1.0]]}, {"prompt": "open", "turns": [turn]}]
    with pytest.raises(DataError, match=f"row 2: {said}"):
        trained(tmp_path, rows, "transcripts")


def test_identical_answers_are_left_out_and_empty_ones_counted(tmp_path: Path) -> None:
    answers = [("yes", "no"), ("yes", "yes"), ("no", ""), ("", "")]
    rows = [{"prompt": w, "chosen": a, "rejected": b} for w, (a, b) in zip(ASKED, answers)]
    run = trained(tmp_path, rows, "preferences")
    assert any("2 of 4 judgements compare identical answers and were left out" in text for text in run.notices)
    assert any("1 of 4 judgements have an empty answer" in text for text in run.notices)
    assert run.rows()[-1]["metrics"]["rows"] == 4


def test_only_identical_answers_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": w, "chosen": "yes", "rejected": "yes"} for w in ASKED]
    with pytest.raises(DataError, match="0 of 4 judgements"):
        trained(tmp_path, rows, "preferences")


def test_empty_completions_are_counted(tmp_path: Path) -> None:
    run = trained(tmp_path, [{"prompt": w, "completion": "" if w == "open" else w} for w in ASKED], "dataset")
    assert any("1 of 4 rows have an empty completion" in text for text in run.notices)
