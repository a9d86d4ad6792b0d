"""`hookline run --seeds` and `matrix:` — which runs, that each is an ordinary one, and what happens when some stop."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compare_desk import experiment, lines

import hookline
from hookline import ExperimentError, HooklineError
from hookline.cli import main
from hookline.study.matrix import Member, axes_of, left_out, members_of, parse_seeds
from warm import Child, Warm

Written = Callable[..., str]
Start = Callable[[list[str]], Child]
GOOD = "phases.rl.update.lr"


def names(source: Any, *overrides: str, seeds: Any = None) -> list[str]:
    return [member.name for member in members_of(source, overrides, seeds)]


def with_matrix(matrix: Any, **phase: Any) -> dict[str, Any]:
    return experiment(**phase) | {"matrix": matrix}


# -- which runs


@pytest.mark.parametrize(
    ("given", "seeds"), [("5", [1, 2, 3, 4, 5]), (2, [1, 2]), ("3,7,11", [3, 7, 11]), ("4,", [4]), ([0, 9], [0, 9])]
)
def test_seeds_are_a_count_or_a_list(given: Any, seeds: list[int]) -> None:
    assert parse_seeds(given) == seeds


@pytest.mark.parametrize("given", ["", "0", "-3", "1,x", "1,1", "5000", "1.5", []])
def test_seeds_that_cannot_be_are_refused(given: Any) -> None:
    with pytest.raises(ExperimentError):
        parse_seeds(given)


def test_the_product_has_readable_names_and_seeds_vary_slowest() -> None:
    matrix = {"phases.rl.update": ["rloo", {"use": "grpo", "lr": 1e-3}], "phases.rl.steps": [2, 4], "seed": [1, 2]}
    assert names(with_matrix(matrix)) == [
        f"{update},steps={steps},seed={seed}"
        for seed in (1, 2)
        for update in ("rloo", "grpo,lr=0.001")
        for steps in (2, 4)
    ]


def test_names_stay_apart_and_do_not_depend_on_the_other_values() -> None:
    matrix = {"phases.rl.update.lr": [0.1], "phases.rl.rollout.rows": [2, 4], "phases.rl.evaluate.0.rows": [8]}
    assert names(with_matrix(matrix)) == ["lr=0.1,rollout.rows=2,0.rows=8", "lr=0.1,rollout.rows=4,0.rows=8"]
    more = {**matrix, "phases.rl.update.lr": [0.1, 0.2]}
    assert set(names(with_matrix(matrix))) < set(names(with_matrix(more)))
    odd = {"phases.rl.update": [{"use": "rloo", "name": "mine/../x"}], "phases.rl.wrap": [[], ["whiten"], None]}
    assert all("/" not in name for name in _labels(odd))
    assert _labels({"phases.rl.update.use": ["rloo", "grpo"]}) == ["rloo", "grpo"]
    assert _labels({"phases.rl.wrap": [[], ["whiten", {"use": "kl-penalty", "beta": 0.1}]]}) == [
        "wrap=none",
        "whiten+kl-penalty,beta=0.1",
    ]


def _labels(matrix: dict[str, list[Any]]) -> list[str]:
    from hookline.study.matrix import _label

    return [_label(path, value, list(matrix)) for path, values in matrix.items() for value in values]


def test_the_experiment_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hookline.config import yaml

    path = tmp_path / "experiment.yaml"
    path.write_text(json.dumps(with_matrix({"phases.rl.update.lr": [0.1, 0.2]})))
    read, real = [], yaml.read
    monkeypatch.setattr(yaml, "read", lambda file: read.append(file) or real(file))
    assert main(["explain", str(path)]) == 0
    assert read == [path]

    def nothing_runs(requests: list[Any], *_: object) -> None:
        raise HooklineError(f"{len(requests)} runs")

    monkeypatch.setattr("hookline.study.sweep.work", nothing_runs)
    assert main(["run", str(path), "--seeds", "3", "--out", str(tmp_path / "out")]) == 2
    assert read == [path, path]


def test_runs_of_one_document_do_not_see_each_other_s_overrides() -> None:
    from hookline.config.experiment import document_of

    document = document_of(with_matrix({"phases.rl.update.lr": [0.1, 0.2]}))
    before = json.dumps(document.values)
    assert [m.plan.experiment.phases[0].update.options["lr"] for m in members_of(document, ["seed=9"])] == [0.1, 0.2]
    assert json.dumps(document.values) == before
    assert not document.overrides


def test_the_command_line_settles_an_axis_or_brings_one() -> None:
    source = with_matrix({"phases.rl.update.lr": [0.1, 0.2], "seed": [1, 2]})
    assert names(source, "seed=7", f"{GOOD}=0.3") == ["run"]
    assert names(source, seeds="8") == names(source, seeds=8)
    assert names(source, "phases.rl.update=grpo") == ["seed=1", "seed=2"]
    assert names(source, "matrix={}", seeds="3,4") == ["seed=3", "seed=4"]
    assert names(experiment(), "matrix.phases.rl.steps=[1, 2]") == ["steps=1", "steps=2"]
    assert axes_of(experiment()) is None
    assert axes_of(source, ["matrix={}"]) is None
    with pytest.raises(ExperimentError, match="the seed is given twice"):
        members_of(source, ["seed=3"], seeds=2)


def test_each_member_is_the_experiment_with_its_overrides() -> None:
    member: Member
    for member in members_of(with_matrix({GOOD: [0.1, 1e-6], "phases.rl.update.use": ["grpo"]}), seeds="5,6"):
        alone = hookline.loop.api.plan(experiment(), list(member.overrides))  # type: ignore[attr-defined]
        assert alone.experiment.resolved() == member.plan.experiment.resolved()
        assert alone.experiment.phases[0].update.use == "grpo"


def test_every_problem_of_every_combination_is_told_at_once_and_whose_it_is() -> None:
    source = with_matrix(
        {"phases.rl.update": [{"use": "rloo", "lr": -1}, "grpo", "groop"], "seed": [1, -2]}, pacience=3
    )
    with pytest.raises(ExperimentError) as caught:
        members_of(source)
    said = "\n".join(caught.value.problems)
    assert "phases.rl has no option 'pacience'; did you mean 'patience'?" in said.splitlines()
    assert any(line.startswith("rloo,lr=-1: ") and "above 0" in line for line in caught.value.problems)
    assert any(line.startswith("groop: ") for line in caught.value.problems)
    assert any("seed=-2" in line and "at least 0" in line for line in caught.value.problems)
    assert len(caught.value.problems) == 4


@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        ([1], "matrix must map"),
        ({"seed": 3}, "matrix.seed is 3; give a list"),
        ({"seed": []}, r"matrix.seed is \[\]; give a list"),
        ({"seed": [1, 1]}, "contains 1 twice"),
        ({"name": ["a"]}, "matrix.name cannot vary"),
        ({"a=b": [1]}, "cannot vary"),
        ({"phases.rl.updat.lr": [1]}, "no option 'updat'"),
        ({"phases.lr.update": ["rloo"]}, "there is no item 'lr'"),
        ({"seed": list(range(1, 1002))}, "1001 runs"),
    ],
)
def test_a_matrix_that_cannot_be_is_refused(matrix: Any, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence):
        members_of(with_matrix(matrix))


def test_one_run_has_no_jobs(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", written(), "--jobs", "2"]) == 2
    assert "--jobs 2 is for several runs, but this is a single run" in capsys.readouterr().err


def test_a_matrix_is_no_single_run() -> None:
    with pytest.raises(ExperimentError, match=r"hookline\.sweep"):
        hookline.run(with_matrix({"seed": [1]}))


def test_explain_plans_the_matrix(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    path = written({"phases.rl.update.use": ["rloo", "grpo"]})
    assert main(["explain", path]) == 0
    shown, _, said = capsys.readouterr().out.partition("matrix     ")
    assert said.startswith("2 runs; above is the first, rloo, and not grpo\n")
    assert "rloo" in shown
    another = shlex.split(said.partition("to see another: ")[2])
    assert another[:3] == ["hookline", "explain", path]
    assert main(another[1:]) == 0
    shown = capsys.readouterr().out
    assert "grpo" in shown
    assert "matrix" not in shown, "one run is left"
    assert main(["explain", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["matrix"] == ["rloo", "grpo"]
    assert main(["explain", path, "matrix.seed=[-1, 1]"]) == 2


def test_explain_names_a_few_of_many_runs(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", written({"seed": list(range(1, 31))})]) == 0
    said = capsys.readouterr().out.partition("matrix     ")[2]
    assert said.startswith("30 runs; above is the first, seed=1, and not seed=2  seed=3")
    assert "seed=21  and 9 more\n" in said
    assert "seed=22" not in said


def test_options_that_a_value_of_the_matrix_drops_are_said() -> None:
    [said] = left_out(experiment(), {"phases.rl.update": ["grpo", {"use": "rloo", "lr": 1}]})
    assert said.startswith("phases.rl.update: 'grpo' drops lr set in the file")
    assert not left_out(experiment(), {"phases.rl.update.use": ["grpo"], "phases.rl.wrap": [["whiten"]], "seed": [1]})


# -- each is an ordinary run


def same(one: Path, two: Path) -> None:
    """The same rows, answers and weights, to the last bit."""
    for a, b in zip(lines(one / "metrics.jsonl"), lines(two / "metrics.jsonl"), strict=True):
        assert {**a, "timings": 0} == {**b, "timings": 0}
    assert (one / "evaluations.jsonl").read_bytes() == (two / "evaluations.jsonl").read_bytes()
    weights = [json.loads((run / "phases/rl/manifest.json").read_text())["weights"] for run in (one, two)]
    assert weights[0] == weights[1]


def test_a_member_is_what_hookline_run_makes_alone(slow_and_fast: Path, written: Written, tmp_path: Path) -> None:
    hookline.run(written(), [f"{GOOD}=0.1", "seed=3"], out=tmp_path / "alone")
    same(tmp_path / "alone", slow_and_fast / "lr=0.1,seed=3")


def test_jobs_change_no_result(slow_and_fast: Path, slow_again: Path) -> None:
    for seed in range(1, 4):
        same(slow_and_fast / f"lr=1e-06,seed={seed}", slow_again / f"seed={seed}")


def test_a_finished_sweep_is_left_alone_and_may_grow(
    slow_again: Path, written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in slow_again.glob("*/metrics.jsonl")}
    arguments = ["run", written(), f"{GOOD}=1e-6", "--out", str(slow_again)]
    assert main([*arguments, "--seeds", "3"]) == 0
    assert "3 runs, 3 finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in slow_again.glob("*/metrics.jsonl")} == before
    assert main([*arguments, "--seeds", "2", "phases.rl.rollout.max_new_tokens=5"]) == 4
    said = capsys.readouterr().err
    assert "holds a run of another experiment: phases.rl.rollout" in said
    assert "is 5" in said


def test_members_share_a_group(slow_and_fast: Path, slow_again: Path) -> None:
    groups = {json.loads(path.read_text())["group"] for path in slow_and_fast.glob("*/run.json")}
    assert len(groups) == 1
    assert groups.isdisjoint(json.loads(path.read_text())["group"] for path in slow_again.glob("*/run.json"))


@pytest.mark.parametrize(("own", "group"), [(None, "rates-1"), ("mine", "mine")])
def test_wandb_has_the_group_offline_too(
    own: str | None, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hookline_plugins.trackers.wandb import WandB

    said: dict[str, Any] = {}

    class Begun:
        def define_metric(self, *args: Any, **kwargs: Any) -> None:
            pass

    def init(**kwargs: Any) -> Begun:
        said.update(kwargs)
        return Begun()

    monkeypatch.setattr("wandb.init", init)
    run = SimpleNamespace(id="1", directory=tmp_path, about={"group": "rates-1"}, experiment={"phases": []})
    for mode in ("offline", "online"):
        WandB(WandB.Config(group=own))._begin(run, mode)  # type: ignore[arg-type]
        assert (said["group"], said["mode"]) == (group, mode)


def test_a_directory_of_something_else_is_refused(slow_and_fast: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "file").write_text("")
    for out, why in (
        (slow_and_fast / "lr=0.1,seed=1", "is the directory of a run, not of a sweep"),
        (tmp_path / "full", "is not empty and is not a sweep directory"),
        (tmp_path / "file", "cannot be written"),
    ):
        with pytest.raises(HooklineError, match=why):
            hookline.sweep(experiment(), seeds=1, out=out)


# -- what happens when some stop

FRAGILE = """
import os
from hookline import Component, Config, hookimpl

