"""docs/adding-a-kind.md: its diff, applied to a copy of the sources, makes a kind that every command knows."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hookline.contract.kinds import KINDS, Kind
from hookline_plugins.report.words import sentence

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/adding-a-kind.md"
EXPERIMENT = """\
name: divided
seed: 1
threads: 1
tokenizer: {train: bpe, on: builtin:keywords, vocabulary: 300}
model: {build: gpt2, layers: 1, width: 32, context: 64}
phases:
  - name: rl
    rollout: {use: generate, prompts: builtin:keywords, rows: 8, samples_per_prompt: 4, max_new_tokens: 6}
    reward: {use: format, pattern: "[aeiou]", whole: false}
    wrap: clip-reward
    filter: [USE]
    advantage: leave-one-out
    update: {use: reinforce, lr: 3.0e-3}
    steps: 2
trackers: []
"""
LINE = 1 + EXPERIMENT.splitlines().index("    filter: [USE]")
THIRD = '''
from pydantic import Field
import hookline
from hookline import Filter

class Short(Filter):
    """Keeps the first rows."""

    class Config(hookline.Config):
        most: int = Field(5, ge=0)
        """Rows that are kept. Large keeps more."""

    def keep(self, ctx, scored):
        return scored.sample_B.argsort().argsort() < self.config.most
'''
DRIVER = """
import contextlib, io, json, sys
import hookline
from hookline.cli import main
import pytest

answers = {"home": hookline.__file__}
for name, command in json.load(sys.stdin).items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if command[0] == "pytest":
            sys.path.insert(0, command[2])
            code = int(pytest.main(["-q", "-p", "no:cacheprovider", command[1]]))
        else:
            code = main(command)
    answers[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(answers))
