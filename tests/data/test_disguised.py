"""Files that are not what their name says are named as what they are; a key that another YAML reader changed is read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from pydantic import Field

import hookline
from hookline import DataError, DataName, rows
from hookline.cli.show import _about
from hookline.config.experiment import load
from hookline.config.problems import problems_of
from hookline.config.yaml import Document
from hookline.contract.component import Component

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (LFS, "is a Git-LFS pointer, not the file itself → fetch the file: git lfs pull"),
        (gzip.compress(b'{"text": "open"}\n', mtime=0), "is compressed with gzip, which its name does not say → rename it to a."),
        (b"PK\x03\x04....", "is compressed with zip"),
    ],
    ids=["lfs", "gzip", "zip"],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, raw: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError) as err:
        rows(str(tmp_path / name))
    assert said in str(err.value)


def test_on_is_understood_where_another_reader_made_it_true() -> None:
    phase = {"name": "p", "steps": 1, "rollout": "text", "update": {"use": "causal-lm", "lr": 1}}
    experiment = {"name": "x", "model": {"build": "gpt2"}, "phases": [phase]}
    experiment["tokenizer"] = {"train": "bpe", True: "builtin:stdlib-docs"}
    parsed, _ = load(experiment)
    assert parsed.tokenizer is not None
    assert parsed.tokenizer.on == "builtin:stdlib-docs"


class Options(hookline.Config):
    betas: tuple[float, float] = (0.9, 0.95)
    top_p: float = 1.0
    value_clip: float = 0.2
    gamma: float = 1.0
    paths: DataName | None = None
    made: list[int] = Field(default_factory=list)
    by: object = object()


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ({"beta": 0.1}, ""),
        ({"stop": ["x"]}, ""),
        ({"eps_clip": 0.2}, ""),
        ({"gama": 1}, "gamma"),
        ({"beta": [1, 2]}, "betas"),
    ],
)
def test_a_hint_names_only_an_option_that_is_close_and_can_hold_the_value(given: dict[str, object], hint: str) -> None:
    with pytest.raises(ValueError) as err:
        Options.model_validate(given)
    [said] = problems_of(err.value, Document("x.yaml", given), Options)  # type: ignore[arg-type]
    assert ("did you mean" in said) is bool(hint)
    assert f"'{hint}'" in said or not hint


def test_options_are_shown_without_addresses() -> None:
    class Shown(Component):
        """Does nothing."""

        Config = Options

    shown = _about(Shown)["options"]
    assert " at 0x" not in str(shown)
    assert shown["paths"]["type"] == "str | None"
    assert shown["made"]["default"] == []