class Fragile(Component):
    name = "fragile"

    class Config(Config):
        how: str = "never"

    @hookimpl(wrapper=True)
    def hookline_score(self, ctx):
        scored = yield
        if ctx.step == 2 and self.config.how == "raise":
            raise ValueError("as planned")
        if ctx.step == 2 and self.config.how == "kill" and not (ctx.run.directory / "killed").exists():
            (ctx.run.directory / "killed").touch()
            os.kill(os.getpid(), 9)
        return scored
"""


def test_one_that_fails_stops_no_other_and_a_killed_one_goes_on(
    tmp_path: Path, written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fragile.py").write_text(FRAGILE)
    path = written(
        {"phases.rl.wrap.0.how": ["raise", "kill", "never"]}, wrap=[{"use": "fragile"}], steps=4, save={"every": 1}
    )
    out = tmp_path / "out"
    arguments = ["run", path, "-p", str(tmp_path / "fragile.py"), "--out", str(out)]
    assert main(arguments) == 5
    said = capfd.readouterr()
    assert "2 of 3 runs failed, 1 are finished" in said.err
    assert "how=raise: exit code 5: PluginError: " in said.err
    assert "as planned" in said.err
    assert "how=kill: killed by signal SIGKILL" in said.err
    assert (out / "how=never/phases/rl/manifest.json").exists()
    assert "as planned" in (out / "logs/how=raise.txt").read_text()
    assert main([*arguments, "matrix.phases.rl.wrap.0.how=[kill, never]"]) == 0
    assert re.search(r"how=kill +goes on after step 2", capfd.readouterr().out)
    same(out / "how=kill", out / "how=never")


@pytest.fixture
def start(warm: Warm) -> Start:
    code = "import sys; from hookline.cli import main; sys.exit(main())"
    return lambda arguments: warm.start("-c", code, "run", *arguments, stderr=subprocess.STDOUT)


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_stopped_and_killed_it_goes_on_bit_for_bit(tmp_path: Path, written: Written, start: Start) -> None:
    path = written(steps=60, save={"every": 5}, evaluate=None)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for seed in (1, 2):
        hookline.run(path, [f"seed={seed}"], out=whole / f"seed={seed}")
    first, second = broken / "seed=1/metrics.jsonl", broken / "seed=2/metrics.jsonl"
    arguments = [path, "--seeds", "2", "--out", str(broken)]

    killed = start(arguments)
    wait_for(lambda: rows(first) >= 7)
    killed.kill()
    killed.communicate()
    stopped = start(arguments)  # waits for the run that the killed sweep left behind to save and end
    wait_for(lambda: rows(second) >= 3)
    with pytest.raises(HooklineError, match=f"is in use by process {stopped.pid}"):
        hookline.sweep(path, seeds=2, out=broken)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 143, said
    assert "goes on after step" in said
    assert "stopped, saved; 1 of 2 runs are finished" in said
    assert rows(second) < 60
    assert main(["run", *arguments]) == 0
    for seed in (1, 2):
        for name in ("metrics.jsonl",):
            ours, theirs = (lines(sweep / f"seed={seed}" / name) for sweep in (whole, broken))
            assert [{**row, "timings": 0} for row in ours] == [{**row, "timings": 0} for row in theirs]
        manifests = [json.loads((s / f"seed={seed}/phases/rl/manifest.json").read_text()) for s in (whole, broken)]
        assert manifests[0]["weights"] == manifests[1]["weights"]


@pytest.mark.slow
def test_interrupted_it_says_so(tmp_path: Path, written: Written, start: Start) -> None:
    running = start([written(steps=2000, evaluate=None), "--seeds", "1", "--out", str(tmp_path / "out")])
    wait_for(lambda: rows(tmp_path / "out/seed=1/metrics.jsonl") >= 1)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert "0 of 1 runs are finished" in said


# -- equal prompts and equal draws

SPY = """
import json
import re
from hookline import Component, hookimpl

