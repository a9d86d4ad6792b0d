"""A valid experiment, damaged at random: either it still plans, or it is refused in lines a person can read."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from badinput_lab import WORDS, Lab
from hypothesis import given
from hypothesis import strategies as st

from hookline.errors import HooklineError
from hookline.loop.api import plan
from hookline.plan.plan import Plan

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from(
        ["", "no", "1e-3", "sft", "ppo", "gae", "../..", "builtin:keywords/x", "task:", "a:b:c", "\x00", "é\n→"]
    ),
    st.text(max_size=12),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def base() -> dict[str, Any]:
    lab = Lab(Path(), lambda: ("", ""))
    made = lab.sft()
    rl = lab.rl([{"use": "length", "weight": -0.1}])["phases"][0]
    rl |= {"wrap": [{"use": "kl-penalty", "target": 3.0}, "whiten"], "model": {"from": "sft"}}
    rl["evaluate"] = [{"every": 2, "rows": 2, "prompts": "pairs.jsonl", "reward": ["length"]}]
    made["phases"].append(rl)
    return made


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    made = copy.deepcopy(base())
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(list(places(made))))
        owner = made
        for part in path[:-1]:
            owner = owner[part]
        match draw(st.sampled_from(["drop", "rename", "retype", "wrap", "double"])):
            case "drop":
                del owner[path[-1]]
            case "rename" if isinstance(owner, dict):
                owner[draw(st.text(max_size=8)) or path[-1] + "x"] = owner.pop(path[-1])
            case "wrap":
                owner[path[-1]] = draw(st.sampled_from([[owner[path[-1]]], {"use": owner[path[-1]]}]))
            case "double" if isinstance(owner, list):
                owner.append(copy.deepcopy(owner[path[-1]]))
            case _:
                owner[path[-1]] = draw(VALUES)
        if not isinstance(made, dict) or not list(places(made)):
            break
    return made


def judge(source: Any, overrides: list[str]) -> None:
    began = time.perf_counter()
    refusal = None
    try:
        assert isinstance(plan(source, overrides), Plan)
    except HooklineError as err:
        refusal = err
    assert time.perf_counter() - began < 2
    if refusal is not None:
        text, code = str(refusal), refusal.exit_code
        lines = text.splitlines()
        assert 2 <= code <= 7
        assert len(lines) <= 22
        assert len(lines) == 1 or all(line.startswith("  ") for line in lines[1:]), text
        assert all(line.isprintable() for line in lines), text
        assert all(len(line) < 700 for line in lines), text


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder, before = tmp_path_factory.mktemp("fuzz"), Path.cwd()
    os.chdir(folder)
    lab = Lab(folder, lambda: ("", ""))
    lab.rows("texts.jsonl", [{"text": word} for word in WORDS])
    lab.rows("pairs.jsonl", [{"prompt": word, "completion": word} for word in WORDS])
    judge(base(), [])
    yield folder
    os.chdir(before)


@given(damaged())
def test_CF_damaged_mappings_are_planned_or_refused_in_sentences(made: dict[str, Any]) -> None:
    judge(made, [])


@given(damaged(), st.data())
def test_CF_damaged_files_are_planned_or_refused_in_sentences(
    data: Path, made: dict[str, Any], more: st.DataObject
) -> None:
    lines = yaml.safe_dump(made, sort_keys=False, allow_unicode=more.draw(st.booleans())).split("\n")
    for _ in range(more.draw(st.integers(0, 2))):  # a line twice, a line less, a character changed
        at = more.draw(st.integers(0, len(lines) - 1))
        match more.draw(st.integers(0, 2)):
            case 0:
                lines.insert(at, lines[at])
            case 1:
                lines[at] = more.draw(st.text("{}[]&*!|>'\"%@`:-? ab0.,#\t", max_size=6)) + lines[at]
            case _:
                del lines[at]
                lines = lines or [""]
    path = data / "damaged.yaml"
    path.write_text("\n".join(lines), encoding="utf-8", errors="replace")
    judge(path, [])


KEYS = [
    "seed",
    "phases.rl",
    "phases.0.update",
    "phases.rl.wrap.0",
    "model",
    "a.b.c",
    "",
    "phases.rl.reward.length.weight",
]
OVERRIDES = st.tuples(
    st.sampled_from(KEYS),
    st.sampled_from(["", ".x", ".lr", ".0", ".use", ".."]),
    st.text("=[]{}:-&*!'\"0123456789.eabn, ", max_size=10),
)


@given(st.lists(OVERRIDES, max_size=3))
def test_CF_random_overrides_are_applied_or_refused_in_sentences(found: list[tuple[str, str, str]]) -> None:
    judge(base(), [f"{key}{more}={value}" for key, more, value in found])
