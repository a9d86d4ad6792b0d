"""What `make real` and `make real-oldest` rest on: a folder is read without Hookline, and two readings are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import readback
from safetensors.torch import load_file, save_file
from test_folders import experiment, phases, rows

import hookline
from shapes import SHAPES

PAGE = Path(__file__).resolve().parents[2] / "docs/chat.md"


def test_a_reading_equals_itself_and_what_differs_is_named(
    shelf_of_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = rows(tmp_path)
    for method in ("sft", "rm"):
        run = hookline.run(experiment(shelf_of_folders / "qwen2", method, phases(files)[method]), out=tmp_path / method)
        hookline.export(run, tmp_path / "exports/qwen2" / method)
    new, old, page = str(tmp_path / "new"), str(tmp_path / "old"), tmp_path / "page.md"
    page.write_text("before\n<!-- read back -->\nold table\n")
    readback.read_all(tmp_path / "exports", new)
    readback.read_all(tmp_path / "exports", old)
    assert readback.compare(new, old, page) == 0
    assert page.read_text().startswith("before\n<!-- read back -->\n\nRead back by")
    assert "old table" not in page.read_text()
    assert re.search(r"\| qwen2 \| rm, sft \| 0.0e\+00 \| equal \| \d of 4 and \d of 4 \|", page.read_text())
    tensors = load_file(f"{old}.safetensors")
    save_file({**tensors, "qwen2/rm": tensors["qwen2/rm"] + 1}, f"{old}.safetensors")
    readings = json.loads(Path(f"{old}.json").read_text())
    readings["qwen2/sft"]["rendered"] = "other"
    Path(f"{old}.json").write_text(json.dumps(readings))
    assert readback.compare(new, old, page) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == ["qwen2/sft: rendered", "qwen2/rm: 1.0e+00"]


def test_the_page_shows_equal_readings_of_all_shapes() -> None:
    shown = PAGE.read_text().split("<!-- read back -->")[1]
    table = re.findall(
        r"^\| (\w+) \| (.*?) \| ([-+.\de]+) \| (.*?) \| (\d+) of (\d+) and (\d+) of (\d+) \|$", shown, re.MULTILINE
    )
    assert {folder for folder, *_ in table} == set(SHAPES)
    for _, exports, gap, texts, *stops in table:
        assert {"sft", "reward-model"} <= set(exports.split(", "))
        assert float(gap) <= readback.NEAR
        assert texts == "equal"
        assert len(set(stops)) == 1