class Spy(Component):
    name = "spy"

    @hookimpl(wrapper=True)
    def hookline_rollout(self, ctx):
        rollout = yield
        row = {"prompts": [r["prompt"] for r in rollout.records], "samples": rollout.sample_B.tolist(),
               "responses": [rollout.response_text(i) for i in range(len(rollout))]}
        with (ctx.run.directory / "spied.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\\n")
        return rollout
"""


def test_two_algorithms_at_one_seed_see_the_same_prompts_and_are_asked_the_same(tmp_path: Path) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    spied, asked = [], []
    for update in ("rloo", "grpo"):
        out = tmp_path / update
        overrides = [f"phases.rl.update={{use: {update}, lr: 0.1}}", "seed=4"]
        hookline.run(experiment(wrap=["spy"]), overrides, out=out, plugins=[str(tmp_path / "spy.py")])
        spied.append(lines(out / "spied.jsonl"))
        asked.append(lines(out / "evaluations.jsonl"))
    for key in ("prompts", "samples"):
        assert [row[key] for row in spied[0]] == [row[key] for row in spied[1]]
    assert spied[0][0]["responses"] == spied[1][0]["responses"]  # equal weights and equal draws
    assert spied[0][-1]["responses"] != spied[1][-1]["responses"]  # not because they learn the same
    assert asked[0][0]["samples"] == asked[1][0]["samples"]
    for one, two in zip(*asked, strict=True):
        for a, b in zip(one["samples"], two["samples"], strict=True):
            assert (a["sample"], a["group"], a["prompt"]) == (b["sample"], b["group"], b["prompt"])