"""


def the_diff() -> str:
    [text] = re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return text


def apply(diff: str, tree: Path) -> list[str]:
    """What `git apply` does, line numbers aside: each hunk's old lines stand in the file exactly once. Returns the paths."""
    paths = []
    for part in re.split(r"(?m)^(?=diff --git )", diff)[1:]:
        head, *hunks = re.split(r"(?m)^@@.*\n", part)
        [name] = re.findall(r"(?m)^\+\+\+ b/(\S+)$", head)
        path = tree / name
        assert ("new file" in head) != path.exists(), f"{name}: new or not?"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for hunk in hunks:
            lines = [(line[:1] or " ", line[1:]) for line in hunk.splitlines(keepends=True)]
            old = "".join(line for mark, line in lines if mark in " -")
            new = "".join(line for mark, line in lines if mark in " +")
            assert text == old == "" or text.count(old) == 1, f"{name} does not hold, or holds twice:\n{old}"
            text = text.replace(old, new, 1)
        path.write_text(text, encoding="utf-8")
        paths.append(name)
    return paths


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Name → [exit code, stdout, stderr] of each command in the changed tree, all by one process."""
    desk = tmp_path_factory.mktemp("kind")
    for part in ("core", "plugins"):
        shutil.copytree(ROOT / part, desk / part)
    apply(the_diff(), desk)
    (desk / "third.py").write_text(THIRD)
    for name, use in {
        "spread": "{use: spread, least: 0.5}",
        "option": "{use: spread, leest: 0.5}",
        "name": "spred",
        "third": "{use: third, most: 3}",
        "mine": "mine",
        "both": "{use: spread, least: 0.5}, {use: third, most: 3}",
    }.items():
        (desk / f"{name}.yaml").write_text(EXPERIMENT.replace("USE", use))
    (desk / "unpaid.yaml").write_text(
        re.sub(r"    (reward|wrap|advantage):.*\n", "", EXPERIMENT.replace("USE", "spread")).replace(
            "{use: reinforce, lr: 3.0e-3}", "causal-lm"
        )
    )
    commands = {
        "list": ["plugins", "list", "--json", "-p", "third.py"],
        "explain": ["explain", "spread.yaml", "--json"],
        "text": ["explain", "both.yaml", "-p", "third.py"],
        "check": ["plugins", "check", "spread", "--json"],
        "option": ["explain", "option.yaml"],
        "name": ["explain", "name.yaml"],
        "unpaid": ["explain", "unpaid.yaml"],
        "run": ["run", "third.yaml", "-p", "third.py", "--out", "run-third"],
        "new": ["plugins", "new", "mine", "--kind", "filter"],
        "test": ["pytest", "hookline-mine/tests", "hookline-mine/src"],
    }
    sources = os.pathsep.join(str(desk / part) for part in ("core", "plugins"))
    variables = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        cwd=desk,
        env=variables,
        input=json.dumps(commands),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert Path(answers["home"]).is_relative_to(desk), "the changed copy is asked"
    written = (desk / "hookline-mine/src/hookline_mine/__init__.py").read_text()
    rows = [json.loads(line)["metrics"]["rows"] for line in (desk / "run-third/metrics.jsonl").read_text().splitlines()]
    experiment = json.loads((desk / "run-third/experiment.json").read_text())
    return answers | {"written": written, "rows": rows, "experiment": experiment}


def answer(said: dict[str, Any], name: str) -> str:
    code, out, err = said[name]
    assert code == 0, f"{name}: {out}{err}"
    return str(out)


def test_the_diff_is_a_row_a_base_class_and_a_component(tmp_path: Path) -> None:
    diff = the_diff()
    files = re.findall(r"(?m)^\+\+\+ b/(\S+)$", diff)
    new = re.findall(r"new file.*\n.*\n\+\+\+ b/(\S+)$", diff, re.MULTILINE)
    assert [Path(name).parent.name for name in new] == ["contract", "hookline_plugins"]
    assert {name for name in files if name not in new} == {
        "core/hookline/contract/kinds.py",
        "core/hookline/__init__.py",
        "plugins/hookline_plugins/entry_points.txt",
    }
    assert not re.search(r"(?m)^-(?!--)", diff), "nothing is taken away"
    assert "filter" not in KINDS, "else the page shows what is there already"


def test_the_page_says_what_every_field_of_a_row_means() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"(?m)^\| `(\w+)` \|", page) == [field.name for field in dataclasses.fields(Kind)]


def test_it_is_listed(said: dict[str, Any]) -> None:
    offers = [offer for offer in json.loads(answer(said, "list")) if offer["kind"] == "filter"]
    assert [(o["name"], o["distribution"], o["problem"]) for o in offers] == [
        ("spread", "hookline", ""),
        ("third", "third.py", ""),
    ]


def test_it_is_explained_where_it_stands(said: dict[str, Any]) -> None:
    [phase] = json.loads(answer(said, "explain"))["phases"]
    [found] = [hook for hook in phase["hooks"] if hook["does"] == "filters"]
    assert (found["hook"], found["name"], found["options"]) == ("reward", "spread", {"least": 0.5})
    lines = [line.split()[:3] for line in answer(said, "text").splitlines() if line.startswith("  reward")]
    assert [line[1:] for line in lines] == [
        ["answers", "format"], ["wraps", "clip-reward"], ["filters", "spread"], ["filters", "third"],
    ]  # fmt: skip


def test_it_keeps_its_laws(said: dict[str, Any]) -> None:
    [report] = json.loads(answer(said, "check"))
    kept = {law["law"] for law in report["laws"] if law["outcome"] == "pass"}
    assert report["passed"]
    assert {"stands", "resume", "lent", "columns-kept", "permutation", "options"} <= kept
    assert f"tests {len(report['laws'])} laws" in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("option", r"line {line}: phases\.rl\.filter\.spread has no option 'leest'; did you mean 'least'\?"),
        ("name", r"line {line}: no filter 'spred' is installed; did you mean 'spread'\? → install .*"),
        ("unpaid", r"line \d+: 'spread' wraps score, which no component answers in phase 'rl'"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_line(said: dict[str, Any], name: str, told: str) -> None:
    code, out, err = said[name]
    assert code in (2, 5), out + err
    assert re.search(told.format(line=LINE) + r"\n$", err), err
    assert len(re.findall(r"line \d+", err)) == 1


def test_a_third_party_offers_one(said: dict[str, Any]) -> None:
    answer(said, "run")
    assert said["rows"] == [3, 3], "the update sees only what the filter keeps"
    assert "; filter: third (most 3)" in sentence(said["experiment"], "rl"), "a report says so"


def test_a_new_one_is_begun_and_passes_its_test(said: dict[str, Any]) -> None:
    answer(said, "new")
    assert "class Mine(Filter):" in said["written"]
    assert "def keep(self, ctx, scored):" in said["written"]
    assert re.search(r"\d\d passed", answer(said, "test"))
