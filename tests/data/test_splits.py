"""A file's prompts are split in one way, whoever reads it: a rollout that trains on it, or the report on what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rows_of_users import SHAPES

import hookline
from hookline import DataError
from hookline.data.sources import Catalogue
from hookline_plugins.splits import in_split

JUDGED = [name for name, shape in SHAPES.items() if shape.use in ("preferences", "labels") and not shape.named]
COUNT = 120


def about(row: Any, i: int) -> Any:
    """The row, about another prompt."""
    return json.loads(json.dumps(row).replace("Open", f"Open {i}"))


@pytest.mark.parametrize("name", JUDGED)
def test_the_report_holds_out_what_the_rollout_does_not_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(about(SHAPES[name].row, i)) + "\n" for i in range(COUNT)))
    read = [in_split(record, "heldout") for record in Catalogue().rows(str(file)).records]
    assert len(read) == COUNT
    assert 2 <= sum(read) <= 30, "about a tenth"
    events = hookline.read_events(file)
    several = len(events) // COUNT  # some formats have several judgements in a row
    assert [in_split(event.written(), "heldout") for event in events] == [held for held in read for _ in range(several)]


def test_a_prompt_is_in_one_split_however_it_is_written() -> None:
    def held(*prompts: Any) -> list[bool]:
        return [in_split({"prompt": prompt}, "heldout") for prompt in prompts]

    for i in range(COUNT):
        text, system = f"q{i}", {"role": "system", "content": "Be brief."}
        user = {"role": "user", "content": text}
        whole = {"chosen": [user, {"role": "assistant", "content": "a"}], "rejected": [user, {"role": "assistant", "content": "b"}]}
        ways = held(text, [user], [system, user], [{"from": "human", "value": text}], [{**user, "name": None}])
        assert len({*ways, in_split(whole, "heldout"), in_split({**whole, "prompt": None}, "heldout")}) == 1
        assert in_split({"prompt": text}, "train") is not ways[0]


def test_a_row_without_a_prompt_is_refused_and_not_put_into_one_split_with_all_others() -> None:
    row = {"chosen": "a", "rejected": "b", "source": "x"}
    with pytest.raises(DataError, match="has no prompt, by which `split` divides rows; it has chosen, rejected, source"):
        in_split(row, "train")
    assert in_split(row, "all")
    unlike = {"chosen": [{"role": "user", "content": "a"}], "rejected": [{"role": "user", "content": "b"}]}
    with pytest.raises(DataError, match="has no prompt"):
        in_split(unlike, "heldout")
