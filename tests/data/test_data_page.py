"""docs/data.md shows what is: every shape, every option of the section `data`, and an example that can be read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from hookline.config.data import DataSpec, Part
from hookline.data.shapes import SHAPES
from hookline.data.sources import Catalogue

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_shape_is_in_the_table() -> None:
    table = PAGE.partition("## Columns that are recognised")[2].partition("## ")[0]
    small = {"question", "problem", "query-pairs", "question-pairs", "prompt-and-messages"}  # parts of others
    shown = set(re.findall(r"`([a-z-]+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))))
    assert SHAPES.keys() - small <= shown
    assert shown <= SHAPES.keys()


def test_every_option_of_the_section_is_in_the_table() -> None:
    table = PAGE.partition("## The section `data`")[2].partition("## ")[0]
    shown = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE))))
    assert shown == (DataSpec.model_fields.keys() | Part.model_fields.keys()) - {"shape"}


def test_the_example_can_be_read(tmp_path: Path) -> None:
    example: Any = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    spec = DataSpec.model_validate(example["data"]["mine"])
    (tmp_path / "qa").mkdir()
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"messages": [{**turns[0], "content": f"ask {i}"}, turns[1]], "language": "en", "score": i % 6} for i in range(60)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [{"question": f"q {i}", "extra": {"solution": "s"}, "language": "en", "score": 4} for i in range(60)]
    (tmp_path / "qa" / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    parts = tuple(part.model_copy(update={"path": part.path.replace(".parquet", ".jsonl")}) for part in spec.path)
    found = Catalogue(named={"mine": spec.model_copy(update={"path": parts})}, folder=str(tmp_path))
    kept, held = found.rows("mine"), found.rows("mine/heldout")
    assert len(kept) + len(held) == 30 + 60
    assert all(isinstance(row.get("prompt", row.get("messages")), list) for row in kept.records)
