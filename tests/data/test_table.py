"""The table of shapes and containers: every shape in every container is read as it is, and trains what it is for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rows_of_users import SHAPES, Shape

from hookline.config.data import DataSpec
from hookline.data.sources import Catalogue
from hookline.files.writing import written
from hookline.registry.construct import configure, construct
from hookline.registry.offers import find
from hookline.tokens.encode import Encoding
from hookline.tokens.tokenizer import Tokenizer

CONTAINERS = (
    "rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.feather", "save-to-disk:rows", "rows.jsonl.gz",
)  # fmt: skip
COMPARED: dict[str, tuple[str, dict[str, Any]]] = {
    "answers": ("dataset", {"path": "x"}),
    "labels": ("dataset", {"path": "x", "label": "label"}),
    "preferences": ("preferences", {"path": "x"}),
    "prompts": ("generate", {"prompts": "x", "max_new_tokens": 8}),
}
"""What rows are for → the rollout that reads them."""


def cells(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table as a user's own script writes it: numbers bare, lists and objects as JSON."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        table.writerow(rows[0])
        for row in rows:
            table.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])


def stored(shape: Shape, container: str, folder: Path) -> str:
    rows = [dict(shape.row) for _ in range(3)]
    if container.endswith((".csv", ".tsv")):
        cells(folder / container, rows)
    else:
        form, colon, file = container.rpartition(":")
        written(Path(f"{form}{colon}{folder / file}"), rows)
    return str(folder / container.rpartition(":")[2])


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_rows_in_every_container(name: str, container: str, tmp_path: Path) -> None:
    shape = SHAPES[name]
    spec = DataSpec.model_validate({"path": stored(shape, container, tmp_path), "shape": shape.named or None})
    record = Catalogue(named={"mine": spec}).rows("mine").records[2]
    assert {key: record.get(key) for key in shape.fields} == shape.fields


@pytest.fixture(scope="module")
def encoding(shelf: Path) -> Encoding:
    return Encoding(Tokenizer.load(shelf / "qwen2"))


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_trains_what_it_is_for(name: str, encoding: Encoding, tmp_path: Path) -> None:
    shape = SHAPES[name]
    spec = DataSpec.model_validate({"path": stored(shape, "rows.parquet", tmp_path), "shape": shape.named or None})
    use, options = COMPARED[shape.use]
    offer = find("rollout", use)
    cls: Any = offer.load()
    rollout: Any = construct(cls, configure(cls, options, use), use)
    decode: Callable[..., str] = encoding.tokenizer.decode
    for where, record in Catalogue(named={"mine": spec}).first("mine"):
        read = rollout.read_row(encoding, record, where)
        for row in read if isinstance(read, list) else [read]:
            assert "Open" in decode(row.prompt_ids)
        if shape.use == "preferences":
            assert [decode(row.answer_ids).strip() for row in read] == ["It is open.", "No."]
        elif shape.use != "prompts":
            assert decode(read.answer_ids).strip() == "It is open."
        if shape.use == "labels":
            assert read.columns["recorded_B"] == float(shape.fields["label"])
