"""`levers:` in an experiment: which runs, and which lever moved what."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from compare_desk import experiment

import hookline
from hookline import ExperimentError
from hookline.cli import main
from hookline.study.matrix import members_of

RATE = {"phases.rl.update.lr": 0.1}


def with_levers(levers: Any, **phase: Any) -> dict[str, Any]:
    return experiment(**phase) | {"levers": levers}


def test_one_run_is_the_file_itself_and_each_lever_is_one_more() -> None:
    levers = {"faster": RATE, "both": {**RATE, "phases.rl.rollout.rows": 4}}
    members = members_of(with_levers(levers), ["phases.rl.update.lr=1e-6"], 2)
    assert [member.name for member in members] == [
        f"{lever},seed={seed}" for seed in (1, 2) for lever in ("unchanged", "faster", "both")
    ]
    by_name = {member.name: member.plan.experiment.phases[0] for member in members}
    rates = {name: spec.update.options["lr"] for name, spec in by_name.items()}
    assert rates["unchanged,seed=1"] == 1e-6
    assert rates["both,seed=2"] == 0.1, "a lever moves what the command line has set"
    assert by_name["both,seed=2"].rollout.options["rows"] == 4


def test_explain_shows_the_file_itself_and_how_to_see_a_lever(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "levers.json"
    path.write_text(json.dumps(with_levers({"faster": RATE})))
    assert main(["explain", str(path)]) == 0
    said = capsys.readouterr().out.partition("levers     ")[2]
    assert said.startswith("2 runs; above is the first, unchanged, and not faster\n")
    another = shlex.split(said.partition("to see another: ")[2])
    assert main(another[1:]) == 0
    assert "runs; above" not in capsys.readouterr().out, "one run is left"


def test_levers_can_be_left_out_and_go_with_a_matrix() -> None:
    values = with_levers({"faster": RATE}) | {"matrix": {"phases.rl.steps": [2, 3]}}
    names = [member.name for member in members_of(values)]
    assert names == ["unchanged,steps=2", "faster,steps=2", "unchanged,steps=3", "faster,steps=3"]
    assert [member.name for member in members_of(values, ["levers={}"])] == ["steps=2", "steps=3"]
    with pytest.raises(ExperimentError, match="has `levers`"):
        hookline.run(with_levers({"faster": RATE}))


@pytest.mark.parametrize(
    ("levers", "said"),
    [
        ({"../up": RATE}, "cannot be the name of a lever"),
        ({"unchanged": RATE}, "cannot be the name of a lever"),
        ({"faster": {}}, "give override paths"),
        ({"faster": 0.1}, "give override paths"),
        ({"faster": {"seed": 3}}, "cannot change seed"),
        ({"faster": {"phases.rl.update.lrr": 0.1}}, "faster"),
        (["faster"], "must map names"),
    ],
    ids=str,
)
def test_what_is_no_lever_is_refused(levers: Any, said: str) -> None:
    with pytest.raises(ExperimentError) as caught:
        members_of(with_levers(levers))
    assert said in "\n".join([str(caught.value), *getattr(caught.value, "problems", ())])


def test_a_lever_that_changes_nothing_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"'same' of .* changes nothing"):
        members_of(with_levers({"faster": RATE, "same": {"phases.rl.steps": 3}}, steps=3), ["phases.rl.update.lr=1e-6"])


def test_other_sweeps_have_no_levers(slow_and_fast: Path) -> None:
    assert hookline.compare([slow_and_fast])["moved"] == []


def test_the_report_says_which_lever_moved_what(tmp_path: Path, capsys: Any) -> None:
    levers = {"faster": RATE, "hardly": {"phases.rl.update.lr": 2e-6}}
    path = tmp_path / "levers.json"
    path.write_text(json.dumps(with_levers(levers)))
    out = tmp_path / "runs"
    hookline.sweep(str(path), ["phases.rl.update.lr=1e-6"], seeds=7, jobs=2, out=out)
    found = hookline.compare([out])
    assert found["baseline"] == "unchanged"
    figures = {one["metric"]: {each["label"]: each for each in one["against"]} for one in found["moved"]}
    assert {"eval/task", "eval/kl"} <= figures.keys()
    assert figures["eval/task"]["faster"]["shown"]
    assert figures["eval/task"]["faster"]["difference"]["low"] > 0
    assert not figures["eval/task"]["hardly"]["shown"]
    assert main(["compare", str(out), "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines() if line.startswith(("faster", "hardly")) and "eval/task" in line]
    assert [row[0] for row in rows] == ["faster", "hardly"]
    assert rows[0][-1] == "better"
    assert rows[1][-2:] == ["not", "shown"]
    page = (tmp_path / "report" / "compare.html").read_text()
    assert "What each lever moved" in page


def test_the_page_shows_the_levers_of_the_example() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/comparing.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^```yaml examples/levers.yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    example = root / "examples/levers.yaml"
    assert yaml.safe_load(shown)["levers"] == yaml.safe_load(example.read_text(encoding="utf-8"))["levers"]
    names = [member.name for member in members_of(str(example))]
    assert names == ["unchanged", "more-answers", "nobody-careless", "weighed-annotators", "lower-kl-price"]
